import math

import pytest
import torch

from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey
from lm_core.training.optimizer import load_optimizer_tensors, optimizer_tensors
from tests.tiny_trainer import optimizer_of

SIZES = {"n_layers": 1, "d_model": 8, "n_heads": 2, "d_ff": 16, "max_seq_len": 8, "dropout": 0.0}
TOKENS = torch.arange(24).reshape(3, 8) % 7


def build():
    return Transformer(7, **SIZES)


def step(model, optimizer, number):
    model(TOKENS, TOKENS.roll(number, 1), key=StepKey(0, number)).backward()
    optimizer.step()
    optimizer.forget_gradients()


def test_only_matrices_decay():
    model = build()
    optimizer = optimizer_of(model, learning_rate=0.1, weight_decay=0.5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decayed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert decayed == {
        "blocks.0.attention.query_key_value.weight",
        "blocks.0.attention.projection.weight",
        "blocks.0.mlp.expansion.weight",
        "blocks.0.mlp.projection.weight",
    }
    for name in decayed:
        weight = dict(model.named_parameters())[name]
        torch.testing.assert_close(weight, before[name] * (1 - 0.1 * 0.5))


def test_a_restored_state_goes_on_bit_for_bit():
    straight = build()
    optimizer = optimizer_of(straight, learning_rate=0.01)
    for number in (1, 2):
        step(straight, optimizer, number)
    resumed = build()
    resumed.load_state_dict(straight.state_dict())
    restored = optimizer_of(resumed, learning_rate=0.01)
    tensors = {name: t.clone() for name, t in optimizer_tensors(optimizer, straight).items()}
    load_optimizer_tensors(restored, resumed, tensors)
    for number in (3, 4):
        step(straight, optimizer, number)
        step(resumed, restored, number)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_loading_does_not_share_memory_with_the_tensors_given():
    model = build()
    optimizer = optimizer_of(model, learning_rate=0.01)
    step(model, optimizer, 1)
    tensors = {name: t.clone() for name, t in optimizer_tensors(optimizer, model).items()}
    copies = {name: t.clone() for name, t in tensors.items()}
    load_optimizer_tensors(optimizer, model, tensors)
    step(model, optimizer, 2)
    assert all(torch.equal(tensors[name], copies[name]) for name in tensors)


def test_a_part_of_a_parameters_state_is_refused():
    model = build()
    optimizer = optimizer_of(model, learning_rate=0.01)
    step(model, optimizer, 1)
    tensors = {name: t.clone() for name, t in optimizer_tensors(optimizer, model).items()}
    del tensors["final_norm.bias/exp_avg_sq"]
    with pytest.raises(RuntimeError, match=r"of final_norm.bias is not whole: exp_avg, step"):
        load_optimizer_tensors(optimizer, model, tensors)


@pytest.mark.parametrize("value", [math.inf, math.nan, -1.0, 1.5])
def test_a_number_of_updates_that_cannot_be_is_refused(value):
    model = build()
    optimizer = optimizer_of(model, learning_rate=0.01)
    step(model, optimizer, 1)
    tensors = optimizer_tensors(optimizer, model) | {"final_norm.bias/step": torch.tensor(value)}
    with pytest.raises(RuntimeError, match=f"'final_norm.bias/step' is {value}"):
        load_optimizer_tensors(optimizer, model, tensors)


@pytest.mark.parametrize("path", ["nowhere.weight/exp_avg", "final_norm.bias/exp_avg"])
def test_state_of_another_model_is_refused(path):
    model = build()
    optimizer = optimizer_of(model, learning_rate=0.01)
    with pytest.raises(RuntimeError, match=f"'{path}' fits no parameter"):
        load_optimizer_tensors(optimizer, model, {path: torch.zeros(3)})
