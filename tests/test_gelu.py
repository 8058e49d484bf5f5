"""GELU by a compiled loop, against PyTorch's and against small differences."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from lm_core.model.gelu import gelu

# Across what matters: beyond, GELU is 0 or x to the last bit of a float32.
NUMBERS = torch.linspace(-8, 8, 100_003, dtype=torch.float64)
# Of the share of the normal distribution, in float32.
ERROR = 3e-7


def with_gradient(function, x):
    x = x.detach().requires_grad_()
    y = function(x)
    y.backward(torch.ones_like(x))
    return y.detach(), x.grad


def test_in_float32_value_and_gradient_are_as_exact_as_the_formula():
    found, of_found = with_gradient(gelu, NUMBERS.float())
    expected, of_expected = with_gradient(F.gelu, NUMBERS.float().double())
    scale = NUMBERS.abs().clamp(min=1)
    assert ((found - expected).abs() / scale).max() < ERROR
    assert ((of_found - of_expected).abs() / scale).max() < 2 * ERROR
    assert found.dtype == of_found.dtype == torch.float32


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
