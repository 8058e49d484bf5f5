"""Orders of many things that are computed one by one, and so take no memory."""

import numpy as np

from lm_core.randomness import keyed_bits

# Luby and Rackoff (1988) show that four rounds with random functions look random to who sees few of
# the places; the functions here only look random, so there are twice as many.
_ROUNDS = 8
# The smallest half of a number, in bits: with one bit, too few orders would be possible.
_FEWEST_BITS = 2
# The constants of splitmix64's mixing of 64 bits (Steele et al. 2014, "Fast Splittable Pseudorandom
# Number Generators", variant 13 of Stafford), each a shift and a factor.
_MIXING = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
# The last shift of the same mixing function.
_LAST_SHIFT = np.uint64(31)


def permuted(places: np.ndarray, n: int, seed: int, stream: str, *indices: int) -> np.ndarray:
    """What stands at some places of a random order of the numbers below ``n``.

    The order is a Feistel network of keyed functions on the numbers of twice so many bits as half
    of ``n`` needs; a number that is not below ``n`` is sent through again until it is (Black and
    Rogaway 2002, "Ciphers with Arbitrary Finite Domains"). So it is known at each place without
    the others: 0 to ``n - 1`` in some order, each once, and memory for the places alone.

    Args:
        places: Places in the order, each below ``n``.
        n: How many numbers there are.
        seed: As of ``keyed_bits``; with the others, it decides about the order.
        stream: As of ``keyed_bits``.
        *indices: As of ``keyed_bits``.

    Returns:
        As many numbers, int64.
    """
    half = max(_FEWEST_BITS, -(-int(n - 1).bit_length() // 2))
    keys = keyed_bits(seed, stream, *indices).random_raw(_ROUNDS)
    numbers = _sent_through(places.astype(np.uint64), keys, np.uint64(half))
    while (outside := numbers >= n).any():
        numbers[outside] = _sent_through(numbers[outside], keys, np.uint64(half))
    return numbers.astype(np.int64)


def _sent_through(numbers: np.ndarray, keys: np.ndarray, half: np.uint64) -> np.ndarray:
    """A permutation of the numbers of ``2 * half`` bits."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = numbers >> half, numbers & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) & mask)
    return left << half | right


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Numbers of 64 bits, each bit of which depends on all of those before."""
    for shift, factor in _MIXING:
        numbers = (numbers ^ (numbers >> shift)) * factor
    return numbers ^ (numbers >> _LAST_SHIFT)
