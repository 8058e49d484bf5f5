"""Numbers that are not finite: the run ends before a parameter is touched, or leaves them out."""

import contextlib
import math

import pytest
import torch

from lm_core.errors import DivergenceError
from lm_core.evaluation import Evaluation
from lm_core.hooks import UpdateHook, update_hook
from lm_core.training.checkpoint import load_checkpoint
from lm_core.training.checkpoint_folder import list_checkpoints
from tests.tiny_trainer import Shown, build, new_run, poisoned, rows, saved_steps, weights


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_before_a_parameter_is_touched(tmp_path, value):
    run = new_run(tmp_path / "run")
    trainer = poisoned(build(checkpoint_cadence=2, with_parts=False), 4, value=value)
    with pytest.raises(DivergenceError) as error:
        trainer.train(run)
    assert error.value.exit_code == 3
    good = run.checkpoints / "step-00000002"
    words = f"diverged at step 4, with train_loss {value} and grad_norm nan: not finite; the last "
    assert f"{words}good checkpoint is {good}. Try a smaller" in error.value.message
    assert "(now 0.001)" in error.value.message
    assert "--resume with --gin.Trainer.max_skipped_batches=1" in error.value.message
    assert trainer.step == 3
    assert rows(run.metrics)[-1] == {"step": 4, "train_loss": None, "grad_norm": None}


def test_the_parameters_of_a_run_that_diverged_are_those_of_the_step_before(tmp_path):
    run = new_run(tmp_path / "run")
    trainer = poisoned(build(checkpoint_cadence=3, with_parts=False), 4)
    with pytest.raises(DivergenceError):
        trainer.train(run)
    saved = load_checkpoint(run.checkpoints / "step-00000003")
    assert all(torch.equal(saved.model[n], p) for n, p in trainer.model.named_parameters())


def test_a_checkpoint_whose_weights_give_no_finite_loss_is_not_called_good(tmp_path):
    run = new_run(tmp_path / "run")
    settings = {"checkpoint_cadence": 2, "keep_checkpoints": 1, "with_parts": False}
    with pytest.raises(DivergenceError) as error:
        poisoned(build(max_steps=9, **settings), 5).train(run)
    # The one before was not removed for it.
    assert saved_steps(run) == [2, 4]
    good, newest = (run.checkpoints / f"step-0000000{step}" for step in (2, 4))
    words = f"the last good checkpoint is {good}; {newest.name} gave no finite loss (move it"
    assert words in error.value.message
    # Nor by a run that goes on with it, whether it leaves out such batches or not.
    for most in (0, 3):
        again = poisoned(build(max_steps=9, max_skipped_batches=most, **settings), *range(5, 10))
        again.restore(load_checkpoint(newest))
        with pytest.raises(DivergenceError, match=f"the last good checkpoint is {good}; ") as error:
            again.train(run)
    assert "; the 2 after it, up to step-00000006, gave no finite loss" in error.value.message
    # Once one does, older ones go.
    again = build(max_steps=9, **settings)
    again.restore(load_checkpoint(newest))
    again.train_step()


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_validation_loss_that_is_not_finite_is_divergence_and_nothing_is_saved(tmp_path, loss):
    run = new_run(tmp_path / "run")
    trainer = build(eval_cadence=2, checkpoint_cadence=1, keep_checkpoints=1)
    found = iter([2.0, loss])
    trainer._looks.evaluate = lambda check_stop: Evaluation(next(found), 0.0, 0.0, 1)
    with pytest.raises(
        DivergenceError, match=f"diverged at step 4: the validation loss is {loss}; "
    ):
        trainer.train(run)
    assert saved_steps(run) == [2, 3]
    assert [row["step"] for row in rows(run.metrics)] == [1, 2, 3, 4]


def test_a_complete_run_whose_weights_no_longer_serve_is_told_like_any_other(tmp_path):
    run = new_run(tmp_path / "run")
    build(max_steps=3).train(run)
    again = build(max_steps=3)
    again.restore(load_checkpoint(run.checkpoints / "step-00000003"))
    again._looks.evaluate = lambda check_stop: Evaluation(math.nan, 0.0, 0.0, 1)
    with pytest.raises(DivergenceError, match=r"at step 3: the validation loss is nan; .* smaller"):
        again.train(run)


def test_divergence_that_a_sample_meets_is_told_like_any_other(tmp_path):
    run = new_run(tmp_path / "run")
    trainer = build(sampling_cadence=2)

    def no_numbers(check_stop):
        raise DivergenceError("the model's output is not finite")

    trainer._looks.sample = no_numbers
    with pytest.raises(DivergenceError, match=r"at step 2: .*no checkpoint was saved.*smaller"):
        trainer.train(run)
    assert [row["step"] for row in rows(run.metrics)] == [1, 2]


def test_a_gradient_that_is_not_finite_ends_the_run_though_the_loss_is():
    trainer = build(with_parts=False)
    before = weights(trainer)
    # The square of such a gradient overflows.
    trainer.model.final_norm.weight.register_hook(lambda gradient: gradient * 1e38)
    with pytest.raises(DivergenceError, match=r"step 1, with train_loss \d.* and grad_norm inf"):
        trainer.train()
    assert torch.equal(weights(trainer), before)


def test_a_gradient_that_hooks_made_infinite_ends_the_run_too():
    @update_hook("test_makes_infinite")
    class MakesInfinite(UpdateHook):
        def on_gradients(self, gradients, key):
            return {name: torch.full_like(g, math.inf) for name, g in gradients.items()}

    trainer = build(with_parts=False, hooks={"update": [{"name": "test_makes_infinite"}]})
    before = weights(trainer)
    with pytest.raises(
        DivergenceError, match=r"grad_norm \d.* and grad_norm after hooks inf: not finite"
    ):
        trainer.train()
    assert torch.equal(weights(trainer), before)


def test_weights_with_a_finite_loss_are_good_whatever_a_hook_makes_of_their_gradient(tmp_path):
    run = new_run(tmp_path / "run")
    hooks = {"update": [{"name": "test_infinite_in_step_four"}]}

    @update_hook("test_infinite_in_step_four")
    class InfiniteInStepFour(UpdateHook):
        def on_gradients(self, gradients, key):
            return {n: g / 0 for n, g in gradients.items()} if key.step == 4 else None

    trainer = build(checkpoint_cadence=1, with_parts=False, hooks=hooks)
    good = run.checkpoints / "step-00000003"
    with pytest.raises(DivergenceError, match=f"the last good checkpoint is {good}\\. Try"):
        trainer.train(run)


def test_weights_that_a_left_out_batch_left_alone_are_as_good_as_before(tmp_path):
    run = new_run(tmp_path / "run")
    settings = {"eval_cadence": 4, "checkpoint_cadence": 1, "keep_checkpoints": 1}
    trainer = poisoned(build(max_steps=9, max_skipped_batches=2, **settings), 5, 6, 7)
    good = run.checkpoints / "step-00000006"
    with pytest.raises(DivergenceError, match=f"is {good}\\. .*max_skipped_batches=3") as error:
        trainer.train(run)
    assert "may not help" not in error.value.message
    assert 5 not in saved_steps(run)


def test_so_many_batches_may_be_left_out_and_no_more(tmp_path):
    run = new_run(tmp_path / "run")
    shown = Shown()
    trainer = poisoned(build(max_steps=8, with_parts=False, max_skipped_batches=2), 3, 5)
    trainer.train(run, contextlib.nullcontext(shown))
    found = rows(run.metrics)
    skipped = {row["step"]: row["skipped_batches"] for row in found if "skipped_batches" in row}
    assert skipped == {3: 1, 5: 2}
    assert [row["step"] for row in found if row["train_loss"] is None] == [3, 5]
    assert shown.notes[0] == "step 3  batch skipped, 1 of 2: train_loss nan and grad_norm nan"
    state = load_checkpoint(run.checkpoints / "step-00000008")
    assert state.state["skipped_batches"] == 2
    # AdamW knows of six updates.
    assert state.optimizer["final_norm.bias/step"] == 6
    trainer = poisoned(build(max_steps=8, with_parts=False, max_skipped_batches=1), 3, 5)
    with pytest.raises(DivergenceError, match=r"step 5.*max_skipped_batches=2 or more"):
        trainer.train()


def test_a_batch_that_is_left_out_changes_no_parameter():
    trainer = poisoned(build(with_parts=False, max_skipped_batches=1), 1)
    before = weights(trainer)
    trainer.train_step()
    assert torch.equal(weights(trainer), before)
    trainer.train_step()
    assert not torch.equal(weights(trainer), before)


def test_a_run_that_goes_on_has_not_forgotten_what_it_left_out(tmp_path):
    run = new_run(tmp_path / "run")
    settings = {"max_steps": 8, "with_parts": False, "checkpoint_cadence": 4}
    with pytest.raises(DivergenceError):
        poisoned(build(**settings, max_skipped_batches=1), 3, 6).train(run)
    checkpoint = load_checkpoint(run.checkpoints / "step-00000004")
    for most in (0, 1, 2):
        trainer = poisoned(build(**settings, max_skipped_batches=most), 3, 6)
        trainer.restore(checkpoint)
        if most < 2:
            with pytest.raises(DivergenceError, match="step 6"):
                trainer.train()
        else:
            trainer.train()


@pytest.mark.parametrize(
    "rates",
    [
        {"learning_rate": 1e30},
        {"optimizer": "muon", "muon_learning_rate": 1e30},
        {"optimizer": "muon", "muon_learning_rate": 1e39},
    ],
)
def test_a_learning_rate_that_is_too_large_diverges_and_is_never_saved(tmp_path, rates):
    run = new_run(tmp_path / "run")
    trainer = build(max_steps=50, **rates, checkpoint_cadence=1)
    with pytest.raises(DivergenceError, match=r"diverged at step \d+.*smaller learning_rate"):
        trainer.train(run)
    for _, path in list_checkpoints(run.checkpoints):
        assert all(tensor.isfinite().all() for tensor in load_checkpoint(path).model.values())
    assert rows(run.metrics)[-1]["train_loss"] is None or rows(run.metrics)[-1]["grad_norm"] is None


@pytest.mark.parametrize(
    "rates", [{"learning_rate": 1e39}, {"optimizer": "muon", "muon_learning_rate": 1e300}]
)
def test_weights_that_are_not_finite_are_never_saved(tmp_path, rates):
    run = new_run(tmp_path / "run")
    trainer = build(max_steps=5, **rates, checkpoint_cadence=1, with_parts=False)
    with pytest.raises(
        DivergenceError, match="the weights after step 1: not finite; no checkpoint was"
    ):
        trainer.train(run)
    assert saved_steps(run) == []
