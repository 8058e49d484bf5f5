"""Activations by compiled loops, against plain operations and against small differences."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck

from lm_core.model.activations import (
    gelu,
    gelu_tanh,
    reference_relu_squared,
    reference_swiglu,
    relu_squared,
    swiglu,
)

# Across what matters: beyond, GELU is 0 or x to the last bit of a float32.
NUMBERS = torch.linspace(-8, 8, 100_003, dtype=torch.float64)
# Of the share of the normal distribution, in float32.
ERROR = 3e-7
# The compiled functions with a plain formula of the lab's own, and that formula.
PAIRS = [(relu_squared, reference_relu_squared), (swiglu, reference_swiglu)]
# Norm of the error over the norm of what is exact: bfloat16 has eight bits, float32 has 24.
TOLERANCES = {torch.float32: 3e-7, torch.bfloat16: 3e-3}


def with_gradient(function, x):
    x = x.detach().requires_grad_()
    y = function(x)
    y.backward(torch.ones_like(y))
    return y.detach(), x.grad


def test_in_float32_value_and_gradient_are_as_exact_as_the_formula():
    found, of_found = with_gradient(gelu, NUMBERS.float())
    expected, of_expected = with_gradient(F.gelu, NUMBERS.float().double())
    scale = NUMBERS.abs().clamp(min=1)
    assert ((found - expected).abs() / scale).max() < ERROR
    assert ((of_found - of_expected).abs() / scale).max() < 2 * ERROR
    assert found.dtype == of_found.dtype == torch.float32


def test_the_approximation_is_its_formula_and_near_the_exact_one():
    found, of_found = with_gradient(gelu_tanh, NUMBERS)
    inner = math.sqrt(2 / math.pi) * (NUMBERS + 0.044715 * NUMBERS**3)
    torch.testing.assert_close(found, NUMBERS / 2 * (1 + inner.tanh()), rtol=0, atol=1e-12)
    assert 1e-4 < (found - F.gelu(NUMBERS)).abs().max() < 1e-3
    assert gradcheck(gelu_tanh, torch.linspace(-4, 4, 24, dtype=torch.float64).requires_grad_())
    in_float32 = with_gradient(gelu_tanh, NUMBERS.float())
    torch.testing.assert_close(in_float32[0].double(), found, rtol=0, atol=1e-6)
    torch.testing.assert_close(in_float32[1].double(), of_found, rtol=0, atol=1e-5)


def test_small_values_keep_their_relative_precision():
    x = torch.logspace(-30, -3, 1000)
    torch.testing.assert_close(gelu(x), F.gelu(x), rtol=1e-6, atol=0)
    torch.testing.assert_close(gelu(-x), F.gelu(-x), rtol=1e-6, atol=0)


def test_in_float64_it_is_pytorch_s():
    for found, expected in zip(
        with_gradient(gelu, NUMBERS), with_gradient(F.gelu, NUMBERS), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


def test_gradients_are_those_of_small_differences():
    x = torch.linspace(-4, 4, 24, dtype=torch.float64).view(2, 3, 4).requires_grad_()
    assert gradcheck(gelu, x)


@pytest.mark.parametrize("n", [0, 1, 4095, 4096, 4097, 3 * 4096])
def test_any_number_of_elements_is_computed(n):
    x = torch.randn(n)
    torch.testing.assert_close(gelu(x), F.gelu(x), rtol=1e-5, atol=1e-6)


def test_other_layouts_are_as_good():
    x = torch.randn(5, 7)
    torch.testing.assert_close(gelu(x.T), gelu(x).T, rtol=0, atol=0)
    weight = torch.randn(7, 5)
    leaf = x.clone().requires_grad_()
    # The gradient that comes back is a transposed one.
    gelu(leaf).backward(weight.T)
    torch.testing.assert_close(leaf.grad, with_gradient(gelu, x)[1] * weight.T)


def test_a_parameter_is_as_good_as_any_tensor():
    x = torch.nn.Parameter(torch.randn(50))
    assert torch.equal(gelu(x), gelu(x.detach()))


def test_in_bfloat16_it_is_pytorch_s():
    x = torch.randn(100).bfloat16()
    assert torch.equal(gelu(x), F.gelu(x))


def test_what_is_not_finite_and_what_is_huge_come_out_as_they_should():
    x = torch.tensor([math.nan, math.inf, 1e30, -1e30, 100.0, -100.0])
    y, of_x = with_gradient(gelu, x)
    assert y[0].isnan()
    assert of_x[0].isnan()
    assert y[1:].tolist() == [math.inf, x[2], 0, 100, 0]
    assert of_x[2:].tolist() == [1, 0, 1, 0]


def test_the_input_stays_as_it_was():
    x = torch.randn(50)
    before = x.clone()
    with_gradient(gelu, x)
    assert torch.equal(x, before)


def numbers(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).mul(3).to(dtype)


def of_weighted_sum(y, x):
    """The gradient of a sum in which no element is like another."""
    weight = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape)
    return torch.autograd.grad(y, x, weight.to(y.dtype))[0]


@pytest.mark.parametrize(("function", "reference"), PAIRS)
@settings(max_examples=30)
@given(st.lists(st.integers(1, 9), max_size=3), st.integers(1, 70))
def test_values_and_gradients_are_those_of_plain_operations(function, reference, rows, width):
    x = numbers(*rows, 2 * width).requires_grad_()
    found, expected = function(x), reference(x)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(
        of_weighted_sum(found, x), of_weighted_sum(expected, x), rtol=1e-13, atol=1e-14
    )


@pytest.mark.parametrize(("function", "reference"), PAIRS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_error_is_that_of_the_precision(function, reference, dtype):
    x = numbers(7, 33, 130, dtype=dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    found, expected = function(x), reference(exact)
    gradients = of_weighted_sum(found, x), of_weighted_sum(expected, exact)
    assert found.dtype == gradients[0].dtype == dtype
    for value, truth in ((found, expected), gradients):
        assert (value.double() - truth).norm() < TOLERANCES[dtype] * truth.norm()


@pytest.mark.parametrize(("function", "_"), PAIRS)
def test_gradients_of_the_others_are_those_of_small_differences(function, _):
    assert gradcheck(function, numbers(2, 3, 8).requires_grad_())


@pytest.mark.parametrize(("function", "_"), PAIRS)
def test_in_bfloat16_the_result_is_that_of_float32_rounded(function, _):
    x = numbers(9, 4098, dtype=torch.bfloat16)
    values = with_gradient(function, x)
    for found, wide in zip(values, with_gradient(function, x.float()), strict=True):
        assert torch.equal(found, wide.bfloat16())


@pytest.mark.parametrize(("function", "_"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gaps_in_what_is_given_change_nothing(function, _, dtype):
    x = numbers(5, 7, 6, dtype=dtype)
    gaps = numbers(5, 14, 6, dtype=dtype)[:, ::2].copy_(x)
    turned = x.transpose(0, 1)
    assert torch.equal(function(gaps), function(x))
    assert torch.equal(function(turned), function(x).transpose(0, 1))
    leaf = x.clone().requires_grad_()
    n = function(x).shape[-1]
    same = torch.ones((), dtype=dtype).expand(5, 7, n)
    for weight in (same, numbers(n, 7, 5, dtype=dtype).permute(2, 1, 0)):
        (found,) = torch.autograd.grad(function(leaf), leaf, weight)
        (expected,) = torch.autograd.grad(function(leaf), leaf, weight.contiguous())
        assert torch.equal(found, expected)


@pytest.mark.parametrize(("function", "reference"), PAIRS)
def test_what_is_not_finite_and_what_is_huge_come_out_as_in_plain_operations(function, reference):
    gates = torch.tensor([math.nan, math.inf, -math.inf, 1e30, -1e30, 100.0, -100.0, 0.0])
    x = torch.stack([gates, torch.ones_like(gates)], dim=1)
    for found, expected in zip(
        with_gradient(function, x), with_gradient(reference, x), strict=True
    ):
        torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize(("function", "reference"), PAIRS)
def test_what_has_no_compiled_loop_is_left_to_plain_operations(function, reference):
    x = numbers(4, 6, dtype=torch.float16)
    assert torch.equal(function(x), reference(x))
    assert function(x.to("meta")).shape == reference(x).shape


@pytest.mark.parametrize(("function", "reference"), PAIRS)
@pytest.mark.parametrize("shape", [(3, 8), (0, 8), (8,)])
def test_a_tensor_without_content_gets_a_result_without_content(function, reference, shape):
    expected = reference(torch.zeros(shape))
    assert function(torch.zeros(shape)).shape == expected.shape
    with FakeTensorMode():
        found = function(torch.zeros(shape).requires_grad_())
    assert (found.shape, found.stride()) == (expected.shape, expected.stride())


@pytest.mark.parametrize(("function", "_"), PAIRS)
def test_what_is_given_stays_as_it_was(function, _):
    x = numbers(5, 6, dtype=torch.float32).requires_grad_()
    before, weight = x.detach().clone(), torch.randn(function(x).shape)
    weight_before = weight.clone()
    function(x).backward(weight)
    assert torch.equal(x.detach(), before)
    assert torch.equal(weight, weight_before)


def test_gates_and_what_they_gate_need_as_many_numbers():
    with pytest.raises(RuntimeError):
        swiglu(torch.zeros(2, 3))
