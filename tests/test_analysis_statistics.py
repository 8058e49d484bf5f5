"""What a few results show: intervals that hold what they promise, and no winner out of noise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.analysis.statistics import difference, student_factor, summarise

losses = st.floats(0.1, 20.0)


@pytest.mark.parametrize(
    ("freedom", "factor"),
    # Student 1908, as in any table of the distribution, two-sided.
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (1000, 1.962)],
)
def test_students_factors_are_those_of_the_tables(freedom, factor):
    assert student_factor(freedom) == pytest.approx(factor, abs=5e-4)


def test_another_confidence_has_another_factor():
    assert student_factor(10, 0.99) == pytest.approx(3.169, abs=5e-4)


@given(st.lists(losses, min_size=2, max_size=20))
def test_an_interval_lies_within_the_results_and_around_their_mean(values):
    summary = summarise(values)
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.sd == pytest.approx(np.std(values, ddof=1))
    slack = 1e-9
    assert min(values) - slack <= summary.low <= summary.mean + slack
    assert summary.mean - slack <= summary.high <= max(values) + slack


def test_one_result_has_no_interval():
    assert summarise([2.0]) == (1, 2.0, None, None, None)


def test_the_same_results_have_the_same_interval_every_time():
    assert summarise([1.0, 2.0, 4.0]) == summarise([1.0, 2.0, 4.0])


def test_the_bootstrap_interval_of_many_results_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(5.0, 2.0, size=400)
    summary = summarise(values)
    half = 1.96 * summary.sd / math.sqrt(400)
    assert summary.low == pytest.approx(summary.mean - half, abs=0.1 * half)
    assert summary.high == pytest.approx(summary.mean + half, abs=0.1 * half)


def test_results_of_common_seeds_are_compared_pair_by_pair():
    first = {1: 2.0, 2: 3.0, 3: 4.0}
    found = difference(first, {seed: loss - 0.1 for seed, loss in first.items()})
    assert (found.n, found.is_paired, found.exceeds_noise) == (3, True, True)
    assert found.mean == pytest.approx(-0.1)
    # Without the pairs, seeds that differ by 1 hide it.
    other = difference(first, {seed + 10: loss - 0.1 for seed, loss in first.items()})
    assert (other.is_paired, other.exceeds_noise) == (False, False)


def test_the_paired_interval_is_students():
    found = difference({1: 0.0, 2: 0.0, 3: 0.0}, {1: 1.0, 2: 2.0, 3: 3.0})
    half = 4.30265 / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-4)
    assert found.exceeds_noise is False


def test_only_seeds_that_both_have_make_pairs():
    first = dict.fromkeys(range(5), 1.0)
    second = dict.fromkeys(range(2, 9), 2.0)
    assert difference(first, second).n == 3


def test_a_few_common_seeds_do_not_throw_the_other_results_away():
    generator = np.random.default_rng(2)
    first = dict(enumerate(generator.normal(2.0, 0.1, size=20)))
    second = dict(enumerate(generator.normal(2.2, 0.1, size=20), start=17))
    found = difference(first, second)
    assert (found.n, found.is_paired, found.exceeds_noise) == (20, False, True)
    means = [np.mean([*group.values()]) for group in (first, second)]
    assert found.mean == pytest.approx(means[1] - means[0])


def test_with_as_many_common_seeds_as_others_pairs_are_compared():
    first = {seed: 1.0 + seed for seed in range(6)}
    second = {seed: 1.5 + seed for seed in range(3, 9)}
    assert difference(first, second).is_paired


@pytest.mark.parametrize(
    ("first", "second"),
    [({1: 1.0}, {1: 2.0}), ({1: 1.0, 2: 1.0}, {1: 2.0, 2: 2.0}), ({1: 1.0, 2: 1.0}, {3: 9.0})],
)
def test_too_few_results_name_no_winner(first, second):
    found = difference(first, second)
    assert found.exceeds_noise is None
    assert found.low is None
    assert found.mean > 0


def test_the_unpaired_interval_is_welchs():
    # Degrees of freedom 4.41, rounded down.
    one, other = [1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0]
    found = difference(dict(enumerate(one)), dict(enumerate(other, start=10)))
    error = math.sqrt(np.var(one, ddof=1) / 4 + np.var(other, ddof=1) / 4)
    weights = [(np.var(v, ddof=1) / 4) ** 2 / 3 for v in (one, other)]
    freedom = math.floor(error**4 / sum(weights))
    half = student_factor(freedom) * error
    assert freedom == 4
    assert (found.low, found.high) == pytest.approx((2.5 - half, 2.5 + half))


def test_noise_alone_exceeds_the_noise_as_seldom_as_the_confidence_says():
    generator = np.random.default_rng(3)
    n_exceeding = 0
    for _ in range(2000):
        one, other = generator.normal(size=(2, 3))
        first, second = dict(enumerate(one)), dict(enumerate(other))
        n_exceeding += difference(first, second).exceeds_noise
    assert 0.03 < n_exceeding / 2000 < 0.07


@given(st.dictionaries(st.integers(0, 5), losses, min_size=1), st.floats(0.5, 0.999))
def test_a_group_does_not_differ_from_itself(results, confidence):
    found = difference(results, results, confidence)
    assert found.mean == 0
    assert not found.exceeds_noise


@given(
    st.dictionaries(st.integers(0, 9), losses, min_size=1),
    st.dictionaries(st.integers(0, 9), losses, min_size=1),
)
def test_the_order_of_two_groups_only_turns_the_sign(first, second):
    one, other = difference(first, second), difference(second, first)
    assert one.mean == pytest.approx(-other.mean, abs=1e-12)
    assert (one.n, one.exceeds_noise) == (other.n, other.exceeds_noise)


def test_groups_of_equal_results_that_differ_differ():
    found = difference({1: 1.0, 2: 1.0, 3: 1.0}, {11: 2.0, 12: 2.0, 13: 2.0})
    assert (found.low, found.high, found.exceeds_noise) == (1.0, 1.0, True)
