"""A run in a few numbers."""

import math

import pytest

from lm_core.analysis.records import read_run
from lm_core.analysis.summary import summarise_run, training_seconds
from lm_core.run_lock import RunLock
from tests.made_run import START, make_run


def at(time):
    return START.replace("12:00", time)


def summary(path, **run):
    return summarise_run(read_run(make_run(path / "a", **run)))


def test_the_last_and_the_lowest_validation_loss_are_told_with_their_steps(tmp_path):
    found = summary(tmp_path, losses=[3.0] * 6, evaluations={2: 2.5, 4: 2.0, 6: 2.2})
    assert found.final[:2] == (6, 2.2)
    assert found.best[:2] == (4, 2.0)
    assert found.result == found.final
    assert found.final.bits_per_byte == pytest.approx(2.2 / math.log(2))
    assert (found.n_steps, found.max_steps, found.outcome) == (6, 6, "completed")


def test_the_result_of_a_run_that_may_stop_early_is_its_best(tmp_path):
    found = summary(
        tmp_path,
        losses=[3.0] * 6,
        evaluations={2: 2.5, 4: 2.0, 6: 2.2},
        eval_cadence=2,
        early_stopping_evaluations=1,
    )
    assert found.result == found.best


def test_a_run_without_evaluations_has_no_result(tmp_path):
    found = summary(tmp_path, evaluations={})
    assert (found.final, found.best, found.result) == (None, None, None)


def test_an_evaluation_that_is_no_number_is_passed_over(tmp_path):
    found = summary(tmp_path, losses=[3.0] * 3, evaluations={2: 2.5, 3: math.nan})
    assert found.final[:2] == (2, 2.5)


def test_the_speed_is_the_median_of_the_steps(tmp_path):
    found = summary(tmp_path, columns={"tokens_per_second": [1.0, 500.0, 600.0]})
    assert found.tokens_per_second == 500.0
    assert (
        summary(tmp_path / "b", columns={"tokens_per_second": [None] * 3}).tokens_per_second is None
    )


def test_training_time_is_that_of_the_steps(tmp_path):
    speeds = [1000.0, None, 4000.0, 1000.0]
    path = make_run(
        tmp_path / "a",
        losses=[3.0] * 4,
        columns={"tokens_per_second": speeds},
        batch_size=4,
        max_seq_len=250,
    )
    # The second step is taken to be as fast as the median of the others.
    assert training_seconds(read_run(path)).tolist() == [1.0, 2.0, 2.25, 3.25]


def test_steps_that_are_not_on_record_take_their_time_too(tmp_path):
    path = make_run(tmp_path / "a", batch_size=4, max_seq_len=250)
    metrics = path / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text(lines[0] + lines[2])
    assert training_seconds(read_run(path)).tolist() == [1.0, 3.0]


def test_the_wall_time_is_that_of_all_starts_together(tmp_path):
    resumed = [{"start": at("15:00"), "before": {"end": at("12:10")}}]
    found = summary(tmp_path, manifest={"end": at("15:05"), "resumed": resumed})
    assert (found.wall_seconds, found.is_wall_complete) == (15 * 60, True)


def test_a_start_without_an_end_leaves_the_wall_time_incomplete(tmp_path):
    resumed = [{"start": at("15:00"), "before": {"end": None}}]
    found = summary(tmp_path, manifest={"end": at("15:05"), "resumed": resumed})
    assert (found.wall_seconds, found.is_wall_complete) == (5 * 60, False)


@pytest.mark.parametrize("end", [None, 5, "yesterday"])
def test_an_end_that_cannot_be_read_is_none(tmp_path, end):
    found = summary(tmp_path, manifest={"end": end})
    assert (found.wall_seconds, found.is_wall_complete) == (None, False)


def test_a_run_that_nobody_writes_to_any_more_was_killed(tmp_path):
    path = make_run(tmp_path / "a", manifest={"outcome": "running", "end": None})
    assert summarise_run(read_run(path)).outcome == "killed"
    with RunLock() as lock:
        lock.take(path)
        assert summarise_run(read_run(path)).outcome == "running"


def test_a_manifest_that_tells_little_is_no_obstacle(tmp_path):
    facts = {"outcome": 3, "reason": None, "n_parameters": None, "resumed": [{}]}
    found = summary(tmp_path, manifest=facts)
    assert (found.outcome, found.reason, found.n_parameters) == ("unknown", None, None)
