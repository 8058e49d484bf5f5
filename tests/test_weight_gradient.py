"""Gradients of weights and biases from tiles, against the plain product and the plain sum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.kernels.tiles import PANEL
from lm_core.kernels.weight_gradient import is_for, weight_gradient


def numbers(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_right(of_outputs, inputs, n_threads=2):
    """Against float64; what is lost is that of sums over the rows."""
    of_weight, of_bias = weight_gradient(of_outputs, inputs, n_threads)
    exact, exact_inputs = of_outputs.astype(np.float64), inputs.astype(np.float64)
    lost = 4 * np.finfo(inputs.dtype).eps * len(inputs) ** 0.5
    scale = np.sqrt((exact**2).sum(0))[:, None] * np.sqrt((exact_inputs**2).sum(0))
    assert (np.abs(of_weight - exact.T @ exact_inputs) <= lost * scale).all()
    assert (np.abs(of_bias - exact.sum(0)) <= lost * np.abs(exact).sum(0)).all()
    assert of_weight.dtype == of_bias.dtype == inputs.dtype


@settings(max_examples=40)
@given(st.integers(1, 300), st.integers(1, 150), st.integers(1, 5), st.integers(1, 40))
def test_any_sizes_of_whole_panels_are_computed(n_rows, n_outputs, n_panels, n_threads):
    assert_right(numbers(n_rows, n_outputs), numbers(n_rows, n_panels * PANEL, seed=1), n_threads)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layer_of_common_size_is_computed_in_either_precision(dtype):
    assert_right(numbers(2048, 768, dtype=dtype), numbers(2048, 256, seed=1, dtype=dtype))


def test_the_result_does_not_depend_on_the_number_of_threads():
    given_numbers = numbers(500, 300), numbers(500, 3 * PANEL, seed=1)
    one, many = (weight_gradient(*given_numbers, n_threads) for n_threads in (1, 64))
    assert all(np.array_equal(a, b) for a, b in zip(one, many, strict=True))


def test_sums_over_many_rows_keep_what_is_small():
    """One after the other, ones would no longer count beside 2**24."""
    of_outputs, inputs = np.ones((2**16, 1), np.float32), np.ones((2**16, PANEL), np.float32)
    of_outputs[0] = 2**24
    _, of_bias = weight_gradient(of_outputs, inputs, 1)
    assert of_bias[0] == pytest.approx(2**24 + 2**16 - 1, abs=2**9)


def test_what_is_not_finite_stays_so_where_it_belongs():
    of_outputs, inputs = numbers(10, 3), numbers(10, PANEL, seed=1)
    of_outputs[4, 1] = np.nan
    of_weight, of_bias = weight_gradient(of_outputs, inputs, 1)
    assert np.isnan(of_weight[1]).all()
    assert np.isnan(of_bias).tolist() == [False, True, False]
    assert np.isfinite(of_weight[[0, 2]]).all()


def test_it_is_for_whole_panels_of_numbers_that_it_computes_with():
    assert is_for("float32", 3 * PANEL)
    assert is_for("float64", PANEL)
    assert not is_for("float32", PANEL + 1)
    assert not is_for("bfloat16", PANEL)
