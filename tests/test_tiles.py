"""Products in tiles, against numpy's."""

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.kernels import tiles
from lm_core.kernels.tiles import PANEL, packed, padded


@numba.njit
def multiply(x, panels, y):
    tiles.multiply(x, panels, y)


@numba.njit
def multiply_and_add(x, panels, y):
    tiles.multiply_and_add(x, panels, y)


def panels_of(matrix):
    (panels,) = packed([torch.from_numpy(matrix.astype(np.float32))])
    return panels.astype(matrix.dtype)


@pytest.mark.parametrize(("dtype", "error"), [(np.float32, 2e-5), (np.float64, 1e-13)])
@settings(max_examples=40)
@given(st.integers(0, 13), st.integers(1, 70), st.integers(1, 200), st.booleans(), st.booleans())
def test_rows_times_a_matrix_are_what_numpy_finds(
    dtype, error, n_rows, n_inputs, n_outputs, is_across, adds
):
    generator = np.random.default_rng(n_inputs)
    # Rows may be longer than what is multiplied, and columns be what lies together.
    x = generator.standard_normal((n_rows, n_inputs + 3)).astype(dtype)
    x = np.asfortranarray(x) if is_across else x
    matrix = generator.standard_normal((n_outputs, n_inputs)).astype(np.float32).astype(dtype)
    y = np.full((n_rows + 2, padded(n_outputs) + 5), 7, dtype)
    (multiply_and_add if adds else multiply)(x, panels_of(matrix), y)
    expected = x[:, :n_inputs].astype(np.float64) @ matrix.T.astype(np.float64) + 7 * adds
    np.testing.assert_allclose(y[:n_rows, :n_outputs], expected, rtol=0, atol=error)
    assert (y[:n_rows, n_outputs : padded(n_outputs)] == 7 * adds).all()
    assert (y[:, padded(n_outputs) :] == 7).all()
    assert (y[n_rows:] == 7).all()


def test_some_of_the_inputs_may_be_taken():
    generator = np.random.default_rng(1)
    x, matrix = generator.standard_normal((5, 9)), generator.standard_normal((70, 30))
    matrix = matrix.astype(np.float32).astype(np.float64)
    y = np.empty((5, padded(70)))
    multiply(x, panels_of(matrix)[:, 4:13], y)
    np.testing.assert_allclose(y[:, :70], x @ matrix[:, 4:13].T, atol=1e-13)


def test_the_order_of_the_rows_does_not_show_in_the_last_bits():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((6, 100)).astype(np.float32)
    panels = panels_of(generator.standard_normal((90, 100)).astype(np.float32))
    together, alone = np.empty((2, 6, padded(90)), np.float32)
    multiply(x, panels, together)
    for row in range(6):
        multiply(x[row : row + 1], panels, alone[row : row + 1])
    assert (together == alone).all()


def test_a_matrix_is_padded_with_zeroes_to_whole_panels():
    panels = packed([torch.ones(PANEL + 1, 2), torch.full((PANEL + 1, 2), 5.0)])
    assert panels.shape == (2, 2, 2, PANEL)
    assert panels.flags.c_contiguous
    assert panels[0, 1].sum() == 2
    assert panels[1].sum() == 5 * 2 * (PANEL + 1)
    assert padded(PANEL) == PANEL
    assert padded(PANEL + 1) == 2 * PANEL
