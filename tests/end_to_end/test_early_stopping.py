"""Runs that stop when they get no better, and what their result is."""

import json
from dataclasses import replace

import pytest

from lm_core import examination, experiment
from lm_core.errors import InputError
from lm_core.evaluation import Evaluation
from lm_core.training.checkpoint_folder import chosen_checkpoint
from tests.tiny_run import looking_at, request
from tests.tiny_trainer import build, new_run, rows, saved_steps

# By the sequence number of the evaluation: the third is the best, three fruitless ones follow.
LOSSES = [3.0, 2.0, 1.0, 1.5, 1.0, 4.0, 0.5, 0.4, 0.3]


def stopping(n_fruitless, max_steps=9, **settings):
    """A trainer whose evaluations find these losses, one in each step."""
    defaults = {"eval_cadence": 1, "checkpoint_cadence": None, "max_steps": max_steps}
    trainer = build(early_stopping_evaluations=n_fruitless, **{**defaults, **settings})
    trainer._looks.evaluate = lambda check: Evaluation(LOSSES[trainer.step - 1], 1.0, 1.0, 1)
    return trainer


@pytest.mark.parametrize(("n_fruitless", "last"), [(1, 4), (2, 5), (3, 6), (4, 9), (None, 9)])
def test_training_stops_after_so_many_evaluations_without_a_better_one(tmp_path, n_fruitless, last):
    run = new_run(tmp_path / "run")
    trainer = stopping(n_fruitless)
    result = trainer.train(run)
    assert (trainer.step, result.step, trainer.has_stopped_early) == (last, last, last < 9)
    assert trainer.is_complete
    assert [row["step"] for row in rows(run.metrics)] == list(range(1, last + 1))
    assert saved_steps(run)[-1] == last


def test_the_best_checkpoint_is_kept_even_without_a_cadence(tmp_path):
    run = new_run(tmp_path / "run")
    stopping(3, keep_checkpoints=1).train(run)
    assert saved_steps(run) == [3, 6]
    assert chosen_checkpoint(run.checkpoints, "best", print).step == 3


def test_a_run_that_stopped_stays_so_and_goes_on_when_it_may(tmp_path):
    run = new_run(tmp_path / "run")
    stopping(3).train(run)
    newest = chosen_checkpoint(run.checkpoints, "newest", print)
    again = stopping(3)
    again.restore(newest)
    assert again.has_stopped_early
    assert again.is_complete
    assert again.train().step == 6
    further = stopping(4)
    further.restore(newest)
    assert not further.is_complete
    assert further.train().step == 9


@pytest.mark.parametrize("end", [4, 5, 7])
def test_where_a_run_ended_in_the_meantime_does_not_matter(tmp_path, end):
    # Evaluations after steps 2, 4, 6, ... find 2.0, 1.5, 4.0: it is over after step 6.
    settings = {"eval_cadence": 2, "checkpoint_cadence": 1}
    straight = stopping(1, **settings)
    straight.train()
    run = new_run(tmp_path / "run")
    first = stopping(1, max_steps=end, **settings)
    first.train(run)
    second = stopping(1, **settings)
    second.restore(chosen_checkpoint(run.checkpoints, "newest", print))
    second.train(run)
    assert straight.has_stopped_early
    assert second.step == straight.step


SETTINGS = {
    "Trainer__eval_cadence": 2,
    "Trainer__early_stopping_evaluations": 2,
    "Trainer__max_steps": 40,
    "Trainer__learning_rate": 0.3,
    "Trainer__sampling_cadence": 40,
    "Trainer__seed": 1,
    "Sampler__max_length": 5,
}


def test_the_best_checkpoint_is_the_runs_result(tmp_path, capsys):
    experiment.train(request(tmp_path, **SETTINGS))
    told = capsys.readouterr()
    told = told.out + told.err
    run_path = tmp_path / "run"
    found = [json.loads(line) for line in (run_path / "metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["val_loss"] for row in found if "val_loss" in row}
    best = min(losses, key=losses.get)
    last = max(losses)
    assert best < last < 40
    assert f"stopped early after step {last}" in told
    assert f"the result is the checkpoint of step {best}\n" in told
    assert "sample:\nThe" in told
    assert f"final validation loss: {losses[best]:.4f} nats per token" in told
    assert json.loads((run_path / "manifest.json").read_text())["outcome"] == "completed"
    examination.evaluate(looking_at(tmp_path))
    told = capsys.readouterr().out
    assert f"checkpoint: step {best} of" in told
    assert f"validation loss: {losses[best]:.4f} nats per token" in told


def test_a_best_one_that_was_never_saved_is_told_and_the_newest_taken(tmp_path, capsys):
    before = {**SETTINGS, "Trainer__checkpoint_cadence": None, "Trainer__max_steps": 16}
    del before["Trainer__early_stopping_evaluations"]
    experiment.train(request(tmp_path, **before))
    found = rows(tmp_path / "run" / "metrics.jsonl")
    losses = {row["step"]: row["val_loss"] for row in found if "val_loss" in row}
    assert min(losses, key=losses.get) < 16
    after = {**SETTINGS, "Trainer__checkpoint_cadence": None}
    experiment.train(request(tmp_path, resume=True, **after))
    examination.evaluate(looking_at(tmp_path))
    told = capsys.readouterr()
    assert "was not kept; the newest is taken" in told.err
    assert "checkpoint: step 16 of" in told.out


def test_the_newest_one_can_be_asked_for(tmp_path, capsys):
    experiment.train(request(tmp_path, **SETTINGS))
    capsys.readouterr()
    examination.evaluate(replace(looking_at(tmp_path), checkpoint="newest"))
    newest = max(int(path.name[5:]) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert f"checkpoint: step {newest} of" in capsys.readouterr().out


def test_without_evaluations_on_the_way_it_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"early_stopping_evaluations 2 .* needs evaluations"):
        experiment.train(request(tmp_path, Trainer__early_stopping_evaluations=2))


@pytest.mark.parametrize(
    ("schedule", "warmup_steps", "expected", "curve"),
    [
        ("cosine", 0, "3", [0.775, 0.325, 0.1, 0.1, 0.1]),
        ("linear", 4, "4", [0.25, 0.5, 0.75, 1.0, 0.1]),
        ("constant", 0, "null", [1, 1, 1, 1, 1]),
    ],
)
def test_the_end_of_the_decay_is_recorded_and_kept_by_a_longer_resume(
    tmp_path, schedule, warmup_steps, expected, curve
):
    table = {"Trainer__learning_rate_schedule": schedule, "Trainer__seed": 1}
    table["Trainer__warmup_steps"] = warmup_steps
    run = tmp_path / "run"
    experiment.train(request(tmp_path, **table))
    assert f"decay_steps: {expected}" in (run / "config.yaml").read_text()
    experiment.train(request(tmp_path, resume=True, **table, Trainer__max_steps=5))
    assert f"decay_steps: {expected}" in (run / "config.yaml").read_text()
    rates = [row["learning_rate"] for row in rows(run / "metrics.jsonl")]
    assert rates == pytest.approx([3e-4 * factor for factor in curve])
