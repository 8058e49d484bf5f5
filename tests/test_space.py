import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.search.space import Choice, Range, n_combinations, plain_space

RANGES = [
    Range(0.0, 0.3),
    Range(1e-4, 1e-2, is_log=True),
    Range(0, 20, is_integer=True),
    Range(8, 64, is_log=True, is_integer=True),
]


@pytest.mark.parametrize("one", RANGES)
@given(share=st.floats(0, 1))
def test_every_share_has_a_value_in_the_range(one, share):
    value = one.at(share)
    assert one.low <= value <= one.high
    assert isinstance(value, int) == one.is_integer


@pytest.mark.parametrize("one", RANGES)
@given(share=st.floats(0, 1))
def test_the_share_of_a_value_leads_back_to_it(one, share):
    value = one.at(share)
    assert one.at(one.share(value)) == pytest.approx(value)


def test_equal_shares_are_equal_ratios_in_logarithms():
    one = Range(1e-4, 1e-2, is_log=True)
    assert one.at(0.5) == pytest.approx(1e-3)
    assert one.share(1e-3) == pytest.approx(0.5)


def test_whole_numbers_have_equal_shares_each():
    one = Range(1, 4, is_integer=True)
    shares = [i / 1000 + 1 / 2000 for i in range(1000)]
    assert [sum(one.at(share) == n for share in shares) for n in (1, 2, 3, 4)] == [250] * 4


def test_combinations_are_counted_where_they_can_be():
    space = {"n_layers": Choice((1, 2, 4)), "warmup_steps": Range(0, 4, is_integer=True)}
    assert n_combinations(space) == 15
    assert n_combinations({**space, "dropout": Range(0.0, 0.5)}) is None


def test_a_space_is_told_as_a_study_states_it():
    space = {"dropout": Range(0.0, 0.5), "bias": Choice((True, False))}
    assert plain_space(space) == {
        "dropout": {"uniform": [0.0, 0.5]},
        "bias": {"choice": [True, False]},
    }


@pytest.mark.parametrize("one", RANGES)
def test_optuna_has_the_same_range(one):
    theirs = one.of_optuna()
    assert (theirs.low, theirs.high, theirs.log) == (one.low, one.high, one.is_log)
    assert theirs._contains(theirs.to_internal_repr(one.at(math.sqrt(0.5))))


def test_optuna_has_the_same_choices():
    assert Choice((None, "a", 2)).of_optuna().choices == (None, "a", 2)
