import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from lm_core.kernels.tiles import PANEL
from lm_core.model import linear as module
from lm_core.model.linear import Linear, reference_linear


def numbers(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def layer(n_in, n_out, dtype=torch.float64):
    made = Linear(n_in, n_out, dtype=dtype)
    with torch.no_grad():
        made.weight.copy_(numbers(n_out, n_in, seed=1))
        made.bias.copy_(numbers(n_out, seed=2))
    return made


@settings(max_examples=25)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 5), st.integers(1, 5))
def test_values_and_gradients_are_those_of_the_plain_layer(rows, n_in, n_out):
    made, x = layer(n_in, n_out), numbers(*rows, n_in).requires_grad_()
    leaves = x, made.weight, made.bias
    found = made(x, torch.float64)
    expected = reference_linear(*leaves)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    of_found = torch.autograd.grad(found.square().sum(), leaves)
    of_expected = torch.autograd.grad(expected.square().sum(), leaves)
    for one, other in zip(of_found, of_expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_small_differences():
    made = layer(3, 4)
    x = numbers(2, 5, 3).requires_grad_()
    assert gradcheck(lambda x, *_: made(x, torch.float64), (x, made.weight, made.bias))


@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_in_bfloat16_leaves_weights_and_their_gradients_in_float32(transposed):
    made = layer(64, 48, torch.float32)
    x = numbers(33, 2, 64, dtype=torch.float32)
    x = (x.transpose(0, 1) if transposed else x).requires_grad_()
    product = made(x, torch.bfloat16)
    assert product.dtype == torch.bfloat16
    product.float().square().sum().backward()
    exact = x.detach().double().requires_grad_()
    weight = made.weight.detach().double().requires_grad_()
    bias = made.bias.detach().double().requires_grad_()
    reference_linear(exact, weight, bias).square().sum().backward()
    for found, truth in ((x, exact), (made.weight, weight), (made.bias, bias)):
        assert found.grad.dtype == torch.float32
        assert (found.grad.double() - truth.grad).norm() < 1e-2 * truth.grad.norm()


def test_a_product_in_float32_is_that_of_pytorch():
    made, x = layer(7, 5, torch.float32), numbers(3, 7, dtype=torch.float32)
    expected = torch.nn.functional.linear(x, made.weight, made.bias)
    torch.testing.assert_close(made(x, torch.float32), expected)


@pytest.mark.parametrize("is_slow", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_and_without_mkl_gradients_are_those_of_the_plain_layer(monkeypatch, is_slow, dtype):
    monkeypatch.setattr(module, "_is_mkl_slow", lambda: is_slow)
    made, x = layer(3 * PANEL, 40, dtype), numbers(2, 17, 3 * PANEL, dtype=dtype).requires_grad_()
    leaves = x, made.weight, made.bias
    # The second gradient that comes back is a transposed one.
    for weight in (
        numbers(2, 17, 40, dtype=dtype),
        numbers(40, 17, 2, dtype=dtype).permute(2, 1, 0),
    ):
        of_found = torch.autograd.grad((made(x, dtype) * weight).sum(), leaves)
        of_expected = torch.autograd.grad((reference_linear(*leaves) * weight).sum(), leaves)
        for one, other in zip(of_found, of_expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_gradient_with_gaps_is_as_good(monkeypatch):
    monkeypatch.setattr(module, "_is_mkl_slow", lambda: True)
    made, x = layer(PANEL, 40), numbers(PANEL, 17).T.requires_grad_()
    weight = numbers(40, 17).T
    leaves = x, made.weight, made.bias
    of_found = torch.autograd.grad((made(x, x.dtype) * weight).sum(), leaves)
    of_expected = torch.autograd.grad((reference_linear(*leaves) * weight).sum(), leaves)
    for one, other in zip(of_found, of_expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("is_faster", [False, True])
def test_either_library_gives_the_product(monkeypatch, dtype, is_faster):
    if is_faster and not module._is_onednn_faster(torch.bfloat16):
        pytest.skip("this PyTorch has no oneDNN with bfloat16")
    monkeypatch.setattr(module, "_is_onednn_faster", lambda dtype: is_faster)
    made, x = layer(24, 40, torch.float32), numbers(3, 17, 24, dtype=torch.float32)
    x.requires_grad_()
    found = made(x, dtype)
    expected = reference_linear(x.double(), made.weight, made.bias)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    assert (found - expected).norm() <= tolerance * expected.norm()
    leaves = x, made.weight, made.bias
    of_found = torch.autograd.grad(found.double().square().sum(), leaves)
    of_expected = torch.autograd.grad(expected.square().sum(), leaves)
    for one, other in zip(of_found, of_expected, strict=True):
        assert (one - other).norm() <= tolerance * other.norm()
