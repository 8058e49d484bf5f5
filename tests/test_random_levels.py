"""The hash against its reference, and its numbers against chance."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.model.random_levels import KEY_WORDS, random_levels, reference_random_levels
from lm_core.randomness import keyed_words

# A standard deviation further away, and less than one in a million would be by chance.
SIGMAS = 5


def keys(n_rows, seed=1, step=1):
    rows = [keyed_words(KEY_WORDS, seed, "dropout", step, 0, row) for row in range(n_rows)]
    return np.stack(rows)


def levels(n_rows, n_levels, **key):
    return random_levels(keys(n_rows, **key), n_levels).numpy()


def assert_uniform(values, n_bins):
    """Chi-square, whose mean is ``n_bins - 1``, and whose variance is twice that."""
    counts = np.bincount(values, minlength=n_bins)
    expected = len(values) / n_bins
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - (n_bins - 1)) < SIGMAS * math.sqrt(2 * (n_bins - 1))


def unsigned(values):
    return values.astype(np.int64).ravel() + 2**15


@settings(max_examples=40)
@given(
    st.lists(
        st.lists(st.integers(0, 2**32 - 1), min_size=KEY_WORDS, max_size=KEY_WORDS),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 50),
)
def test_the_numbers_are_those_of_the_reference(rows, n_levels):
    given_keys = np.array(rows, dtype=np.uint32)
    found = random_levels(given_keys, n_levels)
    assert found.dtype == torch.int16
    assert np.array_equal(found.numpy(), reference_random_levels(given_keys, n_levels))


def test_a_longer_row_begins_as_the_shorter_one():
    assert np.array_equal(levels(3, 41)[:, :17], levels(3, 17))


def test_every_number_of_16_bits_is_as_likely():
    assert_uniform(unsigned(levels(16, 2**18)), 2**16)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 64, 128, 256, 1024, 2**15])
def test_pairs_at_any_distance_are_as_likely(lag):
    values = unsigned(levels(8, 2**17)).reshape(8, -1) >> 8
    assert_uniform((values[:, lag:] * 256 + values[:, :-lag]).ravel(), 2**16)


def test_pairs_across_rows_steps_and_seeds_are_as_likely():
    one = unsigned(levels(2, 2**19)).reshape(2, -1) >> 8
    for other in (
        one[1],
        *(unsigned(levels(1, 2**19, **k)) >> 8 for k in ({"step": 2}, {"seed": 2})),
    ):
        assert_uniform(one[0] * 256 + other, 2**16)


def test_every_bit_is_a_fair_coin_and_independent_of_the_others():
    values = unsigned(levels(8, 2**16))
    bits = (values[:, None] >> np.arange(16)) & 1
    n = len(values)
    assert np.abs(bits.mean(0) - 0.5).max() < SIGMAS * 0.5 / math.sqrt(n)
    correlations = np.corrcoef(bits.T) - np.eye(16)
    assert np.abs(correlations).max() < SIGMAS / math.sqrt(n)


@pytest.mark.parametrize("word", range(KEY_WORDS))
@pytest.mark.parametrize("bit", [0, 7, 16, 31])
def test_one_other_bit_in_a_key_makes_other_numbers(word, bit):
    changed = keys(1)
    changed[0, word] ^= np.uint32(1) << np.uint32(bit)
    before, after = levels(1, 2**17), random_levels(changed, 2**17).numpy()
    n_equal = int((before == after).sum())
    assert n_equal < 2 + SIGMAS * 2


def test_sums_over_blocks_have_the_variance_of_independent_numbers():
    dropped = (levels(64, 2**14) < -26214).reshape(64, 64, -1).sum(-1)
    share = 6554 / 65536
    n = 2**14 / 64
    expected = n * share * (1 - share)
    # The variance of a variance, nearly normal, of so many sums.
    assert abs(dropped.var() / expected - 1) < SIGMAS * math.sqrt(2 / dropped.size)
