"""The learning rate over a run, against closed forms."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.training.schedule import Schedule, end_of_decay

SHAPES = ("constant", "linear", "cosine", "warmup_stable_decay")


def closed_form(shape, step, warmup, end, share, ratio):
    """The factor by the formula of each shape, written out for one step."""
    if step <= warmup:
        return step / warmup
    if shape == "constant":
        return 1.0
    if step >= end:
        return ratio
    if shape == "linear":
        return ((end - step) + ratio * (step - warmup)) / (end - warmup)
    if shape == "cosine":
        cosine = math.cos(math.pi * (step - warmup) / (end - warmup))
        return (1 + ratio) / 2 + (1 - ratio) / 2 * cosine
    # A decay that would begin in warm-up begins after it.
    start = max(warmup, round(end * (1 - share)))
    return 1.0 if step <= start else ((end - step) + ratio * (step - start)) / (end - start)


curves = st.tuples(
    st.sampled_from(SHAPES),
    st.integers(0, 50),
    st.integers(1, 200),
    st.floats(1e-6, 1),
    st.floats(0, 1),
).filter(lambda curve: curve[1] <= curve[2])


@given(curves, st.integers(1, 300))
def test_each_step_is_that_of_the_closed_form(curve, step):
    shape, *others = curve
    expected = closed_form(shape, step, *others)
    assert Schedule(*curve)(step) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(curves)
def test_it_rises_to_one_in_warm_up_and_never_rises_again(curve):
    _, warmup, end, _, ratio = curve
    factors = [Schedule(*curve)(step) for step in range(1, end + 20)]
    assert factors[:warmup] == sorted(factors[:warmup])
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(factors[warmup:]))
    assert all(0 <= factor <= 1 for factor in factors)
    if warmup:
        assert factors[warmup - 1] == 1
    if curve[0] != "constant" and end > warmup:
        assert set(factors[end - 1 :]) == {ratio}


def test_a_constant_one_without_warm_up_changes_no_bit():
    factors = {Schedule("constant", 0, 10, 0.2, 0.1)(step) for step in (1, 5, 10, 11)}
    assert factors == {1.0}


@pytest.mark.parametrize("warmup", [0, 1, 2])
@pytest.mark.parametrize("share", [1e-9, 0.2, 0.24, 0.26, 1.0])
def test_a_decay_of_less_than_a_step_falls_in_the_last_one(warmup, share):
    schedule = Schedule("warmup_stable_decay", warmup, 2, share, 0.25)
    assert schedule(3) == 0.25
    assert schedule(2) == (1 if warmup == 2 else 0.25)
    assert 0 < schedule(1) <= 1


def test_a_decay_that_would_begin_in_warm_up_begins_after_it():
    schedule = Schedule("warmup_stable_decay", 60, 100, 0.8, 0.0)
    assert [schedule(step) for step in (30, 60, 80, 100)] == [0.5, 1, 0.5, 0]


def test_the_stable_part_ends_where_the_share_begins():
    schedule = Schedule("warmup_stable_decay", 10, 100, 0.2, 0.0)
    assert [schedule(step) for step in (10, 50, 80, 90, 100)] == [1, 1, 1, 0.5, 0]


def test_the_end_is_the_last_step_where_none_is_given():
    assert end_of_decay(None, 5, 100) == 100
    assert end_of_decay(None, 500, 100) == 500
    assert end_of_decay(70, 5, 100) == 70
