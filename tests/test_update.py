import math

import pytest
import torch

from lm_core.data.batches import RandomBatches
from lm_core.errors import InputError, MachineError
from lm_core.hooks import Hooks
from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey
from lm_core.training.optimizer import build_adamw, optimizer_tensors
from lm_core.training.update import Gradient, Update
from tests.tiny_trainer import SIZES, TOKENIZER, TOKENS

KEY = StepKey(seed=4, step=1)


class Parts:
    """An update and what it works on."""

    def __init__(self, precision="float32", compiles=False):
        self.model = Transformer(TOKENIZER.vocab_size, **SIZES, dropout=0.1, seed=4)
        self.optimizer = build_adamw(self.model, 1e-3, 0.1, 0.9, 0.95)
        self.batches = RandomBatches(TOKENS, 4, SIZES["max_seq_len"], seed=4)
        hooks = Hooks(None, self.model)
        self.update = Update(self.model, self.batches, self.optimizer, hooks, precision, compiles)

    def everything(self):
        tensors = {**self.model.state_dict(), **optimizer_tensors(self.optimizer, self.model)}
        return {name: tensor.clone() for name, tensor in tensors.items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def steps(parts, apply, n=5):
    for step in range(1, n + 1):
        gradient = parts.update.gradient(KEY._replace(step=step))
        getattr(parts.update, apply)(gradient.key if apply == "apply" else gradient)
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
    parts.update.apply(KEY)
    dtypes = {tensor.dtype for tensor in parts.everything().values()}
    assert dtypes == {gradient.loss.dtype} == {torch.float32}
    assert all(p.grad is None for p in parts.model.parameters())


def test_what_the_device_leaves_out_by_itself_changes_no_sound_step():
    assert equal(steps(Parts(), "apply"), steps(Parts(), "apply_if_finite"))


@pytest.mark.parametrize("bad", ["loss", "norm"])
def test_from_a_number_that_is_not_finite_on_nothing_changes_until_it_is_switched_on(bad):
    parts = Parts()
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
    expected = steps(Parts(), "apply", 3)
    assert equal(parts.everything(), expected)


def test_a_gradient_that_is_discarded_is_gone():
    parts = Parts()
    before = parts.everything()
    assert isinstance(parts.update.gradient(KEY), Gradient)
    parts.update.discard()
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
