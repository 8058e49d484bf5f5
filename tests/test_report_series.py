"""Curves thinned out and smoothed: what they say of their points stays true."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lm_core.report.series import series, smoothed

values = arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6))


@given(values)
def test_a_curve_of_few_points_keeps_all_of_them(array):
    steps = np.arange(1, len(array) + 1)
    curve = series(steps, array, most_points=60)
    assert curve.values.tolist() == array.tolist()
    assert curve.steps.tolist() == steps.tolist()
    assert curve.low is None


@given(values, st.integers(1, 20))
def test_buckets_keep_the_extremes_the_mean_and_the_last_step(array, most_points):
    steps = np.arange(1, len(array) + 1) * 7
    curve = series(steps, array, most_points)
    assert curve.n == len(array)
    assert len(curve.values) == min(len(array), most_points)
    assert curve.steps[-1] == steps[-1]
    if curve.low is not None:
        assert curve.low.min() == array.min()
        assert curve.high.max() == array.max()
        assert np.all(curve.low <= curve.values + 1e-6)
        assert np.all(curve.values <= curve.high + 1e-6)
        sizes = np.diff(curve.steps // 7, prepend=0)
        assert np.dot(sizes, curve.values) == pytest.approx(array.sum(), abs=1e-3)
        assert sizes.max() - sizes.min() <= 1


def test_lines_without_a_finite_number_are_left_out():
    curve = series(np.arange(1, 6), np.array([1.0, np.nan, np.inf, 4.0, -np.inf]), 10)
    assert (curve.steps.tolist(), curve.values.tolist(), curve.n) == ([1, 4], [1.0, 4.0], 2)


def test_nothing_is_a_curve_of_no_points():
    assert series(np.zeros(0), np.zeros(0), 10).n == 0
    assert len(smoothed(np.zeros(0), np.zeros(0), 5.0)) == 0


@given(values, st.floats(0.1, 1e4))
def test_an_average_is_that_of_the_formula(array, window):
    steps = np.arange(1, len(array) + 1)
    averages = smoothed(steps, array, window)
    for place in {0, len(array) // 2, len(array) - 1}:
        weights = np.exp((steps[: place + 1] - steps[place]) / window)
        expected = np.dot(weights, array[: place + 1]) / weights.sum()
        assert averages[place] == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_an_average_counts_steps_that_are_missing():
    averages = smoothed(np.array([1, 101]), np.array([0.0, 1.0]), 50.0)
    assert averages[1] == pytest.approx(1 / (1 + math.exp(-2)))


def test_no_window_leaves_the_values_as_they_are():
    array = np.array([1.0, 5.0, 2.0])
    assert smoothed(np.arange(3), array, 0.0).tolist() == array.tolist()
