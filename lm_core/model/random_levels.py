"""Many random numbers of 16 bits at once, by a keyed hash of their places.

Dropout draws tens of millions of them in a step. A generator draws one after the other, on one
core; a hash of the place of each draws all at once, on all cores, many with every instruction.
"""

from itertools import zip_longest

import numpy as np
import torch

# "triple32", a hash of 32 bits found by search, in which every bit of the input flips every bit of
# the output with a probability of a half, up to 2e-5: Chris Wellons, "Prospecting for Hash
# Functions" (2018), https://nullprogram.com/blog/2018/07/31/.
_SHIFTS = (17, 11, 15, 14)
# Its multipliers, between two shifts each.
_MULTIPLIERS = (0xED5AD4BB, 0xAC4C1B51, 0x31848BAB)
# A word of the key goes in at the start, and others after all multiplications but the last.
KEY_WORDS = len(_MULTIPLIERS)
# A hash of 32 bits makes two numbers.
LEVELS_A_HASH = 2
# Bits of a hash.
_BITS = 32


def random_levels(keys: np.ndarray, n_levels: int) -> torch.Tensor:
    """Numbers that are uniform in -32768 to 32767 and look independent.

    Args:
        keys: ``(n_rows, KEY_WORDS)`` uint32, a random key for each row.
        n_levels: How many for each row.

    Returns:
        int16 ``(n_rows, n_levels)``; the memory of a row may be a little longer. A number depends
        on the key of its row and on its place in it.
    """
    first, *words = torch.from_numpy(keys.view(np.int32)).unsqueeze(-1).unbind(1)
    hashes = torch.arange(-(-n_levels // LEVELS_A_HASH), dtype=torch.int32) ^ first
    shifted = torch.empty_like(hashes)
    for shift, multiplier, word in zip_longest(_SHIFTS, _MULTIPLIERS, words):
        torch.bitwise_right_shift(hashes, shift, out=shifted)
        # PyTorch shifts copies of the sign in, the hash wants zeroes.
        shifted.bitwise_and_(2 ** (_BITS - shift) - 1)
        hashes.bitwise_xor_(shifted)
        if multiplier is not None:
            hashes.mul_(_signed(multiplier))
        if word is not None:
            hashes.bitwise_xor_(word)
    return hashes.view(torch.int16)[:, :n_levels]


def _signed(word: int) -> int:
    """The number that the bits of an unsigned word are as a signed one."""
    return word - 2**_BITS if word >= 2 ** (_BITS - 1) else word


def reference_random_levels(keys: np.ndarray, n_levels: int) -> np.ndarray:
    """The same, ``(n_rows, n_levels)``, in numpy's unsigned arithmetic."""
    n_hashes = -(-n_levels // LEVELS_A_HASH)
    hashes = np.tile(np.arange(n_hashes, dtype=np.uint32), (len(keys), 1))
    rounds = zip_longest(_SHIFTS, _MULTIPLIERS, keys.T)
    for shift, multiplier, word in rounds:
        hashes ^= 0 if word is None else word[:, None]
        hashes ^= hashes >> np.uint32(shift)
        hashes *= np.uint32(1 if multiplier is None else multiplier)
    return hashes.view(np.int16)[:, :n_levels]
