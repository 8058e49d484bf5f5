"""Runs set side by side: what differs, and which differ in the seed alone."""

import math

import pytest

from lm_core.analysis.comparison import compare_runs
from lm_core.analysis.records import read_run
from lm_core.config.rendering import config_hash
from tests.made_run import SHA256, amend_manifest, make_run


def compared(folder, *runs):
    records = []
    for number, values in enumerate(runs):
        loss = values.pop("loss", 2.0)
        path = make_run(folder / f"run-{number}", evaluations={3: loss}, **values)
        records.append(read_run(path))
    return compare_runs(records)


def test_what_differs_makes_the_names(tmp_path):
    found = compared(tmp_path, {"n_layers": 2, "dropout": 0.0}, {"n_layers": 6, "dropout": 0.0})
    assert found.keys == ["n_layers"]
    assert [run.label for run in found.runs] == ["n_layers 2", "n_layers 6"]
    assert [group.label for group in found.groups] == ["n_layers 2", "n_layers 6"]
    assert not found.has_seeds


def test_equal_runs_are_named_by_their_directories(tmp_path):
    found = compared(tmp_path, {}, {})
    assert found.keys == []
    assert [run.label for run in found.runs] == [str(tmp_path / f"run-{n}") for n in (0, 1)]
    (group,) = found.groups
    # The same seed twice is one result.
    assert (group.runs, group.summary.n) == ([0, 1], 1)


def test_runs_that_differ_in_the_seed_alone_are_one_group(tmp_path):
    found = compared(
        tmp_path,
        {"seed": 1, "dropout": 0.0, "loss": 2.0},
        {"seed": 1, "dropout": 0.2, "loss": 2.5},
        {"seed": 2, "dropout": 0.0, "loss": 2.2},
        {"seed": 2, "dropout": 0.2, "loss": 2.7},
        {"seed": 3, "dropout": 0.0, "loss": 2.4},
        {"seed": 3, "dropout": 0.2, "loss": 2.9},
    )
    assert found.has_seeds
    first, second = found.groups
    assert (first.letter, first.label, first.runs) == ("A", "dropout 0.0", [0, 2, 4])
    assert (second.letter, second.label, second.runs) == ("B", "dropout 0.2", [1, 3, 5])
    assert first.results == {1: 2.0, 2: 2.2, 3: 2.4}
    assert first.summary.mean == pytest.approx(2.2)
    ((place, difference, unit),) = found.differences
    assert unit == "nats"
    assert (place, difference.is_paired, difference.exceeds_noise) == (1, True, True)
    assert difference.mean == pytest.approx(0.5)


def test_only_completed_runs_count_as_results(tmp_path):
    stopped = {"outcome": "stopped by SIGTERM"}
    found = compared(tmp_path, {"seed": 1}, {"seed": 2, "manifest": stopped})
    assert found.groups[0].results == {1: 2.0}


def test_with_more_groups_each_interval_is_wider(tmp_path):
    places = [(dropout, seed) for dropout in (0.0, 0.1, 0.2) for seed in (1, 2, 3)]
    runs = [{"seed": s, "dropout": d, "loss": 2 + d + 0.1 * s} for d, s in places]
    found = compared(tmp_path, *runs)
    assert found.confidence == pytest.approx(0.975)
    assert [one.group for one in found.differences] == [1, 2]


def test_a_group_without_results_is_no_reference(tmp_path):
    diverged = {"outcome": "diverged"}
    found = compared(
        tmp_path, {"learning_rate": 9.0, "manifest": diverged}, {"dropout": 0.2}, {"dropout": 0.3}
    )
    assert found.reference == 1
    assert [one.group for one in found.differences] == [2]


def test_the_text_is_compared_by_what_it_says(tmp_path):
    found = compared(tmp_path, {"corpus": "a.txt"}, {"corpus": "b.txt"})
    assert found.keys == []
    for name, text in (("c", "a.txt"), ("d", "a.txt")):
        make_run(tmp_path / name, corpus=text)
    table = read_run(tmp_path / "d").values.to_dict()
    other = SHA256[::-1]
    amend_manifest(
        tmp_path / "d",
        corpus={"path": None, "sha256": other, "bytes": 1},
        config_hash=config_hash(table, other),
    )
    found = compare_runs([read_run(tmp_path / name) for name in ("c", "d")])
    assert found.keys == ["corpus"]
    assert len(found.groups) == 2


def test_losses_on_different_parts_of_a_text_are_not_compared(tmp_path):
    runs = [{"seed": s, "train_ratio": r} for r in (0.9, 0.95) for s in (1, 2, 3)]
    (one,) = compared(tmp_path, *runs).differences
    assert one.difference is None


def test_where_the_tokens_differ_bits_per_byte_are_compared(tmp_path):
    runs = [{"seed": s, "tokenizer": k} for k in ("ascii", "byte") for s in (1, 2, 3)]
    for number, run in enumerate(runs):
        run["loss"] = 2.0 if number < 3 else 4.0
    (one,) = compared(tmp_path, *runs).differences
    assert one.unit == "bits per byte"
    # What the made runs have as bits is their loss over the logarithm of two.
    assert one.difference.mean == pytest.approx(2.0 / math.log(2))
