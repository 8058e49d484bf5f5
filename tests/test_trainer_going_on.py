"""Stopping, going on from a checkpoint, and checkpoints that do not fit."""

import os
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.errors import StoppedError
from lm_core.model.transformer import Transformer
from lm_core.training.checkpoint import list_checkpoints, load_checkpoint
from tests.tiny_trainer import (
    HOOKS,
    SIZES,
    build,
    new_run,
    rows,
    saved_steps,
    without_speed,
)


def run_in_pieces(path, stops, max_steps=12, **settings):
    """Trains to the end, stopping after each given number of steps and starting anew."""
    run = new_run(path)
    for stop in [*sorted(stops), max_steps]:
        trainer = build(max_steps=max_steps, **settings)
        checkpoints = list_checkpoints(run.checkpoints)
        if checkpoints:
            trainer.restore(load_checkpoint(checkpoints[-1][1]))
        run.rewind(trainer.step)
        if stop < max_steps:
            with pytest.raises(StoppedError):
                stopped_after(trainer, stop).train(run)
        else:
            trainer.train(run)
    return run


def stopped_after(trainer, step):
    """The trainer with a Ctrl-C that comes while a step is computed."""
    original = trainer.train_step

    def train_step():
        original()
        if trainer.step >= step:
            os.kill(os.getpid(), signal.SIGINT)

    trainer.train_step = train_step
    return trainer


@settings(max_examples=8)
@given(st.sets(st.integers(1, 11), min_size=1, max_size=4))
def test_interrupted_anywhere_and_resumed_the_end_is_the_same_byte_for_byte(
    tmp_path_factory, stops
):
    folder = tmp_path_factory.mktemp("runs")
    settings = {"hooks": HOOKS, "eval_cadence": 4, "sampling_cadence": 5, "checkpoint_cadence": 3}
    straight = run_in_pieces(folder / "straight", [], **settings)
    pieces = run_in_pieces(folder / "pieces", stops, **settings)
    last = "checkpoints/step-00000012"
    for name in ("model", "optimizer", "hooks"):
        file = f"{last}/{name}.safetensors"
        assert (straight.path / file).read_bytes() == (pieces.path / file).read_bytes()
    assert (straight.path / last / "state.json").read_bytes() == (
        pieces.path / last / "state.json"
    ).read_bytes()
    assert without_speed(straight.metrics) == without_speed(pieces.metrics)
    assert straight.samples.read_bytes() == pieces.samples.read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_within_a_step_and_says_how_to_go_on(tmp_path, number, code):
    run = new_run(tmp_path / "run")
    trainer = build(max_steps=50)
    original = trainer.train_step

    def train_step():
        original()
        if trainer.step == 3:
            os.kill(os.getpid(), number)

    trainer.train_step = train_step
    with pytest.raises(
        StoppedError, match="stopped after step 3, which is saved; --resume"
    ) as error:
        trainer.train(run)
    assert error.value.exit_code == code
    assert saved_steps(run) == [3]
    assert [row["step"] for row in rows(run.metrics)] == [1, 2, 3]


def test_a_signal_during_the_last_step_changes_nothing(tmp_path):
    run = new_run(tmp_path / "run")
    trainer = stopped_after(build(max_steps=3), 3)
    assert trainer.train(run).step == 3


def test_a_run_that_is_complete_is_evaluated_and_nothing_else(tmp_path):
    run = new_run(tmp_path / "run")
    first = build(max_steps=4, sampling_cadence=2)
    expected = first.train(run)
    recorded = run.metrics.read_bytes()
    again = build(max_steps=4, sampling_cadence=2)
    again.restore(load_checkpoint(list_checkpoints(run.checkpoints)[-1][1]))
    assert again.train(run) == expected
    assert run.metrics.read_bytes() == recorded


def checkpoint_of(tmp_path, **settings):
    run = new_run(tmp_path / "run")
    build(max_steps=4, **settings).train(run)
    return load_checkpoint(list_checkpoints(run.checkpoints)[-1][1])


def test_a_checkpoint_past_the_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at step 4 already, past max_steps 3"):
        build(max_steps=3).restore(checkpoint_of(tmp_path))


def test_a_checkpoint_of_another_seed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the checkpoint's seed is 4, the configuration's 5"):
        build(seed=5).restore(checkpoint_of(tmp_path))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    checkpoint = checkpoint_of(tmp_path)
    checkpoint.model.pop("final_norm.bias")
    with pytest.raises(RuntimeError, match=r"does not fit the model.*final_norm.bias"):
        build().restore(checkpoint)


def test_a_checkpoint_with_a_loss_that_is_no_number_is_refused(tmp_path):
    checkpoint = checkpoint_of(tmp_path)
    checkpoint.state["best_validation_loss"] = "small"
    with pytest.raises(RuntimeError, match="best_validation_loss is 'small', no number"):
        build().restore(checkpoint)


def test_a_checkpoint_holds_what_is_needed_to_use_it_alone(tmp_path):
    state = checkpoint_of(tmp_path).state
    again = Transformer(**state["model"])
    assert again.arguments == {"vocab_size": 256, **SIZES, "dropout": 0.1}
    assert state["tokenizer"] == {"kind": "byte"}
