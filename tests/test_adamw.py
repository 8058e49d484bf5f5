"""AdamW, against its formula and against PyTorch's own."""

import torch

from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey
from tests.tiny_trainer import optimizer_of

SIZES = {"n_layers": 1, "d_model": 8, "n_heads": 2, "d_ff": 16, "max_seq_len": 8, "dropout": 0.0}
TOKENS = torch.arange(24).reshape(3, 8) % 7


def build():
    return Transformer(7, **SIZES)


def test_a_step_is_adamws_formula():
    # Loshchilov and Hutter (2019), algorithm 2, written out in float64.
    model = build()
    rate, decay, beta1, beta2 = 0.01, 0.1, 0.8, 0.9
    optimizer = optimizer_of(
        model, learning_rate=rate, weight_decay=decay, beta1=beta1, beta2=beta2
    )
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
    optimizer = optimizer_of(mine, learning_rate=0.01, beta1=0.8, beta2=0.9)
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
        optimizer.step(is_off=is_off)
        if not is_off:
            reference.step()
        optimizer.forget_gradients()
        reference.zero_grad()
    assert all(p.grad is None for p in mine.parameters())
    for (name, p), q in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q), name
        state = reference.state[q]
        assert optimizer.state_of(p).keys() == state.keys()
        assert all(torch.equal(optimizer.state_of(p)[kind], state[kind]) for kind in state), name


def test_a_factor_is_a_smaller_learning_rate():
    models = build(), build()
    whole, half = (
        optimizer_of(m, learning_rate=r) for m, r in zip(models, (0.01, 0.02), strict=True)
    )
    for number in (1, 2):
        for model in models:
            model(TOKENS, TOKENS.roll(number, 1), key=StepKey(0, number)).backward()
        whole.step()
        half.step(0.5)
        whole.forget_gradients()
        half.forget_gradients()
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(a, b)
