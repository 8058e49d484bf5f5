"""Stopping, going on from a checkpoint, and checkpoints that do not fit."""

import contextlib
import itertools
import os
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.errors import StoppedError
from lm_core.model.transformer import Transformer
from lm_core.training import checkpoint, recorder, signals
from lm_core.training.checkpoint import load_checkpoint
from lm_core.training.checkpoint_folder import list_checkpoints
from tests.tiny_trainer import (
    HOOKS,
    MODERN,
    SIZES,
    build,
    new_run,
    rows,
    saved_steps,
    without_speed,
)


def run_in_pieces(path, pauses, max_steps=12, **settings):
    """Trains to the end, with a Ctrl-C after each given number of events, and starting anew."""
    run = new_run(path)
    for pause in [*pauses, None]:
        trainer = build(max_steps=max_steps, **settings)
        checkpoints = list_checkpoints(run.checkpoints)
        if checkpoints:
            trainer.restore(load_checkpoint(checkpoints[-1][1]))
        trainer.rewind(run)
        if pause is None:
            trainer.train(run)
        else:
            with contextlib.suppress(StoppedError):
                interrupted(trainer, pause).train(run)
    return run


def interrupted(trainer, n_events, number=signal.SIGINT):
    """The trainer with a signal at an event: a step, a batch evaluated, a token sampled."""
    count = itertools.count()

    def happens():
        if next(count) == n_events:
            os.kill(os.getpid(), number)

    def counting(look):
        def counted(check_stop):
            def check():
                happens()
                check_stop()

            return look(check)

        return counted

    train_step = trainer.train_step
    trainer.train_step = lambda: (train_step(), happens())
    looks = trainer._looks
    looks.evaluate, looks.sample = counting(looks.evaluate), counting(looks.sample)
    return trainer


CADENCES = {"eval_cadence": 4, "sampling_cadence": 5, "checkpoint_cadence": 3}


def assert_the_same_run(one, other, step=12):
    last = f"checkpoints/step-{step:08d}"
    for name in ("model", "optimizer", "hooks"):
        file = f"{last}/{name}.safetensors"
        assert (one.path / file).read_bytes() == (other.path / file).read_bytes(), name
    file = f"{last}/state.json"
    assert (one.path / file).read_bytes() == (other.path / file).read_bytes()
    assert without_speed(one.metrics) == without_speed(other.metrics)
    columns = [[list(row) for row in without_speed(run.metrics)] for run in (one, other)]
    assert columns[0] == columns[1]
    samples = [
        [{k: v for k, v in row.items() if k in ("step", "text")} for row in rows(run.samples)]
        for run in (one, other)
    ]
    assert samples[0] == samples[1]


OFTEN = {"eval_cadence": 1, "sampling_cadence": 2, "checkpoint_cadence": 3}


@pytest.mark.parametrize(
    ("precision", "choices"),
    [
        ("float32", {}),
        pytest.param("bfloat16", MODERN, marks=pytest.mark.exhaustive),
        pytest.param("float32", MODERN, marks=pytest.mark.exhaustive),
        pytest.param("bfloat16", {}, marks=pytest.mark.exhaustive),
    ],
    ids=["float32", "bfloat16-modern", "float32-modern", "bfloat16"],
)
@settings(max_examples=10)
@given(st.lists(st.integers(0, 14), min_size=1, max_size=5), st.sampled_from([CADENCES, OFTEN]))
def test_interrupted_anywhere_and_resumed_the_end_is_the_same_byte_for_byte(
    tmp_path_factory, precision, choices, pauses, cadences
):
    folder = tmp_path_factory.mktemp("runs")
    given = {"hooks": HOOKS, "precision": precision, **cadences, **choices}
    straight = run_in_pieces(folder / "straight", [], **given)
    pieces = run_in_pieces(folder / "pieces", pauses, **given)
    assert_the_same_run(straight, pieces)


# In the third step nothing is due; in the fourth, two batches are evaluated; in the fifth, five
# tokens are sampled.
@pytest.mark.parametrize(
    ("n_events", "step", "recorded"),
    [(2, 3, 3), (3, 4, 3), (4, 4, 3), (5, 4, 3), (6, 5, 4), (7, 5, 4), (11, 5, 4)],
)
def test_a_signal_gives_up_what_it_meets_and_the_resume_does_it_anew(
    tmp_path, n_events, step, recorded
):
    run = new_run(tmp_path / "run")
    trainer = interrupted(build(hooks=HOOKS, max_steps=12, **CADENCES), n_events)
    with pytest.raises(StoppedError, match=f"stopped after step {step}, which is saved"):
        trainer.train(run)
    assert (trainer.step, trainer.recorded_step, trainer.saved_step) == (step, recorded, step)
    assert not trainer.is_complete
    # A person who looks sees the step, and the resume puts its evaluation there.
    assert [row["step"] for row in rows(run.metrics)] == list(range(1, step + 1))
    assert "val_loss" not in rows(run.metrics)[-1]
    again = build(hooks=HOOKS, max_steps=12, **CADENCES)
    again.restore(load_checkpoint(run.checkpoints / f"step-{step:08d}"))
    assert again.rewind(run) == 0
    again.train(run)
    assert_the_same_run(run_in_pieces(tmp_path / "s", [], hooks=HOOKS, **CADENCES), run)


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


def test_a_kill_while_a_step_is_done_anew_costs_no_line(tmp_path):
    run = new_run(tmp_path / "run")
    with pytest.raises(StoppedError):
        interrupted(build(max_steps=3), 2).train(run)
    checkpoint = load_checkpoint(run.checkpoints / "step-00000003")
    killed = build(max_steps=3)
    killed.restore(checkpoint)
    killed.rewind(run)
    assert [row["step"] for row in rows(run.metrics)] == [1, 2]
    # Where the run is to be longer, nothing of the third step is left to be done.
    again = build(max_steps=6)
    again.restore(checkpoint)
    assert again.rewind(run) == 0
    again.train(run)
    straight = new_run(tmp_path / "straight")
    build(max_steps=6).train(straight)
    assert without_speed(run.metrics) == without_speed(straight.metrics)


def test_a_sample_that_is_done_stays_when_only_an_evaluation_is_left(tmp_path):
    run = new_run(tmp_path / "run")
    with pytest.raises(StoppedError, match="after step 5"):
        interrupted(build(max_steps=8, sampling_cadence=2, checkpoint_cadence=4), 14).train(run)
    assert [row["step"] for row in rows(run.samples)] == [2, 4]
    again = build(max_steps=8, eval_cadence=4)
    again.restore(load_checkpoint(run.checkpoints / "step-00000004"))
    again.rewind(run)
    again.train(run)
    assert [row["step"] for row in rows(run.samples)] == [2, 4]
    assert [row["step"] for row in rows(run.metrics) if "val_loss" in row] == [4, 8]


def test_a_run_is_not_complete_before_what_is_done_anew_is_saved(tmp_path, monkeypatch):
    run = new_run(tmp_path / "run")
    with pytest.raises(StoppedError):
        interrupted(build(max_steps=3), 2).train(run)
    again = build(max_steps=3)
    again.restore(load_checkpoint(run.checkpoints / "step-00000003"))

    def killed(folder, checkpoint):
        raise KeyboardInterrupt

    monkeypatch.setattr(recorder, "save_checkpoint", killed)
    again.rewind(run)
    with pytest.raises(KeyboardInterrupt):
        again.train(run)
    assert again.recorded_step == 3
    assert not again.is_complete


def test_a_job_that_never_reaches_its_cadence_keeps_no_more_checkpoints_than_it_should(tmp_path):
    run, step = new_run(tmp_path / "run"), 0
    for _ in range(5):
        trainer = build(max_steps=50, keep_checkpoints=2)
        if step:
            trainer.restore(load_checkpoint(list_checkpoints(run.checkpoints)[-1][1]))
        with pytest.raises(StoppedError):
            interrupted(trainer, 1).train(run)
        step += 2
        # The newest has shown nothing yet, so it stays besides.
        assert saved_steps(run) == [saved for saved in (step - 4, step - 2, step) if saved > 0]


def test_checkpoints_that_a_kill_kept_from_being_removed_go_when_the_run_is_looked_at(
    tmp_path, monkeypatch
):
    run = new_run(tmp_path / "run")
    settings = {"max_steps": 4, "checkpoint_cadence": 1, "keep_checkpoints": 1}
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "remove_superseded", lambda *arguments: None)
        build(**settings).train(run)
    assert saved_steps(run) == [1, 2, 3, 4]
    again = build(**settings)
    again.restore(load_checkpoint(run.checkpoints / "step-00000004"))
    again.train(run)
    assert saved_steps(run) == [4]


def test_a_signal_in_the_last_step_leaves_its_evaluation_to_the_resume(tmp_path):
    run = new_run(tmp_path / "run")
    with pytest.raises(StoppedError, match="stopped after step 3, which is saved; --resume"):
        interrupted(build(max_steps=3), 2).train(run)
    again = build(max_steps=3)
    again.restore(load_checkpoint(run.checkpoints / "step-00000003"))
    assert again.train(run).evaluation is not None
    assert again.is_complete
    assert "val_loss" in rows(run.metrics)[-1]


@pytest.mark.parametrize("cadences", [{}, {"sampling_cadence": 5}, CADENCES, {"eval_cadence": 3}])
@pytest.mark.parametrize("stop", [0, 2, 4])
def test_a_run_that_is_to_end_where_it_was_stopped_ends_like_one_that_was_to(
    tmp_path, cadences, stop
):
    run = new_run(tmp_path / "run")
    with pytest.raises(StoppedError):
        interrupted(build(hooks=HOOKS, max_steps=12, **cadences), stop).train(run)
    (step,) = saved_steps(run)[-1:]
    for _ in range(2):
        again = build(hooks=HOOKS, max_steps=step, **cadences)
        again.restore(load_checkpoint(run.checkpoints / f"step-{step:08d}"))
        again.rewind(run)
        again.train(run)
        assert again.is_complete
    straight = run_in_pieces(tmp_path / "s", [], step, hooks=HOOKS, **cadences)
    assert_the_same_run(straight, run, step)


def test_what_a_new_cadence_calls_for_at_the_saved_step_is_done_once(tmp_path):
    run = new_run(tmp_path / "run")
    build(max_steps=4).train(run)
    for _ in range(2):
        again = build(max_steps=4, sampling_cadence=2)
        again.restore(load_checkpoint(run.checkpoints / "step-00000004"))
        again.rewind(run)
        assert again.train(run).samples is not None
        assert [row["step"] for row in rows(run.samples)] == [4]
        assert [row["step"] for row in rows(run.metrics)] == [1, 2, 3, 4]
        assert "val_loss" in rows(run.metrics)[-1]


def test_a_signal_while_the_last_step_is_saved_finds_the_run_complete(tmp_path, monkeypatch):
    run = new_run(tmp_path / "run")
    trainer = build(max_steps=3)
    save = recorder.save_checkpoint

    def interrupted_save(folder, checkpoint):
        os.kill(os.getpid(), signal.SIGTERM)
        return save(folder, checkpoint)

    monkeypatch.setattr(recorder, "save_checkpoint", interrupted_save)
    with pytest.raises(StoppedError, match="after step 3, the last one: everything is") as error:
        trainer.train(run)
    assert error.value.exit_code == 143
    assert trainer.is_complete
    assert saved_steps(run) == [3]


def test_a_signal_while_a_complete_run_is_looked_at_changes_nothing(tmp_path):
    run = new_run(tmp_path / "run")
    build(max_steps=3).train(run)
    recorded = run.metrics.read_bytes()
    again = build(max_steps=3)
    again.restore(load_checkpoint(run.checkpoints / "step-00000003"))
    with pytest.raises(StoppedError, match="the last one: everything is done and saved"):
        interrupted(again, 0).train(run)
    assert run.metrics.read_bytes() == recorded


def test_a_second_signal_during_a_save_stops_at_once_and_the_checkpoint_before_is_sound(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(signals, "SECONDS_OF_ONE_REQUEST", 0.0)
    run = new_run(tmp_path / "run")
    trainer = interrupted(build(max_steps=12, checkpoint_cadence=3), 4)
    write_tensors = checkpoint.write_tensors

    def interrupted_write(path, tensors):
        if "00000005" in str(path):
            os.kill(os.getpid(), signal.SIGINT)
        return write_tensors(path, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", interrupted_write)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(run)
    assert saved_steps(run) == [3]
    assert load_checkpoint(run.checkpoints / "step-00000003").step == 3
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000003"]


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
    with pytest.raises(ValueError, match="another experiment:\n  seed: 4 in the checkpoint, 5 now"):
        build(seed=5).restore(checkpoint_of(tmp_path))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    stored = checkpoint_of(tmp_path)
    stored.model.pop("final_norm.bias")
    with pytest.raises(RuntimeError, match=r"does not fit the model.*final_norm.bias"):
        build().restore(stored)


def test_a_checkpoint_with_a_loss_that_is_no_number_is_refused(tmp_path):
    stored = checkpoint_of(tmp_path)
    stored.state["best_validation_loss"] = "small"
    with pytest.raises(RuntimeError, match="best_validation_loss is 'small', which cannot be"):
        build().restore(stored)


def test_a_checkpoint_holds_what_is_needed_to_use_it_alone(tmp_path):
    state = checkpoint_of(tmp_path).state
    again = Transformer(**state["model"])
    given = {"vocab_size": 256, **SIZES, "dropout": 0.1}
    assert again.arguments == state["model"]
    assert again.arguments | given == again.arguments
    assert state["tokenizer"] == {"kind": "byte"}
