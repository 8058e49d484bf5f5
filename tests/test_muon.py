"""Muon, against its formula in float64 and against PyTorch's own."""

import pytest
import torch
from torch import nn

from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey
from lm_core.training import muon as muon_module
from lm_core.training.muon import Matrix, Muon, orthogonalised
from tests.tiny_trainer import optimizer_of

SIZES = {"n_layers": 2, "d_model": 8, "n_heads": 2, "d_ff": 16, "max_seq_len": 8, "dropout": 0.0}
TOKENS = torch.arange(24).reshape(3, 8) % 7
SHAPES = [(6, 6), (9, 4), (4, 9), (6, 6)]


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def matrices(n_parts=1):
    return [nn.Parameter(numbers(n_parts * r, c, seed=i)) for i, (r, c) in enumerate(SHAPES)]


def give_gradients(parameters, step):
    for i, parameter in enumerate(parameters):
        parameter.grad = numbers(*parameter.shape, seed=100 * step + i)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_vectors_stay_and_singular_values_become_nearly_one(shape, dtype):
    # An iteration for an approximation: values from a hundredth of the norm on end within these.
    left, _, right = torch.linalg.svd(numbers(*shape).double(), full_matrices=False)
    values = torch.linspace(1, 0.05, min(shape), dtype=torch.float64)
    matrix = left * values @ right
    (found,) = orthogonalised(matrix[None].to(dtype), dtype).double()
    core = left.T @ found @ right.T
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(core, core.diagonal().diag(), rtol=0, atol=tolerance)
    assert float(core.diagonal().min()) > 0.6
    assert float(core.diagonal().max()) < 1.3


def test_several_matrices_at_once_are_each_as_alone():
    both = torch.stack([numbers(5, 8, seed=1), 1000 * numbers(5, 8, seed=2)])
    found = orthogonalised(both, torch.float32)
    for i in range(2):
        alone = orthogonalised(both[i : i + 1], torch.float32)[0]
        torch.testing.assert_close(found[i], alone, rtol=1e-4, atol=1e-5)


def test_a_gradient_of_zeros_moves_nothing():
    assert not orthogonalised(torch.zeros(1, 3, 4), torch.float32).any()


def test_a_step_is_muons_formula():
    rate, momentum, decay = 0.05, 0.8, 0.1
    parameters = matrices()
    muon = Muon([Matrix(p, 1) for p in parameters], rate, momentum, decay, torch.float32)
    expected = [p.detach().double() for p in parameters]
    means = [torch.zeros_like(p) for p in expected]
    for step in (1, 2, 3):
        give_gradients(parameters, step)
        for i, p in enumerate(parameters):
            g = p.grad.double()
            means[i] = momentum * means[i] + (1 - momentum) * g
            ahead = momentum * means[i] + (1 - momentum) * g
            x = ahead.T / ahead.norm() if p.shape[0] > p.shape[1] else ahead / ahead.norm()
            for _ in range(5):
                a = x @ x.T
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
            x = x.T if p.shape[0] > p.shape[1] else x
            scale = max(1, p.shape[0] / p.shape[1]) ** 0.5
            expected[i] = expected[i] * (1 - rate * decay) - rate * scale * x
        muon.step(1.0)
    for p, e in zip(parameters, expected, strict=True):
        torch.testing.assert_close(p.double(), e, rtol=1e-4, atol=1e-5)


def test_it_is_that_of_pytorch_within_the_precision_of_its_products():
    mine, theirs = matrices(), matrices()
    muon = Muon([Matrix(p, 1) for p in mine], 0.02, 0.95, 0.1, torch.bfloat16)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95)
    starts = [p.detach().clone() for p in mine]
    for step in (1, 2, 3):
        give_gradients(mine, step)
        give_gradients(theirs, step)
        muon.step(1.0)
        reference.step()
    for p, q, start in zip(mine, theirs, starts, strict=True):
        assert (p - q).norm() < 0.03 * (q - start).norm()
        torch.testing.assert_close(
            muon.state[p]["momentum_buffer"], reference.state[q]["momentum_buffer"]
        )


def test_few_at_once_are_moved_as_many_are(monkeypatch):
    both = matrices(), matrices()
    for n_numbers, parameters in zip((2**21, 1), both, strict=True):
        monkeypatch.setattr(muon_module, "NUMBERS_AT_ONCE", n_numbers)
        muon = Muon([Matrix(p, 1) for p in parameters], 0.02, 0.9, 0.1, torch.float32)
        for step in (1, 2):
            give_gradients(parameters, step)
            muon.step(1.0)
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_matrices_in_one_parameter_are_updated_as_if_they_were_apart():
    together = nn.Parameter(numbers(12, 5))
    apart = [nn.Parameter(part.clone()) for part in together.detach().chunk(3)]
    one = Muon([Matrix(together, 3)], 0.02, 0.9, 0.1, torch.float32)
    many = Muon([Matrix(p, 1) for p in apart], 0.02, 0.9, 0.1, torch.float32)
    for step in (1, 2):
        together.grad = numbers(12, 5, seed=step)
        for p, g in zip(apart, together.grad.chunk(3), strict=True):
            p.grad = g.clone()
        one.step(1.0)
        many.step(1.0)
    torch.testing.assert_close(together.detach(), torch.cat([p.detach() for p in apart]))


def test_it_changes_nothing_where_it_is_off():
    parameters = matrices()
    muon = Muon([Matrix(p, 1) for p in parameters], 0.02, 0.9, 0.1, torch.float32)
    give_gradients(parameters, 1)
    muon.step(1.0)
    before = [(p.detach().clone(), muon.state[p]["momentum_buffer"].clone()) for p in parameters]
    for p in parameters:
        p.grad = torch.full_like(p, torch.nan)
    muon.step(1.0, is_off=torch.tensor(True))
    for p, (weight, mean) in zip(parameters, before, strict=True):
        assert torch.equal(p, weight)
        assert torch.equal(muon.state[p]["momentum_buffer"], mean)


def test_a_parameter_without_a_gradient_is_passed_over():
    parameters = matrices()
    muon = Muon([Matrix(p, 1) for p in parameters], 0.02, 0.9, 0.1, torch.float32)
    give_gradients(parameters, 1)
    parameters[1].grad = None
    before = parameters[1].detach().clone()
    muon.step(1.0)
    assert torch.equal(parameters[1], before)
    assert parameters[1] not in muon.state


def test_it_updates_the_matrices_of_the_blocks_and_adamw_all_others():
    model = Transformer(7, **SIZES, tie_embeddings=False)
    optimizer = optimizer_of(model, "muon")
    model(TOKENS, TOKENS.roll(1, 1), key=StepKey(0, 1)).backward()
    optimizer.step()
    by_muon = {
        name
        for name, p in model.named_parameters()
        if set(optimizer.state_of(p)) == {"momentum_buffer"}
    }
    assert by_muon == {
        name for name, p in model.named_parameters() if name.startswith("blocks.") and p.dim() == 2
    }
    others = {n: p for n, p in model.named_parameters() if n not in by_muon}
    assert all("exp_avg" in optimizer.state_of(p) for p in others.values())
    assert {"head.weight", "token_embedding.weight", "final_norm.bias"} <= others.keys()
