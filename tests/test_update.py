import math
from typing import ClassVar

import pytest
import torch

from lm_core.data.batches import RandomBatches
from lm_core.errors import InputError, MachineError
from lm_core.hooks import Hooks, UpdateHook, update_hook
from lm_core.model.transformer import Transformer
from lm_core.parallel.world import World
from lm_core.randomness import StepKey
from lm_core.training.averaging import WeightAverage
from lm_core.training.objective import Loss, Objective
from lm_core.training.reduction import Alone, Exact
from lm_core.training.schedule import Schedule
from lm_core.training.trained import Trained
from lm_core.training.update import Gradient, Update, UpdateSettings
from tests.one_of_several import Averaged, Heard
from tests.tiny_trainer import ALONE, SIZES, TOKENIZER, TOKENS, optimizer_of

KEY = StepKey(seed=4, step=1)


PLAIN = Objective(0.0, 0.0)
CONSTANT = Schedule("constant", 0, 1, 1.0, 0.0)


class Parts:
    """An update and what it works on."""

    def __init__(
        self,
        precision="float32",
        compiles=False,
        objective=PLAIN,
        accumulation_steps=1,
        max_grad_norm=None,
        schedule=CONSTANT,
        ema_decay=None,
        optimizer="adamw",
        hooks=None,
        batch_size=4,
        kind=Alone,
        group=ALONE,
    ):
        self.model = Transformer(TOKENIZER.vocab_size, **SIZES, dropout=0.1, seed=4)
        self.batches = RandomBatches(TOKENS, batch_size, SIZES["max_seq_len"], seed=4)
        average = None if ema_decay is None else WeightAverage(self.model, ema_decay)
        parts = optimizer_of(self.model, optimizer), Hooks(hooks, self.model), average
        self.trained = Trained(self.model, *parts)
        reduction = kind(self.model, group, batch_size, accumulation_steps)
        settings = UpdateSettings(precision, compiles, objective, max_grad_norm, schedule)
        self.update = Update(self.trained, self.batches, reduction, settings)

    def everything(self):
        tensors = self.trained.tensors()
        both = {f"{field}/{name}": t for field, ts in tensors.items() for name, t in ts.items()}
        return {name: tensor.clone() for name, tensor in both.items()}

    def gradients(self):
        return torch.cat([p.grad.flatten() for p in self.model.parameters()])


@update_hook("test_takes_updates_away")
class TakesUpdatesAway(UpdateHook):
    """Remembers what was proposed, and lets nothing of it happen."""

    seen: ClassVar[list] = []

    def on_updates(self, updates, key):
        self.seen.append(dict(updates))
        return {name: torch.zeros_like(update) for name, update in updates.items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def steps(parts, apply, n=5):
    for step in range(1, n + 1):
        gradient = parts.update.gradient(KEY._replace(step=step))
        getattr(parts.update, apply)(gradient)
    return parts.everything()


def test_a_gradient_is_that_of_the_steps_batch_and_masks():
    parts = Parts()
    gradient = parts.update.gradient(KEY)
    other = Transformer(TOKENIZER.vocab_size, **SIZES, dropout=0.1, seed=4)
    loss = other(*parts.batches.batch(1), key=KEY)
    loss.backward()
    assert torch.equal(gradient.loss, loss.detach())
    squares = sum(float(p.grad.double().square().sum()) for p in other.parameters())
    assert gradient.norm.item() == pytest.approx(math.sqrt(squares), rel=1e-5)
    assert parts.update.n_tokens == 4 * SIZES["max_seq_len"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_gradients_and_the_optimizer_are_in_float32(precision):
    parts = Parts(precision)
    gradient = parts.update.gradient(KEY)
    assert {p.grad.dtype for p in parts.model.parameters()} == {torch.float32}
    parts.update.apply(gradient)
    dtypes = {tensor.dtype for tensor in parts.everything().values()}
    assert dtypes == {gradient.loss.dtype} == {torch.float32}
    assert all(p.grad is None for p in parts.model.parameters())


EVERYTHING = {
    "optimizer": "muon",
    "ema_decay": 0.9,
    "max_grad_norm": 0.5,
    "accumulation_steps": 2,
    "objective": Objective(0.1, 1e-3),
    "schedule": Schedule("cosine", 2, 5, 1.0, 0.1),
}


@pytest.mark.parametrize("settings", [{}, EVERYTHING], ids=["plain", "everything"])
def test_what_the_device_leaves_out_by_itself_changes_no_sound_step(settings):
    one, other = (steps(Parts(**settings), apply) for apply in ("apply", "apply_if_finite"))
    assert equal(one, other)


@pytest.mark.parametrize("settings", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("bad", ["loss", "norm"])
def test_from_a_number_that_is_not_finite_on_nothing_changes_until_it_is_switched_on(bad, settings):
    parts = Parts(**settings)
    steps(parts, "apply_if_finite", 2)
    before = parts.everything()
    gradient = parts.update.gradient(KEY._replace(step=3))
    parts.update.apply_if_finite(gradient._replace(**{bad: torch.tensor(math.nan)}))
    assert equal(parts.everything(), before)
    parts.update.apply_if_finite(parts.update.gradient(KEY._replace(step=4)))
    assert equal(parts.everything(), before)
    parts.update.switch_on()
    parts.update.apply_if_finite(parts.update.gradient(KEY._replace(step=3)))
    assert not equal(parts.everything(), before)
    expected = steps(Parts(**settings), "apply", 3)
    assert equal(parts.everything(), expected)


def test_a_gradient_that_is_left_out_is_gone():
    parts = Parts()
    before = parts.everything()
    assert isinstance(parts.update.gradient(KEY), Gradient)
    parts.update.end_step(KEY)
    assert all(p.grad is None for p in parts.model.parameters())
    assert equal(parts.everything(), before)


def test_a_model_that_cannot_be_compiled_is_told_in_a_sentence(monkeypatch):
    def fails(*arguments, **options):
        raise torch._dynamo.exc.TorchDynamoException("no working compiler\nfurther lines")

    monkeypatch.setattr(Transformer, "compile_blocks", lambda model: None)
    parts = Parts(compiles=True)
    monkeypatch.setattr(Transformer, "forward", fails)
    with pytest.raises(MachineError, match=r"compile: .* no working compiler; compile: false"):
        parts.update.gradient(KEY)


def test_on_a_cpu_nothing_is_compiled():
    with pytest.raises(InputError, match="compile: true is for a GPU"):
        Parts(compiles=True)


@pytest.mark.parametrize("n_parts", [2, 3, 6])
@pytest.mark.parametrize("objective", [Objective(0.0, 0.0), Objective(0.1, 1e-3)])
def test_a_batch_in_parts_has_the_gradient_and_the_loss_of_the_whole(n_parts, objective):
    # With dropout: the masks belong to the sequences, however they are cut.
    whole = Parts(batch_size=6, objective=objective)
    parts = Parts(batch_size=6, objective=objective, accumulation_steps=n_parts)
    one, other = (each.update.gradient(KEY) for each in (whole, parts))
    torch.testing.assert_close(parts.gradients(), whole.gradients(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(other.loss, one.loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(other.norm, one.norm, rtol=1e-5, atol=0)


def test_the_loss_that_is_told_is_without_what_is_added_to_it():
    plain, more = (Parts(objective=o).update.gradient(KEY) for o in (PLAIN, Objective(0.5, 1.0)))
    assert torch.equal(plain.loss, more.loss)
    assert not torch.equal(plain.norm, more.norm)


def test_larger_gradients_are_scaled_down_and_smaller_ones_are_not():
    free, loose, tight = (Parts(max_grad_norm=norm) for norm in (None, 1e3, 0.01))
    found = {}
    for name, parts in {"free": free, "loose": loose, "tight": tight}.items():
        seen: ClassVar[list] = []
        parts.trained.optimizer.step = lambda factor, p=parts, s=seen: s.append(p.gradients())
        gradient = parts.update.gradient(KEY)
        assert float(gradient.norm) > 0.1
        parts.update.apply(gradient)
        (found[name],) = seen
    assert torch.equal(found["free"], found["loose"])
    assert float(found["tight"].norm()) == pytest.approx(0.01, rel=1e-3)
    direction = torch.nn.functional.cosine_similarity(found["free"], found["tight"], dim=0)
    assert float(direction) == pytest.approx(1, abs=1e-6)


def test_the_schedule_lowers_the_learning_rates_of_each_step():
    schedule = Schedule("linear", 2, 6, 1.0, 0.0)
    parts, plain = Parts(schedule=schedule, optimizer="muon"), Parts(optimizer="muon")
    assert plain.update.learning_rates(1) == {"learning_rate": 1e-3, "muon_learning_rate": 0.02}
    rates = [parts.update.learning_rates(step)["muon_learning_rate"] for step in (1, 2, 4, 6)]
    assert rates == pytest.approx([0.01, 0.02, 0.01, 0])
    before = parts.everything()
    gradient = parts.update.gradient(KEY._replace(step=6))
    parts.update.apply(gradient)
    after = parts.everything()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_update_hook_sees_what_the_optimizer_proposes(optimizer):
    hooks = {"update": [{"name": "test_takes_updates_away"}]}
    settings = EVERYTHING | {"optimizer": optimizer}
    frozen, free = Parts(**settings, hooks=hooks), Parts(**settings)
    before = {name: p.detach().clone() for name, p in frozen.model.named_parameters()}
    TakesUpdatesAway.seen.clear()
    steps(frozen, "apply", 3)
    for name, p in frozen.model.named_parameters():
        assert torch.equal(p, before[name])
        assert torch.equal(frozen.trained.average.weights[name], before[name])
    steps(free, "apply", 1)
    first, *_ = TakesUpdatesAway.seen
    for name, p in free.model.named_parameters():
        torch.testing.assert_close(first[name], p.detach() - before[name])


def test_a_step_that_is_left_out_counts_for_the_average_with_the_weights_as_they_are():
    parts = Parts(ema_decay=0.5)
    steps(parts, "apply", 2)
    weights = {name: p.detach().clone() for name, p in parts.model.named_parameters()}
    average = {name: a.clone() for name, a in parts.trained.average.weights.items()}
    parts.update.end_step(KEY._replace(step=3))
    for name, found in parts.trained.average.weights.items():
        share = 0.5 / (1 - 0.5**3)
        torch.testing.assert_close(found, average[name].lerp(weights[name], share))


def seen_by(step, **settings):
    """The sequences of a step that a process computes: their places, inputs and targets."""
    parts = Parts(**settings)
    seen = []

    def loss(inputs, targets, key):
        places = range(key.first_sequence, key.first_sequence + len(inputs))
        seen.extend(zip(places, inputs.tolist(), targets.tolist(), strict=True))
        zero = sum(p.sum() for p in parts.model.parameters()) * 0
        return Loss(zero, zero)

    parts.update._loss = loss
    parts.update.gradient(KEY._replace(step=step))
    return seen


@pytest.mark.parametrize("n_parts", [1, 2, 4])
@pytest.mark.parametrize(
    ("kind", "n_processes"),
    [*((Averaged, n) for n in (1, 2, 3, 4, 8)), *((Exact, n) for n in (1, 2, 4, 8))],
)
def test_the_samples_of_a_step_are_the_same_for_any_number_of_processes(kind, n_processes, n_parts):
    for step in (1, 7):
        whole = seen_by(step, batch_size=12)
        assert [place for place, _, _ in whole] == list(range(12))
        shared = [
            sequence
            for rank in range(n_processes)
            for sequence in seen_by(
                step,
                batch_size=12,
                accumulation_steps=n_parts,
                kind=kind,
                group=Heard(World(rank, n_processes)),
            )
        ]
        assert shared == whole
