"""Norms in one pass, against PyTorch's and against small differences."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck

from lm_core.model.norm import Norm, RMSNorm

EPSILON = 1e-5


def numbers(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def norm_of(width, dtype=torch.float64):
    norm = Norm(width, eps=EPSILON, dtype=dtype)
    with torch.no_grad():
        norm.weight.copy_(numbers(width, seed=1))
        norm.bias.copy_(numbers(width, seed=2))
    return norm


def rms_norm_of(width, dtype=torch.float64):
    norm = RMSNorm(width, eps=EPSILON, dtype=dtype)
    with torch.no_grad():
        norm.weight.copy_(numbers(width, seed=1))
    return norm


def formula(x, weight):
    """Of RMSNorm, as in the paper."""
    return x / (x.square().mean(-1, keepdim=True) + EPSILON).sqrt() * weight


def gradients(normed, other, leaves):
    """Of two weighted sums, so that no element is like another."""
    of_normed, of_other = (torch.linspace(-1, 1, x.numel()).view(x.shape) for x in (normed, other))
    total = (normed.double() * of_normed).sum() + (other.double() * of_other).sum()
    return torch.autograd.grad(total, leaves)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 70))
def test_values_and_gradients_are_those_of_pytorch(rows, width):
    norm, x = norm_of(width), numbers(*rows, width).requires_grad_()
    leaves = x, norm.weight, norm.bias
    normed, same = norm(x, torch.float64)
    expected = F.layer_norm(x, (width,), norm.weight, norm.bias, EPSILON)
    torch.testing.assert_close(normed, expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(same, x)
    for one, other in zip(
        gradients(normed, same, leaves), gradients(expected, x, leaves), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("n_rows", [1, 63, 64, 65, 200])
def test_any_number_of_rows_is_computed(n_rows):
    norm, x = norm_of(6), numbers(n_rows, 6).requires_grad_()
    leaves = x, norm.weight, norm.bias
    expected = F.layer_norm(x, (6,), norm.weight, norm.bias, EPSILON)
    for one, other in zip(
        gradients(*norm(x, torch.float64), leaves), gradients(expected, x, leaves), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_small_differences():
    norm, x = norm_of(5), numbers(2, 3, 5).requires_grad_()
    assert gradcheck(lambda x, *_: norm(x, torch.float64), (x, norm.weight, norm.bias))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 1e-2)])
def test_the_error_is_that_of_the_precision(dtype, tolerance):
    norm, x = norm_of(256, torch.float32), numbers(100, 256, dtype=torch.float32).requires_grad_()
    normed, same = norm(x, dtype)
    assert normed.dtype == dtype
    assert same.dtype == torch.float32
    leaves = x, norm.weight, norm.bias
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = F.layer_norm(exact[0], (256,), *exact[1:], EPSILON)
    assert (normed - expected).norm() < tolerance * expected.norm()
    for one, other in zip(
        gradients(normed, same, leaves), gradients(expected, exact[0], exact), strict=True
    ):
        assert one.dtype == torch.float32
        assert (one - other).norm() < tolerance * other.norm()


@pytest.mark.parametrize("make", [norm_of, rms_norm_of])
def test_in_bfloat16_the_result_is_that_of_float32_rounded(make):
    norm, x = make(64, torch.float32), numbers(30, 64, dtype=torch.float32)
    assert torch.equal(norm(x, torch.bfloat16)[0], norm(x, torch.float32)[0].bfloat16())


@pytest.mark.parametrize("used", [0, 1])
def test_only_one_of_both_may_have_a_gradient(used):
    norm, x = norm_of(4), numbers(3, 4).requires_grad_()
    expected = F.layer_norm(x, (4,), norm.weight, norm.bias, EPSILON), x
    (found,) = torch.autograd.grad(norm(x, torch.float64)[used].square().sum(), x)
    (truth,) = torch.autograd.grad(expected[used].square().sum(), x)
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [norm_of, rms_norm_of])
def test_other_layouts_are_as_good(make):
    norm, x = make(4), numbers(5, 3, 4)
    turned = x.transpose(0, 1)
    assert torch.equal(norm(turned, x.dtype)[0], norm(x, x.dtype)[0].transpose(0, 1))
    leaf = x.clone().requires_grad_()
    normed, same = norm(leaf, x.dtype)
    weight = numbers(4, 3, 5).permute(2, 1, 0)
    (found,) = torch.autograd.grad((normed * weight + same * weight).sum(), leaf)
    normed, same = norm(leaf, x.dtype)
    weight = weight.contiguous()
    assert torch.equal(found, torch.autograd.grad((normed * weight + same * weight).sum(), leaf)[0])


@pytest.mark.parametrize("shape", [(8,), (3, 8), (1, 3, 8), (2, 3, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [norm_of, rms_norm_of])
def test_gradients_with_gaps_are_as_good(make, shape, dtype):
    norm, x = make(8, torch.float32), numbers(*shape, dtype=torch.float32).requires_grad_()
    turned = numbers(*shape[::-1]).permute(*range(x.dim())[::-1])
    for weight in (torch.ones(()).expand(shape), turned):
        found = []
        for of_normed in (weight, weight.contiguous()):
            given_gradients = of_normed.to(dtype), of_normed.float()
            found.append(torch.autograd.grad(norm(x, dtype), x, given_gradients)[0])
        assert torch.equal(*found)


def test_weights_of_another_precision_are_left_to_pytorch():
    norm, x = norm_of(8, torch.bfloat16), numbers(3, 8, dtype=torch.bfloat16)
    expected = F.layer_norm(x, (8,), norm.weight, norm.bias, EPSILON)
    assert torch.equal(norm(x, torch.bfloat16)[0], expected)


@pytest.mark.parametrize("make", [norm_of, rms_norm_of])
def test_a_row_that_is_too_large_to_be_squared_is_no_number(make):
    x = torch.tensor([[1e30, -1e30, 1e29, 0.0], [1, 2, 3, 4]])
    normed, _ = make(4, torch.float32)(x, torch.float32)
    assert normed.isnan().all(1).tolist() == [True, False]


@pytest.mark.parametrize("make", [norm_of, rms_norm_of])
def test_a_row_that_is_not_finite_spoils_no_other(make):
    norm, x = make(8), numbers(3, 8)
    x[1, 2] = float("inf")
    normed, _ = norm(x, torch.float64)
    assert normed.isfinite().all(1).tolist() == [True, False, True]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_without_a_bias_the_bits_are_those_of_a_bias_of_zeros(dtype):
    own = torch.float64 if dtype == torch.float64 else torch.float32
    zeros, without = norm_of(24, own), Norm(24, eps=EPSILON, bias=False, dtype=own)
    with torch.no_grad():
        zeros.bias.zero_()
        without.weight.copy_(zeros.weight)
    found = []
    for norm in (zeros, without):
        x = numbers(70, 24, dtype=own).requires_grad_()
        normed, same = norm(x, dtype)
        found.append((normed, *gradients(normed, same, (x, norm.weight))))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_without_a_bias_there_is_no_such_parameter_and_gradients_are_right():
    norm = Norm(5, eps=EPSILON, bias=False, dtype=torch.float64)
    assert norm.bias is None
    assert [name for name, _ in norm.named_parameters()] == ["weight"]
    leaves = numbers(2, 3, 5).requires_grad_(), norm.weight
    assert gradcheck(lambda x, _: norm(x, torch.float64), leaves)


def test_without_a_bias_weights_of_another_precision_are_left_to_pytorch():
    norm, x = Norm(8, bias=False, dtype=torch.bfloat16), numbers(3, 8, dtype=torch.bfloat16)
    expected = F.layer_norm(x, (8,), norm.weight, None, norm.eps)
    assert torch.equal(norm(x, torch.bfloat16)[0], expected)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 9), max_size=3), st.integers(1, 70))
def test_rms_norm_has_values_and_gradients_of_its_formula(rows, width):
    norm, x = rms_norm_of(width), numbers(*rows, width).requires_grad_()
    leaves = x, norm.weight
    normed, same = norm(x, torch.float64)
    expected = formula(x, norm.weight)
    torch.testing.assert_close(normed, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(F.rms_norm(x, (width,), norm.weight, EPSILON), expected)
    assert torch.equal(same, x)
    for one, other in zip(
        gradients(normed, same, leaves), gradients(expected, x, leaves), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n_rows", [1, 63, 64, 65, 200])
def test_rms_norm_adds_up_the_gradients_of_any_number_of_rows(n_rows):
    norm, x = rms_norm_of(6), numbers(n_rows, 6).requires_grad_()
    leaves = x, norm.weight
    for one, other in zip(
        gradients(*norm(x, torch.float64), leaves),
        gradients(formula(x, norm.weight), x, leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_rms_norm_has_gradients_of_small_differences_and_one_parameter():
    norm, x = rms_norm_of(5), numbers(2, 3, 5).requires_grad_()
    assert [name for name, _ in norm.named_parameters()] == ["weight"]
    assert norm.eps == EPSILON
    assert gradcheck(lambda x, _: norm(x, torch.float64), (x, norm.weight))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_the_error_of_rms_norm_is_that_of_the_precision(dtype, tolerance):
    norm = rms_norm_of(256, torch.float32)
    x = numbers(100, 256, dtype=torch.float32).requires_grad_()
    normed, same = norm(x, dtype)
    assert (normed.dtype, same.dtype) == (dtype, torch.float32)
    leaves = x, norm.weight
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = formula(*exact)
    assert (normed - expected).norm() < tolerance * expected.norm()
    for one, other in zip(
        gradients(normed, same, leaves), gradients(expected, exact[0], exact), strict=True
    ):
        assert one.dtype == torch.float32
        assert (one - other).norm() < tolerance * other.norm()


@pytest.mark.parametrize("used", [0, 1])
def test_only_one_of_both_of_rms_norm_may_have_a_gradient(used):
    norm, x = rms_norm_of(4), numbers(3, 4).requires_grad_()
    (found,) = torch.autograd.grad(norm(x, torch.float64)[used].square().sum(), x)
    expected = formula(x, norm.weight), x
    (truth,) = torch.autograd.grad(expected[used].square().sum(), x)
    torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-12)


def test_rms_norm_of_another_precision_is_left_to_pytorch():
    norm, x = rms_norm_of(8, torch.bfloat16), numbers(3, 8, dtype=torch.bfloat16)
    expected = F.rms_norm(x, (8,), norm.weight, EPSILON)
    assert torch.equal(norm(x, torch.bfloat16)[0], expected)


@pytest.mark.parametrize("make", [norm_of, rms_norm_of])
def test_what_has_shapes_alone_gets_shapes(make):
    with FakeTensorMode(), torch.device("cpu"):
        normed, same = make(8, torch.float32)(torch.zeros(3, 5, 8), torch.bfloat16)
    assert (normed.shape, normed.dtype) == ((3, 5, 8), torch.bfloat16)
    assert same.shape == (3, 5, 8)
    with torch.device("meta"):
        normed, _ = make(8, torch.float32)(torch.zeros(3, 5, 8), torch.bfloat16)
    assert (normed.shape, normed.dtype) == ((3, 5, 8), torch.bfloat16)
