"""Random words of many keys at once, as numpy's ``SeedSequence`` makes them of one.

Dropout has a key for each sequence and each of its places, and numpy takes ten microseconds a key.
Both compute the same, which numpy keeps for ever (NEP 19, https://numpy.org/neps/nep-0019-rng-
policy.html); the constants are those of numpy's ``random/bit_generator.pyx``, and the algorithm
is by Melissa O'Neill, "Developing a seed_seq Alternative" (2015).
"""

import numpy as np

from lm_core.kernels.kernel import inlined, kernel

# Words in which all that is known of a key is mixed.
_POOL = 4
# What is hashed meets a number that is multiplied each time; these are for what goes in.
_FIRST_IN, _FACTOR_IN = np.uint32(0x43B0D7E5), np.uint32(0x931E8875)
# These are for what comes out.
_FIRST_OUT, _FACTOR_OUT = np.uint32(0x8B51F9DD), np.uint32(0x58F38DED)
# Factors of the two words that are mixed.
_LEFT, _RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
# The upper half of the bits of a word is mixed into the lower.
_HALF = np.uint32(16)


def seed_words(entropy: np.ndarray, n_words: int) -> np.ndarray:
    """Random words that depend on all words of a key.

    Args:
        entropy: The keys, ``(n_keys, n)`` uint32.
        n_words: How many words of each.

    Returns:
        ``(n_keys, n_words)`` uint32, of each row ``SeedSequence(row).generate_state(n_words)``.
    """
    words = np.empty((len(entropy), n_words), np.uint32)
    _write(entropy, words)
    return words


@inlined
def _folded(word):
    return np.uint32(word ^ np.uint32(word >> _HALF))


@inlined
def _hashed(word, constant, factor):
    """A hash of a word, and the constant for the next."""
    following = np.uint32(constant * factor)
    return _folded(np.uint32(np.uint32(word ^ constant) * following)), following


@inlined
def _mixed(left, right):
    return _folded(np.uint32(np.uint32(left * _LEFT) - np.uint32(right * _RIGHT)))


@kernel("void(uint32[:,::1], uint32[:,::1])")
def _write(entropy, words):
    """Writes what ``seed_words`` returns."""
    pool = np.empty(_POOL, np.uint32)
    for row in range(len(entropy)):
        constant = _FIRST_IN
        for i in range(_POOL):
            word = entropy[row, i] if i < entropy.shape[1] else np.uint32(0)
            pool[i], constant = _hashed(word, constant, _FACTOR_IN)
        for source in range(_POOL):
            for i in range(_POOL):
                if i != source:
                    hashed, constant = _hashed(pool[source], constant, _FACTOR_IN)
                    pool[i] = _mixed(pool[i], hashed)
        for source in range(_POOL, entropy.shape[1]):
            for i in range(_POOL):
                hashed, constant = _hashed(entropy[row, source], constant, _FACTOR_IN)
                pool[i] = _mixed(pool[i], hashed)
        constant = _FIRST_OUT
        for i in range(words.shape[1]):
            words[row, i], constant = _hashed(pool[i % _POOL], constant, _FACTOR_OUT)
