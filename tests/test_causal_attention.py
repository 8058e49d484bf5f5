"""Blocks and strips against the plain formula: values, gradients, masks, precision."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from lm_core.model import causal_attention as module
from lm_core.model.causal_attention import (
    causal_attention,
    n_attention_weights,
    reference_causal_attention,
    strips,
)
from lm_core.model.dropout import keep_mask
from lm_core.randomness import StepKey

KEY = StepKey(seed=2, step=9)
LEVELS = 20_000
SCALE = 65536 / (65536 - LEVELS)
# Norm of the error over the norm of the gradient: bfloat16 has eight bits, float32 has 24.
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 2e-2}


def projected(batch, time, n_heads, d_head, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, time, 3 * n_heads * d_head)
    numbers = torch.randn(shape, generator=generator, dtype=torch.float64)
    return numbers.to(dtype).requires_grad_()


def mask_of(batch, time, n_heads):
    return keep_mask(KEY, 1, LEVELS, (batch, n_attention_weights(time, n_heads)))


def in_strips(projected, n_heads, mask=None, scale=1):
    return module._InStrips.apply(projected, n_heads, mask, scale)


# In float64, the first is computed in blocks.
PATHS = [causal_attention, in_strips]


@pytest.fixture
def narrow_strips(monkeypatch):
    monkeypatch.setattr(module, "_QUERIES_A_STRIP", 3)


sizes = st.tuples(st.integers(1, 3), st.integers(1, 11), st.integers(1, 3), st.integers(1, 4))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("width", [1, 3, 128])
@settings(max_examples=25)
@given(size=sizes, drops=st.booleans())
@example(size=(1, 130, 2, 5), drops=True)
@example(size=(2, 64, 1, 70), drops=False)
@example(size=(1, 257, 1, 1), drops=True)
def test_values_and_gradients_are_those_of_the_formula(path, width, size, drops):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_QUERIES_A_STRIP", width)
        batch, time, n_heads, _ = size
        mask = (mask_of(batch, time, n_heads), SCALE) if drops else ()
        x = projected(*size)
        found = path(x, n_heads, *mask)
        expected = reference_causal_attention(x, n_heads, *mask)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        weight = torch.linspace(-1, 1, found.numel(), dtype=x.dtype).view(found.shape)
        (of_found,) = torch.autograd.grad((found * weight).sum(), x)
        (of_expected,) = torch.autograd.grad((expected * weight).sum(), x)
        torch.testing.assert_close(of_found, of_expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("size", [(2, 7, 2, 3), (1, 1, 1, 1), (1, 9, 3, 2)])
def test_gradients_are_those_of_small_differences(narrow_strips, path, size, drops):
    batch, time, n_heads, _ = size
    mask = mask_of(batch, time, n_heads) if drops else None
    scale = SCALE if drops else 1
    assert gradcheck(lambda x: path(x, n_heads, mask, scale), projected(*size))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("drops", [False, True])
def test_the_error_is_that_of_the_precision(dtype, drops):
    size = batch, time, n_heads, _ = 2, 200, 3, 32
    mask = (mask_of(batch, time, n_heads), SCALE) if drops else ()
    x, exact = projected(*size, dtype=dtype), projected(*size)
    found, expected = (
        causal_attention(x, n_heads, *mask),
        reference_causal_attention(exact, 3, *mask),
    )
    found.sum().backward()
    expected.sum().backward()
    for value, truth in ((found, expected), (x.grad, exact.grad)):
        error = (value.double() - truth).norm() / truth.norm()
        assert error < TOLERANCES[dtype]
    assert found.dtype == x.grad.dtype == dtype


def test_strips_cover_every_query_once_and_every_key_before_it():
    for time in (1, 127, 128, 129, 1000):
        found = strips(time)
        queries = [i for strip in found for i in range(strip.start, strip.end)]
        assert queries == list(range(time))
        assert n_attention_weights(time, 2) == 2 * sum(s.end * (s.end - s.start) for s in found)


def test_a_mask_drops_its_share_of_the_weights_that_are_seen(narrow_strips):
    ones = torch.ones(64, 11, 3 * 2, dtype=torch.float64)
    kept = causal_attention(ones, 2, mask_of(64, 11, 2), 1.0)
    # Equal queries and keys weigh all positions alike; equal values show the share that is kept.
    assert kept.mean().item() == pytest.approx(1 - LEVELS / 65536, abs=0.02)
    assert len(kept[:, 10].unique()) > 2


@settings(max_examples=20)
@given(st.integers(1, 10))
def test_no_position_sees_a_later_one(position):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_QUERIES_A_STRIP", 4)
        x = projected(1, 11, 2, 3).detach()
        changed = x.clone()
        changed[:, position:] += 1
        before, after = causal_attention(x, 2), causal_attention(changed, 2)
        assert torch.equal(before[:, :position], after[:, :position])
        assert not torch.equal(before[:, position:], after[:, position:])


@pytest.mark.parametrize("size", [(2, 5, 2, 3), (1, 1, 1, 2), (3, 1, 2, 2), (1, 5, 1, 2)])
def test_what_is_given_stays_as_it_was(size):
    x = projected(*size)
    before, mask = x.detach().clone(), mask_of(*size[:3])
    mask_before = mask.clone()
    causal_attention(x, size[2], mask, SCALE).sum().backward()
    assert torch.equal(x.detach(), before)
    assert torch.equal(mask, mask_before)


def test_two_passes_have_the_same_bits():
    def gradient(dtype):
        x = projected(4, 150, 2, 16, dtype)
        causal_attention(x, 2, mask_of(4, 150, 2), SCALE).float().square().sum().backward()
        return x.grad

    for dtype in TOLERANCES:
        assert torch.equal(gradient(dtype), gradient(dtype))


def test_what_is_not_finite_stays_so():
    for value in (math.nan, math.inf):
        x = projected(1, 70, 1, 4, torch.float32).detach()
        x[0, 66, 0] = value
        assert causal_attention(x, 1)[0, 66].isnan().all()
        assert causal_attention(x, 1)[0, :66].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("last", [9, 64, 149])
def test_a_value_that_is_not_finite_shows_in_no_gradient_of_an_earlier_query(dtype, last):
    x = projected(1, 150, 1, 8, dtype)
    spoilt = x.clone()
    spoilt[:, last, 16:] = math.inf
    weight = torch.zeros(1, 150, 8, dtype=dtype)
    weight[:, :last] = 1
    of_queries = []
    for leaf in (x.requires_grad_(), spoilt.requires_grad_()):
        (of_leaf,) = torch.autograd.grad(causal_attention(leaf, 1), leaf, weight)
        of_queries.append(of_leaf[:, :last, :8])
    assert of_queries[0].isfinite().all()
    torch.testing.assert_close(*of_queries, rtol=0, atol=0)


def test_large_scores_are_softened_without_overflow():
    x = projected(1, 80, 1, 4, torch.float32).detach().mul_(1e4).requires_grad_()
    causal_attention(x, 1).sum().backward()
    assert x.grad.isfinite().all()


def test_scores_that_are_huge_and_equal_share_the_gradient():
    # The logarithm of a sum of exponentials would lose the sum beside such a score.
    x = torch.zeros(1, 2, 3).index_fill_(2, torch.tensor([0, 1]), 3e4).requires_grad_()
    causal_attention(x, 1)[0, 1].sum().backward()
    assert x.grad[0, :, 2].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parameters_and_other_layouts_are_as_good_as_plain_tensors(dtype):
    x = projected(2, 9, 1, 4, dtype).detach()
    plain = x.clone().requires_grad_()
    causal_attention(plain, 1).square().sum().backward()
    parameter = torch.nn.Parameter(x.clone())
    transposed = x.transpose(0, 1).contiguous().requires_grad_()
    for same, leaf in ((parameter, parameter), (transposed.transpose(0, 1), transposed)):
        found = causal_attention(same, 1)
        assert torch.equal(found, causal_attention(x, 1))
        # The gradient that comes back is a transposed one.
        found.backward((2 * found.detach()).transpose(0, 1).contiguous().transpose(0, 1))
        gradient = leaf.grad if leaf is parameter else leaf.grad.transpose(0, 1)
        torch.testing.assert_close(gradient, plain.grad)


def test_what_has_no_fast_path_is_computed_by_the_formula():
    x = projected(2, 9, 2, 4, torch.float16)
    assert torch.equal(causal_attention(x, 2), reference_causal_attention(x, 2))


def test_in_float32_no_weights_are_kept_for_backward():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda x: x):
        causal_attention(projected(1, 300, 2, 4, torch.float32), 2)
    assert max(tensor.numel() for tensor in kept) == 300 * 3 * 8
