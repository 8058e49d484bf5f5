"""The functions of numbers in kernels, against exact ones."""

import math

import numba
import numpy as np
import torch

from lm_core.kernels import numbers
from lm_core.kernels.numbers import exp, narrowed, normal, room, sigmoid, widened

# Units of the last place of a float32, as a share of it.
LAST_PLACE = 2.0**-23


@numba.njit
def exps(x):
    return np.array([exp(value) for value in x])


@numba.njit
def widened_all(x):
    return np.array([widened(value) for value in x])


@numba.njit
def narrowed_all(x, like):
    y = np.empty_like(like)
    for i in range(len(x)):
        y[i] = narrowed(x[i], like)
    return y


@numba.njit
def room_for(n, like):
    return room(n, like)


def bfloat16_of(x):
    return torch.from_numpy(x).bfloat16().view(torch.uint16).numpy()


def test_all_numbers_of_bfloat16_become_those_of_float32_and_back():
    bits = np.arange(2**16, dtype=np.uint16)
    numbers = torch.from_numpy(bits).view(torch.bfloat16).float().numpy()
    found = widened_all(bits)
    assert np.array_equal(found.view(np.uint32), numbers.view(np.uint32))
    is_number = ~np.isnan(numbers)
    assert np.array_equal(narrowed_all(found, bits)[is_number], bits[is_number])
    assert np.isnan(widened_all(narrowed_all(found, bits))[~is_number]).all()


def test_a_float32_becomes_the_nearest_bfloat16_as_pytorch_rounds_it():
    around = np.arange(2**16, dtype=np.uint32) << 16
    x = np.concatenate([around + offset for offset in (1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])
    x = x.astype(np.uint32).view(np.float32)
    is_number = ~np.isnan(x)
    found = narrowed_all(x, np.empty(len(x), np.uint16))
    assert np.array_equal(found[is_number], bfloat16_of(x)[is_number])
    assert np.isnan(widened_all(found[~is_number])).all()


def test_other_numbers_stay_as_they_are():
    for dtype in (np.float32, np.float64):
        x = np.array([0.1, -3.7], dtype)
        assert np.array_equal(widened_all(x), x)
        assert np.array_equal(narrowed_all(x, x), x)
        assert room_for(3, x).dtype == dtype
    assert room_for(3, np.zeros(1, np.uint16)).dtype == np.float32


@numba.njit
def normals(x):
    return [normal(value) for value in x]


def test_the_exponential_is_exact_to_two_units_of_the_last_place():
    x = np.linspace(-87, 88, 1_000_001, dtype=np.float32)
    exact = np.exp(x.astype(np.float64))
    assert exps(x).dtype == np.float32
    assert (np.abs(exps(x) - exact) / exact).max() < 2 * LAST_PLACE


def test_what_is_too_small_is_nothing_and_what_is_none_stays_none():
    x = np.array([0, -87.1, -1e30, -math.inf, math.nan], dtype=np.float32)
    assert exps(x)[:4].tolist() == [1, 0, 0, 0]
    assert np.isnan(exps(x)[4])


def test_in_float64_the_exponential_is_numpy_s():
    x = np.linspace(-700, 700, 1001)
    np.testing.assert_allclose(exps(x), np.exp(x), rtol=1e-15)
    assert exp(1.0) == math.e


def test_density_and_share_of_the_normal_distribution_are_exact_to_three_ten_millionths():
    x = np.linspace(-12, 12, 20_001).astype(np.float32)
    density, share = np.array(normals(x)).T
    exact = x.astype(np.float64)
    np.testing.assert_allclose(density, np.exp(-(exact**2) / 2) / math.sqrt(2 * math.pi), atol=1e-7)
    expected = [math.erfc(-value / math.sqrt(2)) / 2 for value in exact]
    np.testing.assert_allclose(share, expected, atol=3e-7, rtol=0)


def test_in_float64_they_are_exact():
    for x in (-30.0, -1.5, 0.0, 0.3, 9.0):
        density, share = normals(np.array([x]))[0]
        assert (density, share) == numbers._normal_in_float64.py_func(x) == normal(x)
        assert share == 0.5 * math.erfc(-x / math.sqrt(2))


@numba.njit
def sigmoids(x):
    return np.array([sigmoid(value) for value in x])


def test_the_sigmoid_is_exact_to_the_precision_and_never_overflows():
    x = np.linspace(-86, 86, 100_001)
    for dtype in (np.float32, np.float64):
        exact = torch.from_numpy(x.astype(dtype).astype(np.float64)).sigmoid().numpy()
        found = sigmoids(x.astype(dtype))
        assert found.dtype == dtype
        assert (np.abs(found - exact) / exact).max() < 4 * np.finfo(dtype).eps
    for dtype in (np.float32, np.float64):
        assert sigmoids(np.array([-1e30, 1e30, -np.inf, np.inf], dtype)).tolist() == [0, 1, 0, 1]
        assert np.isnan(sigmoids(np.array([np.nan], dtype))).all()
    assert sigmoid(0.0) == 1 / 2
