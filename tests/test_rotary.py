"""What happens to queries and keys before attention, against plain operations and its laws."""

import itertools
import math

import numba
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck

from lm_core.errors import InputError
from lm_core.kernels.rotary import prepare_head
from lm_core.model.rotary import HEAD_NORM_EPSILON, prepared, reference_prepared, rotations

# Norm of the error over the norm of what is exact: bfloat16 has eight bits, float32 has 24.
TOLERANCES = {torch.float32: 2e-7, torch.bfloat16: 3e-3}
# Whether it rotates, and whether it norms.
CHOICES = [(True, False), (False, True), (True, True)]

sizes = st.tuples(
    st.integers(1, 3), st.integers(1, 20), st.integers(1, 3), st.integers(1, 9).map(lambda n: 2 * n)
)


def numbers(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def projected(batch, time, n_heads, d_head, dtype=torch.float64, seed=0):
    return numbers(batch, time, 3 * n_heads * d_head, dtype=dtype, seed=seed).requires_grad_()


def heads(x, n_heads):
    """Queries, keys and values, each ``(batch, time, n_heads, d_head)``."""
    return x.unflatten(-1, (3, n_heads, -1)).unbind(2)


def of_weighted_sum(y, x):
    """The gradient of a sum in which no element is like another."""
    weight = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape)
    return torch.autograd.grad(y, x, weight.to(y.dtype))[0]


@pytest.mark.parametrize("choice", CHOICES)
@settings(max_examples=30)
@given(size=sizes, first=st.integers(0, 40))
@example(size=(2, 65, 3, 34), first=1000)
def test_values_and_gradients_are_those_of_plain_operations(choice, size, first):
    x, n_heads = projected(*size), size[2]
    found = prepared(x, n_heads, first, *choice)
    expected = reference_prepared(x, n_heads, first, *choice)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(
        of_weighted_sum(found, x), of_weighted_sum(expected, x), rtol=1e-11, atol=1e-12
    )


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("path", [prepared, reference_prepared])
def test_gradients_are_those_of_small_differences(path, choice):
    assert gradcheck(lambda x: path(x, 2, 3, *choice), projected(2, 3, 2, 4))


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_error_is_that_of_the_precision(dtype, choice):
    x = projected(3, 70, 3, 32, dtype)
    exact = x.detach().double().requires_grad_()
    found = prepared(x, 3, 500, *choice)
    expected = reference_prepared(exact, 3, 500, *choice)
    gradients = of_weighted_sum(found, x), of_weighted_sum(expected, exact)
    assert found.dtype == gradients[0].dtype == dtype
    for value, truth in ((found, expected), gradients):
        assert (value.double() - truth).norm() < TOLERANCES[dtype] * truth.norm()


@pytest.mark.parametrize("choice", CHOICES)
def test_in_bfloat16_the_result_is_that_of_float32_rounded_once(choice):
    x = projected(2, 33, 2, 16, torch.bfloat16)
    wide = x.detach().float().requires_grad_()
    found, exact = prepared(x, 2, 7, *choice), prepared(wide, 2, 7, *choice)
    assert torch.equal(found, exact.bfloat16())
    weight = numbers(*x.shape, dtype=torch.bfloat16, seed=1)
    (of_x,) = torch.autograd.grad(found, x, weight)
    (of_wide,) = torch.autograd.grad(exact, wide, weight.float())
    assert torch.equal(of_x, of_wide.bfloat16())


@settings(max_examples=40)
@given(
    half=st.integers(1, 32),
    query=st.integers(0, 500),
    key=st.integers(0, 500),
    shift=st.integers(0, 5000),
)
def test_products_of_queries_and_keys_depend_only_on_how_far_apart_they_are(
    half, query, key, shift
):
    x = projected(1, 1, 1, 2 * half).detach()

    def product(query, key):
        q, _, _ = heads(prepared(x, 1, query), 1)
        _, k, _ = heads(prepared(x, 1, key), 1)
        return (q * k).sum()

    torch.testing.assert_close(
        product(query, key), product(query + shift, key + shift), rtol=1e-9, atol=1e-9
    )


@settings(max_examples=30)
@given(size=sizes, first=st.integers(0, 10_000))
def test_a_rotation_keeps_the_norm_of_each_head(size, first):
    x = projected(*size).detach()
    rotated = prepared(x, size[2], first)
    for before, after in zip(heads(x, size[2]), heads(rotated, size[2]), strict=True):
        torch.testing.assert_close(after.norm(dim=-1), before.norm(dim=-1))


def test_the_first_position_is_not_rotated_and_the_second_by_the_angles_of_the_paper():
    x = projected(1, 2, 1, 4).detach()
    q, _, _ = heads(x, 1)
    found, _, _ = heads(prepared(x, 1), 1)
    assert torch.equal(found[0, 0], q[0, 0])
    a, b, c, d = q[0, 1, 0].tolist()
    expected = [
        a * math.cos(1) - c * math.sin(1),
        b * math.cos(0.01) - d * math.sin(0.01),
        c * math.cos(1) + a * math.sin(1),
        d * math.cos(0.01) + b * math.sin(0.01),
    ]
    torch.testing.assert_close(found[0, 1, 0].tolist(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("path", [prepared, reference_prepared])
@settings(max_examples=20)
@given(time=st.integers(2, 90), share=st.floats(0, 1), norms=st.booleans())
def test_a_sequence_that_is_cut_has_the_bits_of_the_whole(path, dtype, time, share, norms):
    cut = 1 + int(share * (time - 2))
    x = projected(2, time, 2, 6, dtype).detach()
    whole = path(x, 2, norms=norms)
    parts = path(x[:, :cut], 2, norms=norms), path(x[:, cut:], 2, cut, norms=norms)
    assert torch.equal(torch.cat(parts, 1), whole)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("path", [prepared, reference_prepared])
def test_values_and_their_gradients_keep_their_bits(path, dtype, choice):
    x = projected(2, 5, 3, 8, dtype).detach()
    x[0, 0, -1], x[0, 1, -1] = math.nan, -math.inf
    leaf = x.clone().requires_grad_()
    y = path(leaf, 3, 2, *choice)
    weight = numbers(*x.shape, dtype=dtype, seed=1)
    (gradient,) = torch.autograd.grad(y, leaf, weight)
    for found, same in ((y.detach(), x), (gradient, weight)):
        bits = (tensor[..., 48:].contiguous().view(torch.int16) for tensor in (found, same))
        assert torch.equal(*bits)


@pytest.mark.parametrize("path", [prepared, reference_prepared])
def test_normed_heads_have_a_root_mean_square_of_one(path):
    x = projected(2, 9, 3, 7).detach() * 100
    q, k, _ = heads(path(x, 3, rotates=False, norms=True), 3)
    for part in (q, k):
        roots = part.square().mean(-1).sqrt()
        torch.testing.assert_close(roots, torch.ones_like(roots), rtol=1e-6, atol=0)


def test_a_head_of_zeros_stays_so_and_one_that_is_too_large_to_be_squared_is_no_number():
    x = projected(1, 1, 3, 4, torch.float32).detach()
    x[..., :4], x[..., 4:8] = 0, 1e30
    q, k, v = heads(prepared(x, 3, 5, norms=True), 3)
    assert q[0, 0, 0].tolist() == [0, 0, 0, 0]
    assert q[0, 0, 1].isnan().all()
    assert torch.cat([q[0, 0, 2:], k[0, 0], v[0, 0]]).isfinite().all()


def test_without_anything_to_do_it_returns_what_it_was_given():
    x = projected(1, 2, 1, 3)
    assert prepared(x, 1, rotates=False) is x


def test_heads_of_an_odd_width_are_normed_but_not_rotated():
    x = projected(1, 2, 2, 3)
    with pytest.raises(InputError, match="d_head is 3"):
        prepared(x, 2)
    assert prepared(x, 2, rotates=False, norms=True).isfinite().all()


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gaps_in_what_is_given_change_nothing(dtype, choice):
    x = projected(4, 9, 2, 6, dtype).detach()
    turned = x.transpose(0, 1).contiguous().transpose(0, 1)
    gaps = numbers(4, 18, 36, dtype=dtype)[:, ::2].copy_(x)
    for same in (turned, gaps, torch.nn.Parameter(x.clone())):
        assert torch.equal(prepared(same, 2, 1, *choice), prepared(x, 2, 1, *choice))
    leaf = x.clone().requires_grad_()
    everywhere = torch.ones((), dtype=dtype).expand(x.shape)
    for weight in (everywhere, numbers(36, 9, 4, dtype=dtype).permute(2, 1, 0)):
        found, expected = (
            torch.autograd.grad(prepared(leaf, 2, 1, *choice), leaf, own)[0]
            for own in (weight, weight.contiguous())
        )
        assert torch.equal(found, expected)


@pytest.mark.parametrize("choice", CHOICES)
def test_what_is_given_stays_as_it_was(choice):
    x = projected(2, 5, 2, 4, torch.float32)
    before, weight = x.detach().clone(), numbers(2, 5, 24, dtype=torch.float32)
    weight_before = weight.clone()
    prepared(x, 2, 0, *choice).backward(weight)
    assert torch.equal(x.detach(), before)
    assert torch.equal(weight, weight_before)


def test_a_rotation_keeps_nothing_for_backward_and_a_norm_no_more_than_its_input():
    for choice, most in ((CHOICES[0], 0), (CHOICES[1], 1), (CHOICES[2], 1)):
        kept, x = [], projected(1, 30, 2, 4, torch.float32)
        with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda x: x):
            prepared(x, 2, 0, *choice)
        assert sum(tensor.numel() for tensor in kept) == most * x.numel()


@pytest.mark.parametrize("choice", CHOICES)
def test_what_has_no_compiled_loop_is_left_to_plain_operations(choice):
    x = projected(2, 9, 2, 4, torch.float16)
    assert torch.equal(prepared(x, 2, 3, *choice), reference_prepared(x, 2, 3, *choice))
    assert prepared(x.to("meta"), 2, 3, *choice).shape == x.shape


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("shape", [(2, 3, 24), (0, 3, 24), (2, 0, 24)])
def test_what_has_shapes_alone_or_no_elements_gets_its_shape(shape, choice):
    assert prepared(torch.zeros(shape), 2, 0, *choice).shape == shape
    with FakeTensorMode():
        x = torch.zeros(shape, requires_grad=True)
        for path in (prepared, reference_prepared):
            assert path(x, 2, 11, *choice).shape == shape
    # What was computed without content has left nothing behind.
    for path in (prepared, reference_prepared):
        assert path(torch.ones(shape), 2, 11, *choice).isfinite().all()


@numba.njit
def _prepare(vector, cosines, sines, norms, rotates, epsilon):
    prepare_head(vector, cosines, sines, norms, rotates, epsilon)


@pytest.mark.parametrize("choice", [*CHOICES, (False, False)])
def test_a_single_head_is_prepared_in_its_place(choice):
    rotates, norms = choice
    x = projected(1, 1, 2, 8, torch.float32).detach()
    memory = x[0, 0].clone().numpy()
    cosines, sines = (table[0] for table in rotations(300, 1, 8, torch.float32))
    for first in (0, 8, 16, 24):
        vector = memory[first : first + 8]
        _prepare(vector, cosines, sines, norms, rotates, np.float32(HEAD_NORM_EPSILON))
    expected = prepared(x, 2, 300, *choice)[0, 0]
    torch.testing.assert_close(torch.from_numpy(memory), expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=30)
@given(first=st.integers(0, 3000), n=st.integers(1, 300), half=st.integers(1, 20))
def test_angles_are_rounded_once_and_do_not_depend_on_what_else_is_asked_for(first, n, half):
    for dtype, name in itertools.product((torch.float32, torch.float64), ("cos", "sin")):
        found = rotations(first, n, 2 * half, dtype)[name == "sin"]
        assert found.shape == (n, half)
        assert found.dtype.name == str(dtype).removeprefix("torch.")
        rates = [10_000 ** (-i / half) for i in range(half)]
        function = getattr(math, name)
        last = [function((first + n - 1) * rate) for rate in rates]
        # Of an angle of some thousand radians, the last place of a float64 is 1e-12.
        tolerance = 1e-11 + np.finfo(found.dtype).eps / 2
        assert np.abs(found[-1] - last).max() < tolerance
        assert np.array_equal(
            found[-1:], rotations(first + n - 1, 1, 2 * half, dtype)[name == "sin"]
        )
