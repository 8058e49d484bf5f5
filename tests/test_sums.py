"""Sums of rows against those in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm_core.kernels.sums import SUM_OF_ROWS
from lm_core.kernels.tensors import computed_in, numbers_of, type_of


def summed(rows):
    sums = torch.full(rows.shape[1:], torch.nan, dtype=computed_in(rows.dtype))
    SUM_OF_ROWS[type_of(rows.dtype)](numbers_of(rows), numbers_of(sums))
    return sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@given(n_rows=st.integers(0, 200), width=st.integers(1, 70), seed=st.integers(0, 99))
def test_the_sum_of_all_rows_is_the_exact_one(dtype, n_rows, width, seed):
    rows = np.random.default_rng(seed).standard_normal((n_rows, width))
    rows = torch.from_numpy(rows).to(dtype)
    found = summed(rows)
    error = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(found.double(), rows.double().sum(0), rtol=error, atol=error)


def test_small_numbers_count_beside_a_large_sum():
    rows = torch.ones(2**16, 3)
    rows[0] = 2**24
    # One by one, each of them would be lost.
    assert (summed(rows) > 2**24 + 2**15).all()


def test_what_is_no_number_shows():
    rows = torch.zeros(100, 5)
    rows[70, 2] = torch.nan
    rows[99, 4] = torch.inf
    assert summed(rows)[:4].isnan().tolist() == [False, False, True, False]
    assert summed(rows)[4] == torch.inf
