"""Masks against the plain hash, and its numbers against chance."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.kernels.masks import KEY_WORDS, masks, reference_levels
from lm_core.kernels.seeds import seed_words
from lm_core.randomness import keyed_entropy

# A standard deviation further away, and less than one in a million would be by chance.
SIGMAS = 5


def keys(n_rows, seed=1, step=1):
    return seed_words(keyed_entropy(n_rows, seed, "dropout", step, 0, range(n_rows)), KEY_WORDS)


def levels(n_rows, n_levels, **key):
    return reference_levels(keys(n_rows, **key), n_levels)


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
    st.integers(1, 200),
    st.integers(1, 2**16 - 1),
)
def test_what_is_kept_has_a_level_from_the_dropped_ones_on(rows, n_levels, n_dropped):
    given_keys = np.array(rows, dtype=np.uint32)
    found = masks(given_keys, n_levels, n_dropped)
    assert found.dtype == np.bool_
    is_kept = reference_levels(given_keys, n_levels) >= n_dropped - 2**15
    assert np.array_equal(found, is_kept)


def test_a_long_row_is_masked_like_a_short_one():
    given_keys = keys(5)
    is_kept = reference_levels(given_keys, 100_001) >= 6554 - 2**15
    assert np.array_equal(masks(given_keys, 100_001, 6554), is_kept)


@pytest.mark.parametrize("n_dropped", [1, 2, 6554, 32767, 32768, 32769, 65535])
def test_of_all_levels_so_many_are_dropped(n_dropped):
    """Of a row so long that its levels are many times as many as there are."""
    dropped = ~masks(keys(1), 2**22, n_dropped)[0]
    numbers = reference_levels(keys(1), 2**22)[0]
    assert dropped.sum() == (numbers < n_dropped - 2**15).sum()
    assert set(numbers[dropped]) == set(range(-(2**15), n_dropped - 2**15))


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
    before, after = levels(1, 2**17), reference_levels(changed, 2**17)
    n_equal = int((before == after).sum())
    assert n_equal < 2 + SIGMAS * 2


def test_sums_over_blocks_have_the_variance_of_independent_numbers():
    dropped = (levels(64, 2**14) < -26214).reshape(64, 64, -1).sum(-1)
    share = 6554 / 65536
    n = 2**14 / 64
    expected = n * share * (1 - share)
    # The variance of a variance, nearly normal, of so many sums.
    assert abs(dropped.var() / expected - 1) < SIGMAS * math.sqrt(2 / dropped.size)
