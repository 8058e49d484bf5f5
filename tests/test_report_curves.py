"""The numbers that a page draws from."""

import base64
import json

import numpy as np
import pytest

from lm_core.analysis.comparison import compare_runs
from lm_core.analysis.records import read_run
from lm_core.report.curves import charts, page_data, planned
from tests.made_run import make_run


def data_of(*paths):
    data = page_data(compare_runs([read_run(path) for path in paths]))
    # What JSON cannot hold shows here.
    return json.loads(json.dumps(data, allow_nan=False))


def numbers(text):
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


def names(*paths):
    return [chart.name for chart in charts([read_run(path) for path in paths])]


def test_one_run_has_both_losses_in_one_chart(tmp_path):
    assert names(make_run(tmp_path / "a")) == ["loss", "learning-rate", "gradient-norm", "speed"]


def test_several_runs_have_a_chart_for_each_loss(tmp_path):
    found = names(make_run(tmp_path / "a"), make_run(tmp_path / "b"))
    assert found[:2] == ["validation-loss", "training-loss"]


def test_what_is_nowhere_on_record_is_not_drawn(tmp_path):
    a, b = (make_run(tmp_path / name, evaluations={}) for name in "ab")
    assert names(a, b)[0] == "training-loss"


def test_what_hooks_report_and_what_was_skipped_is_drawn(tmp_path):
    columns = {"norm/blocks.0": [1.0, 2.0, 3.0], "skipped_batches": [None, 1, 1]}
    path = make_run(tmp_path / "a", columns=columns)
    *_, skipped, hook = charts([read_run(path)])
    assert skipped.name == "skipped"
    assert (hook.title, hook.is_of_hook) == ("norm/blocks.0", True)
    assert hook.columns == ("norm/blocks.0",)


def test_every_point_of_a_run_reaches_the_page(tmp_path):
    losses = [4 - step / 1000 for step in range(2000)]
    path = make_run(tmp_path / "a", losses=losses, evaluations={7: 3.0, 900: 2.0, 2000: 1.5})
    curves = data_of(path)["runs"][0]["curves"]
    assert curves["train_loss"]["n"] == 2000
    assert curves["train_loss"]["steps"] == {"first": 1, "stride": 1, "n": 2000}
    assert numbers(curves["train_loss"]["values"]).tolist() == np.float32(losses).tolist()
    steps = np.frombuffer(base64.b64decode(curves["val_loss"]["steps"]), dtype="<i4")
    assert steps.tolist() == [7, 900, 2000]
    assert "bits_per_byte" not in curves


def test_numbers_that_no_page_can_draw_are_drawn_at_the_edge_or_not_at_all(tmp_path):
    path = make_run(tmp_path / "a", losses=[1e300, float("nan"), 2.0])
    curve = data_of(path)["runs"][0]["curves"]["train_loss"]
    assert numbers(curve["values"]).tolist() == [np.finfo(np.float32).max, 2.0]


def test_a_run_without_a_step_is_a_page_without_curves(tmp_path):
    path = make_run(tmp_path / "a", losses=(), evaluations={})
    data = page_data(compare_runs([read_run(path, needs_metrics=False)]))
    assert data["charts"] == []
    assert data["runs"][0]["curves"] == {}


def test_the_time_of_each_step_is_known_to_the_page(tmp_path):
    speeds = [1000.0, 500.0, 2000.0]
    path = make_run(
        tmp_path / "a", columns={"tokens_per_second": speeds}, batch_size=4, max_seq_len=250
    )
    clock = data_of(path)["runs"][0]["clock"]
    assert clock == {"steps": [0, 1, 2, 3], "seconds": [0, 1.0, 3.0, 3.5]}


def test_the_schedule_is_drawn_over_all_steps_of_which_only_some_are_done(tmp_path):
    path = make_run(
        tmp_path / "a",
        max_steps=100,
        warmup_steps=10,
        learning_rate=0.1,
        learning_rate_schedule="linear",
        min_learning_rate_ratio=0.0,
    )
    curve = planned(read_run(path))["learning_rate"]
    assert (curve.steps[0], curve.steps[-1], len(curve.steps)) == (1, 100, 100)
    assert curve.values[[0, 9, 54, 99]].tolist() == pytest.approx([0.01, 0.1, 0.05, 0.0])


def test_with_muon_both_rates_are_drawn(tmp_path):
    path = make_run(tmp_path / "a", optimizer="muon")
    assert list(planned(read_run(path))) == ["learning_rate", "muon_learning_rate"]


def test_the_factor_of_a_band_is_that_of_as_many_runs_as_there_are(tmp_path):
    paths = [make_run(tmp_path / f"a{s}", seed=s) for s in (1, 2, 3)]
    paths += [make_run(tmp_path / f"b{s}", seed=s, dropout=0.3) for s in (1, 2)]
    data = data_of(*paths)
    # Student's factor of two degrees of freedom, over the root of three; two runs have no band.
    assert data["factors"] == [None, None, None, pytest.approx(4.30265 / 3**0.5, abs=1e-4)]
    assert [group["mean"] for group in data["groups"]] == [[0, 1, 2], [3, 4]]
    assert data["groups"][0]["label"] == "dropout 0.1"


def test_a_seed_that_did_not_come_to_its_end_is_drawn_for_itself(tmp_path):
    paths = [make_run(tmp_path / f"a{s}", seed=s) for s in (1, 2)]
    paths.append(make_run(tmp_path / "a3", seed=3, manifest={"outcome": "diverged"}))
    (group,) = data_of(*paths)["groups"]
    assert (group["mean"], group["apart"]) == ([0, 1], [2])
    stopped = [
        make_run(tmp_path / f"b{s}", seed=s, manifest={"outcome": "diverged"}) for s in (1, 2)
    ]
    (group,) = data_of(*stopped)["groups"]
    assert (group["mean"], group["apart"]) == ([0, 1], [])


def test_fifty_long_runs_keep_all_their_losses_and_stay_small(tmp_path):
    losses = np.random.default_rng(0).normal(2, 0.1, size=1000).tolist()
    paths = [make_run(tmp_path / f"{n}", losses=losses, seed=n) for n in range(50)]
    records = [read_run(path) for path in paths]
    for record in records:  # Ten times as long as what is on the disk.
        n = 10 * len(record.steps)
        long = {name: np.resize(column, n) for name, column in record.columns.items()}
        record.columns.clear()
        record.columns.update(long | {"step": np.arange(1.0, n + 1)})
    data = page_data(compare_runs(records))
    assert all(run["curves"]["train_loss"]["n"] == 10_000 for run in data["runs"])
    assert all("low" not in run["curves"]["train_loss"] for run in data["runs"])
    assert all("low" in run["curves"]["grad_norm"] for run in data["runs"])
    assert len(json.dumps(data)) < 4.5e6


def test_more_than_a_page_can_hold_is_put_into_buckets(tmp_path):
    records = [read_run(make_run(tmp_path / name, seed=n)) for n, name in enumerate("ab")]
    for record in records:
        n = 400_000
        record.columns.update({"step": np.arange(1.0, n + 1), "train_loss": np.ones(n)})
        for name in ("learning_rate", "grad_norm", "tokens_per_second", "val_loss"):
            record.columns[name] = np.ones(n)
        del record.columns["bits_per_byte"]
    data = page_data(compare_runs(records))
    curve = data["runs"][0]["curves"]["train_loss"]
    assert curve["n"] == 400_000
    assert len(numbers(curve["low"])) == 500_000 // 8
    assert len(json.dumps(data)) < 5e6
