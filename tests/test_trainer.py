"""The loop: learning, cadences, records, hooks and divergence."""

import contextlib
import time

import pytest
import torch

from lm_core.errors import InputError
from lm_core.evaluation import Evaluation, Evaluator
from lm_core.hooks import UpdateHook, update_hook
from lm_core.model.transformer import Transformer
from lm_core.record import COLUMNS
from lm_core.training import recorder
from lm_core.training.checkpoint import load_checkpoint
from lm_core.training.trainer import Trainer
from tests.tiny_trainer import (
    HOOKS,
    SIZES,
    TOKENIZER,
    TOKENS,
    Shown,
    build,
    new_run,
    poisoned,
    rows,
    saved_steps,
    weights,
)


def test_every_step_has_a_line_of_metrics(tmp_path):
    run = new_run(tmp_path / "run")
    build(max_steps=5).train(run)
    found = rows(run.metrics)
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5]
    names = {"step", "train_loss", "learning_rate", "grad_norm", "tokens_per_second"}
    assert all(set(row) == names for row in found[:-1])
    assert set(found[-1]) == names | {"val_loss", "bits_per_byte"}
    assert found[0]["learning_rate"] == 1e-3


def test_recorded_loss_and_gradient_norm_are_those_of_the_batch(tmp_path):
    run = new_run(tmp_path / "run")
    build(dropout=0.0, max_steps=1, precision="float32").train(run)
    model = Transformer(TOKENIZER.vocab_size, **SIZES, dropout=0.0, seed=4)
    inputs, targets = build()._steps._update._batches.batch(1)
    loss = model(inputs, targets)
    loss.backward()
    norm = sum(float((p.grad.double() ** 2).sum()) for p in model.parameters()) ** 0.5
    row = rows(run.metrics)[0]
    assert row["train_loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "evaluated", "sampled", "saved"),
    [
        ({}, [10], [], [10]),
        ({"eval_cadence": 4, "checkpoint_cadence": None}, [4, 8, 10], [], [10]),
        ({"eval_cadence": 5}, [5, 10], [], [5, 10]),
        ({"sampling_cadence": 3}, [10], [3, 6, 9, 10], [10]),
        ({"checkpoint_cadence": 4}, [10], [], [4, 8, 10]),
        ({"checkpoint_cadence": None}, [10], [], [10]),
    ],
)
def test_cadences_are_kept_and_null_means_only_the_last_step(
    tmp_path, settings, evaluated, sampled, saved
):
    run = new_run(tmp_path / "run")
    build(max_steps=10, **settings).train(run)
    assert [row["step"] for row in rows(run.metrics) if "val_loss" in row] == evaluated
    assert [row["step"] for row in rows(run.samples)] == sampled
    assert saved_steps(run) == saved


def test_an_evaluation_that_is_no_better_does_not_save(tmp_path):
    run = new_run(tmp_path / "run")
    trainer = build(max_steps=4, eval_cadence=1)
    losses = iter([3.0, 2.0, 2.5, 2.5])
    trainer._looks.evaluate = lambda check_stop: Evaluation(next(losses), 0.0, 0.0, 1)
    trainer.train(run)
    assert saved_steps(run) == [1, 2, 4]
    assert load_checkpoint(run.checkpoints / "step-00000004").state["best_validation_loss"] == 2.0


def test_what_an_evaluation_takes_is_told_apart_from_the_steps():
    trainer, shown = build(max_steps=4, eval_cadence=2), Shown()

    def slow(check_stop):
        time.sleep(0.05)
        return Evaluation(2.0, 0.0, 0.0, 1)

    trainer._looks.evaluate = slow
    trainer.train(progress=contextlib.nullcontext(shown))
    took = dict(zip(shown.steps, shown.seconds_of_looks, strict=True))
    assert took[2] >= 0.05
    assert took[4] >= 0.05


def test_samples_are_recorded_with_what_made_them(tmp_path):
    run = new_run(tmp_path / "run")
    trainer = build(max_steps=2, sampling_cadence=2)
    result = trainer.train(run)
    (row,) = rows(run.samples)
    assert [row["text"]] == result.samples
    assert row["text"].startswith("the")
    settings = {"prompt": "the", "seed": 42, "temperature": 1.0, "top_k": None, "top_p": None}
    assert row == {"step": 2, "sample": 0, **settings, "text": row["text"]}


def test_without_a_record_it_trains_all_the_same():
    trainer = build(with_parts=False, max_steps=3)
    before = weights(trainer)
    result = trainer.train()
    assert result == (3, None, None)
    assert not torch.equal(before, weights(trainer))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    finals = []
    for seed in (4, 4, 5):
        trainer = build(seed=seed)
        trainer.train()
        finals.append(weights(trainer))
    assert torch.equal(finals[0], finals[1])
    assert not torch.equal(finals[0], finals[2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulation_steps": 3}, "batch_size: 4 is not divisible by accumulation_steps 3"),
        ({"warmup_steps": 9, "decay_steps": 5}, "warmup_steps: 9 is more than decay_steps 5"),
        ({"early_stopping_evaluations": 2}, "early_stopping_evaluations: 2 needs evaluations"),
    ],
)
def test_values_that_do_not_fit_each_other_are_refused(settings, message):
    with pytest.raises(InputError, match=rf"Trainer\.{message}"):
        build(**settings)


def test_without_a_seed_one_is_drawn_and_told():
    trainers = [build(seed=None) for _ in range(2)]
    assert trainers[0].seed != trainers[1].seed
    assert all(0 <= trainer.seed < 2**31 for trainer in trainers)


def test_a_small_model_learns_a_repeating_pattern_almost_perfectly():
    # What follows an "a" depends on what came before it, so attention has to work. It is learned
    # with so much to spare that another processor's rounding makes no difference: 0.011 nats, of
    # which the first tokens of the windows, which have nothing before them, are the most.
    tokens = TOKENIZER.encode("abcadbea" * 200)
    model = Transformer(256, 2, 64, 2, 128, dropout=0.0, max_seq_len=64, seed=1)
    evaluate = Evaluator(model, tokens[-400:], TOKENIZER)
    trainer = Trainer(
        model, tokens[:-400], evaluate, learning_rate=1.5e-3, batch_size=16, max_steps=600, seed=1
    )
    assert evaluate().loss > 5
    assert trainer.train().evaluation.loss < 0.05


@pytest.mark.parametrize(
    ("keep", "losses", "saved"),
    [
        # The best is among the newest, or stays besides, and all that is left goes.
        (2, [9, 8, 7, 6, 5, 4], [5, 6]),
        (2, [9, 1, 7, 6, 5, 4], [2, 5, 6]),
        (1, [1, 2, 3, 4, 5, 6], [1, 6]),
        (1, [3, 2, 3, 1, 5, 9], [4, 6]),
        (None, [9, 1, 7, 6, 5, 4], [1, 2, 3, 4, 5, 6]),
        (99, [9, 1, 7, 6, 5, 4], [1, 2, 3, 4, 5, 6]),
    ],
)
def test_the_newest_checkpoints_stay_and_always_the_best(tmp_path, keep, losses, saved):
    run = new_run(tmp_path / "run")
    trainer = build(eval_cadence=1, checkpoint_cadence=1, keep_checkpoints=keep)
    found = iter(losses)
    trainer._looks.evaluate = lambda check_stop: Evaluation(next(found), 0.0, 0.0, 1)
    trainer.train(run)
    assert saved_steps(run) == saved


def test_an_evaluation_proves_a_checkpoint_at_once(tmp_path):
    run = new_run(tmp_path / "run")
    trainer = build(eval_cadence=3, checkpoint_cadence=3, keep_checkpoints=1)
    evaluate, left = trainer._looks.evaluate, []

    def noted(check_stop):
        left.append(saved_steps(run))
        return evaluate(check_stop)

    trainer._looks.evaluate = noted
    trainer.train(run)
    # The third step saves after its evaluation, and so does the sixth.
    assert left == [[], [3]]
    assert saved_steps(run) == [6]


def test_a_best_checkpoint_whose_step_was_never_stored_is_not_lost(tmp_path):
    run = new_run(tmp_path / "run")
    settings = {"eval_cadence": 1, "checkpoint_cadence": 1}

    def train(losses, keep, **stored):
        trainer = build(**settings, keep_checkpoints=keep, max_steps=len(losses))
        if stored:
            checkpoint = load_checkpoint(run.checkpoints / "step-00000003")
            checkpoint.state |= stored
            trainer.restore(checkpoint)
        found = iter(map(float, losses[trainer.step :]))
        trainer._looks.evaluate = lambda check_stop: Evaluation(next(found), 0.0, 0.0, 1)
        trainer.train(run)

    train([9, 1, 7], keep=None)
    # So does the first format of checkpoints have it.
    train([9, 1, 7, 6, 5], keep=1, best_step=None)
    assert saved_steps(run) == [1, 2, 3, 4, 5]
    train([9, 1, 7, 0.5, 6, 5], keep=1, best_step=None)
    assert saved_steps(run) == [4, 6]


def test_an_older_checkpoint_goes_only_when_the_newer_one_is_safe(tmp_path, monkeypatch):
    run = new_run(tmp_path / "run")
    there = []
    save = recorder.save_checkpoint

    def watched(folder, checkpoint):
        there.append(saved_steps(run))
        return save(folder, checkpoint)

    monkeypatch.setattr(recorder, "save_checkpoint", watched)
    build(with_parts=False, max_steps=4, checkpoint_cadence=1, keep_checkpoints=1).train(run)
    assert there == [[], [1], [2], [3]]
    # Nothing has shown yet what the newest is worth.
    assert saved_steps(run) == [3, 4]


def test_frozen_parameters_stay_exactly_as_they_are():
    trainer = build(hooks={"update": [{"name": "freeze", "parameters": r"blocks\.1\..*"}]})
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("blocks.1."), name


def test_hooks_that_change_nothing_leave_every_bit(tmp_path):
    plain, hooked = build(), build(hooks={"update": [{"name": "identity"}]})
    plain.train()
    hooked.train()
    assert torch.equal(weights(plain), weights(hooked))


def test_reports_of_hooks_stand_in_the_line_of_their_step(tmp_path):
    run = new_run(tmp_path / "run")
    build(hooks=HOOKS, max_steps=6).train(run)
    reported = [row["step"] for row in rows(run.metrics) if "activation/final_norm/mean" in row]
    assert reported == [3, 6]


def test_reports_in_evaluation_and_sampling_stand_in_the_line_of_their_step(tmp_path):
    run = new_run(tmp_path / "run")
    build(hooks=HOOKS, max_steps=6, eval_cadence=2, sampling_cadence=3).train(run)
    for name, steps in (
        ("", [1, 2, 3, 4, 5, 6]),
        ("evaluation/", [2, 4, 6]),
        ("sampling/", [3, 6]),
    ):
        key = f"{name}mean/final_norm"
        assert [row["step"] for row in rows(run.metrics) if key in row] == steps


def test_the_columns_of_the_lab_itself_are_those_that_hooks_cannot_take(tmp_path):
    run = new_run(tmp_path / "run")
    poisoned(build(max_steps=1, max_skipped_batches=1, optimizer="muon"), 1).train(run)
    assert tuple(rows(run.metrics)[0]) == COLUMNS


def test_what_a_hook_keeps_and_cannot_be_saved_is_told_after_the_first_step(tmp_path):
    @update_hook("test_keeps_a_number")
    class KeepsANumber(UpdateHook):
        def state(self):
            return {"calls": 3}

    trainer = build(hooks={"update": [{"name": "test_keeps_a_number"}]}, max_steps=5)
    with pytest.raises(ValueError, match=r"hooks.update\[0\]: state\(\) has a int"):
        trainer.train(new_run(tmp_path / "run"))
    assert trainer.step == 1


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, dtype=torch.complex64), torch.zeros(2).to_sparse()]
)
def test_a_tensor_of_a_hook_that_cannot_be_saved_is_told_after_the_first_step(tmp_path, tensor):
    @update_hook("test_keeps_a_strange_tensor")
    class KeepsAStrangeTensor(UpdateHook):
        def state(self):
            return {"x": tensor}

    trainer = build(hooks={"update": [{"name": "test_keeps_a_strange_tensor"}]}, max_steps=5)
    with pytest.raises(ValueError, match=r"hooks.update\[0\]/x is of .*saved"):
        trainer.train(new_run(tmp_path / "run"))
    assert trainer.step == 1


def test_a_step_in_float32_is_that_of_the_formulas():
    """One whole step against plain float64 arithmetic on the same batch, without dropout."""
    betas = {"beta1": 0.8, "beta2": 0.9}
    trainer = build(dropout=0.0, max_steps=1, precision="float32", weight_decay=0.2, **betas)
    reference = Transformer(TOKENIZER.vocab_size, **SIZES, dropout=0.0, seed=4).double()
    inputs, targets = trainer._steps._update._batches.batch(1)
    reference(inputs, targets).backward()
    trainer.train()
    trained = dict(trainer.model.named_parameters())
    for name, parameter in reference.named_parameters():
        decay = 0.2 if parameter.dim() > 1 and "embedding" not in name else 0.0
        gradient = parameter.grad
        expected = parameter * (1 - 1e-3 * decay)
        expected = expected - 1e-3 * gradient / (gradient.abs() + 1e-8)
        # Where a gradient is all rounding, its sign is too.
        sure = gradient.abs() > 1e-6
        torch.testing.assert_close(
            trained[name].double()[sure], expected[sure], rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "Trainer.learning_rate: 0.0 is not greater than 0"),
        ({"beta1": 1.0}, "Trainer.beta1: 1.0 is not less than 1"),
        ({"batch_size": 0}, "Trainer.batch_size: 0 is less than 1"),
        ({"max_steps": 1.5}, "Trainer.max_steps: 1.5 is no integer"),
        ({"eval_cadence": 0}, "Trainer.eval_cadence: 0 is less than 1"),
        (
            {"hooks": {"update": [{"name": "idenity"}]}},
            "unknown update hook; did you mean identity",
        ),
    ],
)
def test_values_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_a_part_too_short_for_a_window_is_refused():
    model = Transformer(256, **SIZES)
    with pytest.raises(ValueError, match="training part"):
        Trainer(model, TOKENS[:8])
