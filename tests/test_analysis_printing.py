"""What ``--mode=compare`` prints."""

import csv
import io
import json

import pytest

from lm_core.analysis import printing
from lm_core.analysis.statistics import difference
from tests.made_run import make_run
from tests.tiny_run import asked

RESULTS = ["steps", "final nats", "best nats", "bits/byte", "tokens/s", "wall time", "outcome"]


@pytest.fixture
def seeded(folder):
    """Two configurations with three seeds each."""
    for dropout in (0.0, 0.2):
        for seed in (1, 2, 3):
            loss = 2 + dropout + 0.1 * seed
            make_run(
                folder / f"d{dropout}-s{seed}", evaluations={3: loss}, seed=seed, dropout=dropout
            )
    return folder


def compare(capsys, *words, form="table"):
    printing.compare(asked(compared=words, format=form))
    return capsys.readouterr().out


def test_a_table_tells_what_differs_and_what_came_of_it(folder, capsys):
    make_run(folder / "a", n_layers=2, evaluations={2: 1.9, 3: 2.0})
    ended = {"outcome": "diverged"}
    make_run(folder / "b", n_layers=6, max_steps=9, evaluations={2: 1.5}, manifest=ended)
    cells = [line.split("  ") for line in compare(capsys, "a", "b").splitlines()[:3]]
    assert [[cell.strip() for cell in row if cell.strip()] for row in cells] == [
        ["run", "n_layers", "max_steps", *RESULTS],
        ["a", "2", "3", "3", "2.0000", "1.9000 at 2", "2.8854", "1,000", "1:00", "completed"],
        ["b", "6", "9", "3 of 9", "1.5000 at 2", "1.5000", "2.1640", "1,000", "1:00", "diverged"],
    ]


def test_runs_of_one_seed_each_name_no_winner(folder, capsys):
    make_run(folder / "a", n_layers=2)
    make_run(folder / "b", n_layers=6)
    assert compare(capsys, "a", "b").splitlines()[-1] == (
        "one seed each: what is more than noise only several seeds can tell (3 or more)"
    )


def test_one_run_alone_is_told_without_a_verdict(folder, capsys):
    make_run(folder / "a")
    assert len(compare(capsys, "a").splitlines()) == 2


def test_over_seeds_means_intervals_and_a_verdict_are_told(seeded, capsys):
    lines = compare(capsys, "d*").splitlines()
    assert lines[1].split()[:4] == ["A", "d0.0-s1", "0.0", "1"]
    table, interval = lines[8:11], ["2.1000", "to", "2.3000"]
    assert table[0].split("  ")[1].strip() == "over seeds"
    assert table[1].split() == ["A", "dropout", "0.0", "3", "2.2000", "0.1000", *interval]
    assert lines[-1] == (
        "B against A: +0.2000 nats (3 common seeds, 95% interval +0.2000 to +0.2000): "
        "more than noise"
    )


def test_two_seeds_are_too_few_to_tell(seeded, capsys):
    out = compare(capsys, "d*-s1", "d*-s2")
    assert out.splitlines()[-1].endswith(
        "2 common seeds); too few to tell it from noise, 3 are needed"
    )


def test_a_difference_within_the_noise_is_told_as_such():
    found = difference({1: 1.0, 2: 2.0, 3: 3.0}, {1: 2.0, 2: 2.0, 3: 2.1})
    assert printing.verdict(found, 0.95).endswith("no more than noise")


def test_json_has_everything_for_programs(seeded, capsys):
    found = json.loads(compare(capsys, "d*", form="json"))
    assert found["differing"] == ["dropout", "seed"]
    assert found["runs"][0]["run"] == "d0.0-s1"
    assert found["runs"][0]["differing"] == {"dropout": 0.0, "seed": 1}
    assert found["runs"][0]["final"]["loss"] == pytest.approx(2.1)
    assert found["groups"][1]["results"] == pytest.approx({"1": 2.3, "2": 2.4, "3": 2.5})
    (difference,) = found["differences"]
    assert (difference["group"], difference["reference"]) == ("B", "A")
    assert difference["exceeds_noise"] is True


def test_csv_has_a_line_for_each_run(seeded, capsys):
    make_run(seeded / "none", evaluations={}, seed=4, dropout=0.2)
    rows = list(csv.DictReader(io.StringIO(compare(capsys, "d*", "none", form="csv"))))
    assert [row["run"] for row in rows][-2:] == ["d0.2-s3", "none"]
    assert [row["seed"] for row in rows] == ["1", "2", "3"] * 2 + ["4"]
    assert float(rows[0]["final_loss"]) == pytest.approx(2.1)
    assert rows[-1]["final_loss"] == ""
    assert rows[0]["dropout"] == "0.0"


def test_runs_on_different_texts_are_told_not_to_compare(folder, capsys):
    for ratio in (0.9, 0.95):
        for seed in (1, 2):
            make_run(folder / f"r{ratio}-s{seed}", seed=seed, train_ratio=ratio)
    last = compare(capsys, "r*").splitlines()[-1]
    assert last == "B against A: evaluated on different texts, so that their losses do not compare"
    (difference,) = json.loads(compare(capsys, "r*", form="json"))["differences"]
    assert "mean" not in difference
