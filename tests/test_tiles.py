"""Products in tiles, against numpy's."""

import numba
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.kernels.tiles import PANEL, multiply_panel, packed, padded


@numba.njit
def multiply(x, first, end, panels, y):
    for index in range(len(panels)):
        multiply_panel(x, first, end, panels[index], panels.shape[1], y, index * PANEL)


@settings(max_examples=40)
@given(st.integers(1, 13), st.integers(1, 70), st.integers(1, 200), st.data())
def test_some_rows_times_a_matrix_are_what_numpy_finds(n_rows, n_inputs, n_outputs, data):
    first = data.draw(st.integers(0, n_rows))
    end = data.draw(st.integers(first, n_rows))
    generator = np.random.default_rng(n_inputs)
    # Rows may be longer than what is multiplied.
    x = generator.standard_normal((n_rows, n_inputs + 3)).astype(np.float32)
    matrix = generator.standard_normal((n_outputs, n_inputs)).astype(np.float32)
    y = np.full((n_rows, padded(n_outputs) + 5), 7, np.float32)
    multiply(x, first, end, packed([torch.from_numpy(matrix)])[0], y)
    expected = x[first:end, :n_inputs].astype(np.float64) @ matrix.T.astype(np.float64)
    np.testing.assert_allclose(y[first:end, :n_outputs], expected, rtol=0, atol=2e-5)
    assert (y[first:end, n_outputs : padded(n_outputs)] == 0).all()
    assert (y[:, padded(n_outputs) :] == 7).all()
    assert (y[:first] == 7).all()
    assert (y[end:] == 7).all()


def test_the_order_of_the_rows_does_not_show_in_the_last_bits():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((6, 100)).astype(np.float32)
    matrix = generator.standard_normal((90, 100)).astype(np.float32)
    (panels,) = packed([torch.from_numpy(matrix)])
    together, alone = np.empty((2, 6, padded(90)), np.float32)
    multiply(x, 0, 6, panels, together)
    for row in range(6):
        multiply(x, row, row + 1, panels, alone)
    assert (together == alone).all()


def test_a_matrix_is_padded_with_zeroes_to_whole_panels():
    panels = packed([torch.ones(PANEL + 1, 2), torch.full((PANEL + 1, 2), 5.0)])
    assert panels.shape == (2, 2, 2, PANEL)
    assert panels.flags.c_contiguous
    assert panels[0, 1].sum() == 2
    assert panels[1].sum() == 5 * 2 * (PANEL + 1)
    assert padded(PANEL) == PANEL
    assert padded(PANEL + 1) == 2 * PANEL
