import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.token_choice import ROUNDING_OF_LOGITS, TokenChoice

SETTINGS = [
    {},
    {"temperature": 0},
    {"temperature": 0.3},
    {"temperature": 1e-7},
    {"temperature": 5.0, "top_k": 3},
    {"top_k": 1},
    {"top_p": 0.7},
    {"top_p": 1.0},
    {"temperature": 0.5, "top_k": 4, "top_p": 0.9},
]


def choice(temperature=1.0, **settings):
    return TokenChoice(temperature, **settings)


def chosen(logits, **settings):
    """Which tokens are chosen from given logits, for draws all over the unit interval."""
    draws = (np.arange(20_000) + 0.5) / 20_000
    return choice(**settings)(np.tile(np.array(logits, dtype=float), (20_000, 1)), draws).tokens


def is_close(logits, draw, **settings):
    return bool(choice(**settings)(np.array([logits], dtype=float), np.array([draw])).are_close[0])


def test_temperature_zero_takes_the_likeliest():
    assert set(chosen([0.1, 3.0, 2.9], temperature=0)) == {1}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_their_probability_says(temperature):
    logits = np.array([0.0, 1.0, -1.0, 2.0])
    counts = np.bincount(chosen(logits, temperature=temperature), minlength=4)
    weights = np.exp(logits / temperature)
    np.testing.assert_allclose(counts / 20_000, weights / weights.sum(), atol=1e-4)


@pytest.mark.parametrize("temperature", [1e-300, 5e-324, 1e-9])
def test_a_tiny_temperature_is_like_zero_and_never_breaks(temperature):
    assert set(chosen([0.1, 3.0, 2.9], temperature=temperature)) == {1}


def test_a_huge_temperature_makes_all_tokens_alike():
    counts = np.bincount(chosen([0.0, 5.0], temperature=1e300))
    np.testing.assert_allclose(counts / 20_000, 0.5, atol=1e-3)


def test_top_k_keeps_the_k_likeliest_in_their_proportion():
    logits = [0.0, 1.0, 2.0, 3.0]
    counts = np.bincount(chosen(logits, top_k=2), minlength=4)
    assert counts[:2].tolist() == [0, 0]
    assert counts[3] / counts[2] == pytest.approx(math.e, rel=1e-3)
    assert set(chosen(logits, top_k=1)) == {3}
    assert set(chosen(logits, top_k=100)) == {0, 1, 2, 3}


def test_of_equal_tokens_at_the_edge_top_k_keeps_the_first():
    assert set(chosen([1.0, 1.0, 1.0], top_k=2)) == {0, 1}


def test_top_p_keeps_the_fewest_tokens_that_hold_the_probability():
    logits = np.log([0.15, 0.5, 0.05, 0.3])
    assert set(chosen(logits, top_p=0.4)) == {1}
    assert set(chosen(logits, top_p=0.6)) == {1, 3}
    assert set(chosen(logits, top_p=0.9)) == {0, 1, 3}
    assert set(chosen(logits, top_p=1.0)) == {0, 1, 2, 3}
    counts = np.bincount(chosen(logits, top_p=0.6))
    assert counts[1] / counts[3] == pytest.approx(5 / 3, rel=1e-3)


def test_top_p_works_on_what_top_k_leaves():
    logits = np.log([0.15, 0.5, 0.05, 0.3])
    # Of the two likeliest, the first holds 5/8.
    assert set(chosen(logits, top_k=2, top_p=0.6)) == {1}
    assert set(chosen(logits, top_k=2, top_p=0.7)) == {1, 3}


def test_a_token_that_is_ruled_out_is_never_chosen():
    assert set(chosen([-math.inf, 0.0, -math.inf, 0.0, -math.inf])) == {1, 3}


rows = st.lists(st.floats(-30, 30), min_size=1, max_size=9)


@settings(max_examples=200)
@given(st.lists(rows, min_size=2, max_size=4), st.sampled_from(SETTINGS), st.data())
def test_each_row_is_chosen_as_if_it_were_alone(logits, choosing, data):
    n = min(map(len, logits))
    logits = np.array([row[:n] for row in logits])
    unit = st.floats(0, 1, exclude_max=True)
    draws = np.array(data.draw(st.lists(unit, min_size=len(logits), max_size=len(logits))))
    choose = choice(**choosing)
    together = choose(logits, draws)
    for i in range(len(logits)):
        alone = choose(logits[i : i + 1], draws[i : i + 1])
        assert (alone.tokens[0], alone.are_close[0]) == (together.tokens[i], together.are_close[i])
        assert 0 <= alone.tokens[0] < n


@settings(max_examples=500)
@given(rows, st.floats(0, 1, exclude_max=True), st.sampled_from(SETTINGS), st.data())
def test_rounding_changes_no_token_that_is_not_close(row, draw, choosing, data):
    row = np.array([row])
    most = ROUNDING_OF_LOGITS * np.abs(row).max()
    shifts = st.floats(-1, 1).map(lambda share: share * most)
    rounding = np.array([data.draw(st.lists(shifts, min_size=row.size, max_size=row.size))])
    choose = choice(**choosing)
    before, after = choose(row, np.array([draw])), choose(row + rounding, np.array([draw]))
    assert before.are_close[0] or before.tokens[0] == after.tokens[0]


def test_what_is_close_is_told():
    logits = np.log([0.25, 0.25, 0.5])
    assert is_close(logits, 0.25)
    assert is_close(logits, np.nextafter(0.5, 0))
    assert not is_close(logits, 0.4)
    assert not is_close(logits, 0.0)
    assert not is_close(logits, np.nextafter(1, 0))
    assert is_close([1.0, 1.0, 0.0], 0.5, temperature=0)
    assert not is_close([1.0, 1.1, 0.0], 0.5, temperature=0)
    assert is_close([1.0, 1.0 + 1e-7, 0.0], 0.9, temperature=1e-9)
    assert is_close(logits, 0.9, top_k=2)
    assert not is_close(logits, 0.9, top_k=1)
    assert is_close(logits, 0.1, top_p=0.75)
    assert is_close(logits, 0.1, top_p=np.nextafter(0.75, 1))
    assert not is_close(logits, 0.1, top_p=0.8)


def test_two_logits_may_be_off_in_opposite_directions():
    assert is_close([1.0, 1.0 + 1.5 * ROUNDING_OF_LOGITS], 0.5, temperature=0)
    assert not is_close([1.0, 1.0 + 2.5 * ROUNDING_OF_LOGITS], 0.5, temperature=0)


def test_few_draws_are_close():
    logits = np.tile(np.random.default_rng(0).normal(size=128), (20_000, 1))
    draws = (np.arange(20_000) + 0.5) / 20_000
    assert choice()(logits, draws).are_close.mean() < 0.005
