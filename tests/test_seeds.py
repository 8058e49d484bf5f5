"""Words of many keys against numpy's ``SeedSequence`` of each."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lm_core.kernels.seeds import seed_words
from lm_core.randomness import LARGEST_SEED, keyed_bits, keyed_entropy

words = st.integers(0, 2**32 - 1)


def keys_of(n_words):
    return st.lists(st.lists(words, min_size=n_words, max_size=n_words), max_size=5).map(
        lambda rows: np.array(rows, dtype=np.uint32).reshape(len(rows), n_words)
    )


@given(st.integers(0, 12).flatmap(keys_of), st.integers(0, 12))
def test_each_key_has_the_words_that_numpy_would_make_of_it(entropy, n_words):
    found = seed_words(entropy, n_words)
    assert found.shape == (len(entropy), n_words)
    assert found.dtype == np.uint32
    for row, own in zip(entropy, found, strict=True):
        assert np.array_equal(own, np.random.SeedSequence(row).generate_state(n_words))


@given(st.integers(0, LARGEST_SEED), st.integers(0, 2**63 - 1), st.integers(0, 2**40))
def test_the_words_of_a_row_are_those_of_the_generator_with_its_key(seed, step, first):
    rows = range(first, first + 3)
    found = seed_words(keyed_entropy(3, seed, "dropout", step, 7, rows), 6)
    for row, own in zip(rows, found, strict=True):
        bits = keyed_bits(seed, "dropout", step, 7, row)
        assert np.array_equal(own, bits.seed_seq.generate_state(6))
