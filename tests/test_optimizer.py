import math

import pytest
import torch

from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey
from lm_core.training.optimizer import build_adamw, load_optimizer_tensors, optimizer_tensors

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
    optimizer = build_adamw(model, 0.1, weight_decay=0.5, beta1=0.9, beta2=0.95)
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


def test_a_step_is_adamws_formula():
    # Loshchilov and Hutter (2019), algorithm 2, written out in float64.
    model = build()
    rate, decay, beta1, beta2 = 0.01, 0.1, 0.8, 0.9
    optimizer = build_adamw(model, rate, decay, beta1, beta2)
    expected = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    m = {name: torch.zeros_like(p) for name, p in expected.items()}
    v = {name: torch.zeros_like(p) for name, p in expected.items()}
    for t in (1, 2, 3):
        model(TOKENS, TOKENS.roll(t, 1), key=StepKey(0, t)).backward()
        for name, p in model.named_parameters():
            g = p.grad.double()
            m[name] = beta1 * m[name] + (1 - beta1) * g
            v[name] = beta2 * v[name] + (1 - beta2) * g * g
            if p.dim() > 1 and "embedding" not in name:
                expected[name] *= 1 - rate * decay
            m_hat, v_hat = m[name] / (1 - beta1**t), v[name] / (1 - beta2**t)
            expected[name] -= rate * m_hat / (v_hat.sqrt() + 1e-8)
        optimizer.step()
        optimizer.forget_gradients()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.double(), expected[name], rtol=1e-4, atol=1e-6)


def test_it_leaves_the_bits_of_pytorchs_own_and_changes_nothing_where_it_is_off():
    mine, theirs = build(), build()
    theirs.load_state_dict(mine.state_dict())
    optimizer = build_adamw(mine, 0.01, 0.1, 0.8, 0.9)
    matrices = {"query_key_value.weight", "projection.weight", "expansion.weight"}
    decays = [
        {"params": [p], "weight_decay": 0.1 if ".".join(name.split(".")[-2:]) in matrices else 0.0}
        for name, p in theirs.named_parameters()
    ]
    reference = torch.optim.AdamW(decays, lr=0.01, betas=(0.8, 0.9), eps=1e-8, fused=True)
    for number in (1, 2, 3, 4):
        for model in (mine, theirs):
            model(TOKENS, TOKENS.roll(number, 1), key=StepKey(0, number)).backward()
            # A parameter that has no gradient in a step is passed over.
            model.final_norm.bias.grad = None if number == 3 else model.final_norm.bias.grad
        is_off = torch.tensor(number == 2)
        optimizer.step(is_off)
        if not is_off:
            reference.step()
        optimizer.forget_gradients()
        reference.zero_grad()
    assert all(p.grad is None for p in mine.parameters())
    for (name, p), q in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q), name
        state = reference.state[q]
        assert optimizer.state[p].keys() == state.keys()
        assert all(torch.equal(optimizer.state[p][kind], state[kind]) for kind in state), name


def test_a_restored_state_goes_on_bit_for_bit():
    straight = build()
    optimizer = build_adamw(straight, 0.01, 0.1, 0.9, 0.95)
    for number in (1, 2):
        step(straight, optimizer, number)
    resumed = build()
    resumed.load_state_dict(straight.state_dict())
    restored = build_adamw(resumed, 0.01, 0.1, 0.9, 0.95)
    tensors = {name: t.clone() for name, t in optimizer_tensors(optimizer, straight).items()}
    load_optimizer_tensors(restored, resumed, tensors)
    for number in (3, 4):
        step(straight, optimizer, number)
        step(resumed, restored, number)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_loading_does_not_share_memory_with_the_tensors_given():
    model = build()
    optimizer = build_adamw(model, 0.01, 0.1, 0.9, 0.95)
    step(model, optimizer, 1)
    tensors = {name: t.clone() for name, t in optimizer_tensors(optimizer, model).items()}
    copies = {name: t.clone() for name, t in tensors.items()}
    load_optimizer_tensors(optimizer, model, tensors)
    step(model, optimizer, 2)
    assert all(torch.equal(tensors[name], copies[name]) for name in tensors)


def test_a_part_of_a_parameters_state_is_refused():
    model = build()
    optimizer = build_adamw(model, 0.01, 0.1, 0.9, 0.95)
    step(model, optimizer, 1)
    tensors = {name: t.clone() for name, t in optimizer_tensors(optimizer, model).items()}
    del tensors["final_norm.bias/exp_avg_sq"]
    with pytest.raises(RuntimeError, match=r"of final_norm.bias is not whole: exp_avg, step"):
        load_optimizer_tensors(optimizer, model, tensors)


@pytest.mark.parametrize("value", [math.inf, math.nan, -1.0, 1.5])
def test_a_number_of_updates_that_cannot_be_is_refused(value):
    model = build()
    optimizer = build_adamw(model, 0.01, 0.1, 0.9, 0.95)
    step(model, optimizer, 1)
    tensors = optimizer_tensors(optimizer, model) | {"final_norm.bias/step": torch.tensor(value)}
    with pytest.raises(RuntimeError, match=f"'final_norm.bias/step' is {value}"):
        load_optimizer_tensors(optimizer, model, tensors)


@pytest.mark.parametrize("path", ["nowhere.weight/exp_avg", "final_norm.bias/exp_avg"])
def test_state_of_another_model_is_refused(path):
    model = build()
    optimizer = build_adamw(model, 0.01, 0.1, 0.9, 0.95)
    with pytest.raises(RuntimeError, match=f"'{path}' fits no parameter"):
        load_optimizer_tensors(optimizer, model, {path: torch.zeros(3)})
