import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.randomness import LARGEST_SEED, STREAMS, keyed_bits, keyed_generator

seeds = st.integers(0, LARGEST_SEED)
indices = st.lists(st.integers(0, 2**63 - 1), max_size=3)
keys = st.tuples(seeds, st.sampled_from(sorted(STREAMS)), indices)


def first_words(key):
    seed, stream, rest = key
    return keyed_bits(seed, stream, *rest).random_raw(4).tolist()


def canonical(key):
    seed, stream, rest = key
    return seed, stream, tuple(rest) + (0,) * (3 - len(rest))


@given(keys)
def test_the_same_key_gives_the_same_numbers(key):
    assert first_words(key) == first_words(key)


@given(keys, keys)
def test_different_keys_give_different_numbers(key, other):
    assert (first_words(key) == first_words(other)) == (canonical(key) == canonical(other))


def test_numbers_that_spill_over_32_bits_do_not_collide_with_the_next_field():
    assert first_words((2**32, "dropout", [])) != first_words((0, "dropout", [1]))
    assert first_words((5, "dropout", [2**32])) != first_words((5, "dropout", [0, 1]))


def test_the_numbers_of_a_key_never_change_between_releases():
    # What they are is arbitrary; that they stay is what reruns of old experiments rest on.
    generator = keyed_generator(42, "batches", 7)
    assert generator.integers(0, 1_000_000, 4).tolist() == EXPECTED_BATCH_DRAWS


EXPECTED_BATCH_DRAWS = [744248, 828194, 377185, 509330]


def test_an_unknown_stream_is_told_with_those_there_are():
    with pytest.raises(ValueError, match=r"there is no stream 'noise' .*dropout.*hooks"):
        keyed_generator(1, "noise", 2)


def test_streams_are_numbered_without_repetition():
    assert len(set(STREAMS.values())) == len(STREAMS)


def test_more_than_three_indices_are_refused():
    with pytest.raises(ValueError, match="at most 3"):
        keyed_bits(1, "dropout", 1, 2, 3, 4)


def test_uniform_numbers_of_many_keys_are_uniform():
    draws = np.array([keyed_generator(3, "sampling", i).random() for i in range(4000)])
    counts, _ = np.histogram(draws, bins=16, range=(0, 1))
    chi_squared = ((counts - 250) ** 2 / 250).sum()
    assert chi_squared < 45  # 15 degrees of freedom: exceeded once in ten thousand seeds
