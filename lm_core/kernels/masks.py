"""Masks of dropout by a keyed hash: whether an element is kept is a function of its place.

Dropout draws tens of millions of random numbers in a step. A generator draws one after the other,
on one core; a hash of the place of each needs none of the others, so that all cores draw, many
numbers with every instruction.
"""

import sys
from itertools import zip_longest

import numba
import numpy as np

from lm_core.kernels.kernel import inlined, kernel, kernels_of_types
from lm_core.kernels.numbers import narrowed, widened

# "triple32", a hash of 32 bits found by search, in which every bit of the input flips every bit of
# the output with a probability of a half, up to 2e-5: Chris Wellons, "Prospecting for Hash
# Functions" (2018), https://nullprogram.com/blog/2018/07/31/.
_SHIFTS = (17, 11, 15, 14)
# Its multipliers, between two shifts each.
_MULTIPLIERS = (0xED5AD4BB, 0xAC4C1B51, 0x31848BAB)
# A word of the key goes in at the start, and others after all multiplications but the last.
KEY_WORDS = len(_MULTIPLIERS)
# Levels that a random number may have: so fine are the rates of dropout.
N_LEVELS = 2**16
# A hash of 32 bits makes two of them.
_LEVELS_A_HASH = 2
# Bits of the first, which come before those of the second.
_BITS_OF_A_LEVEL = 16
# Numbers that a thread masks in one go: enough to be worth it.
_PIECE = 16384
# Words of two bytes of which the first is true, and of which the second is.
_FIRST, _SECOND = (int.from_bytes(pair, sys.byteorder) for pair in (b"\x01\x00", b"\x00\x01"))


def masks(keys: np.ndarray, n_levels: int, n_dropped: int) -> np.ndarray:
    """Which elements are kept.

    Args:
        keys: ``(n_rows, KEY_WORDS)`` uint32, a random key for each row.
        n_levels: Elements of each row.
        n_dropped: Of the 65536 levels that the random number of an element may have, those below
            this many are dropped.

    Returns:
        ``(n_rows, n_levels)``, true for what is kept. The memory of a row may be a little longer.
        An element depends on the key of its row and on its place in it.
    """
    words = np.empty((len(keys), -(-n_levels // _LEVELS_A_HASH)), np.uint16)
    # Read as signed, levels begin at -32768; a level is the upper half of a word.
    _fill(keys, (n_dropped - N_LEVELS // 2) << _BITS_OF_A_LEVEL, words)
    return words.view(np.bool_)[:, :n_levels]


@kernel("void(uint32[:,::1], int32, uint16[:,::1])", parallel=True)
def _fill(keys, least_kept, words):
    """Writes two elements into each word: of its hash's lower half, and of its upper half."""
    u = np.uint32
    for row in numba.prange(len(words)):
        first, second, third = keys[row, 0], keys[row, 1], keys[row, 2]
        for place in range(words.shape[1]):
            h = u(place) ^ first
            h = u((h ^ u(h >> u(_SHIFTS[0]))) * u(_MULTIPLIERS[0])) ^ second
            h = u((h ^ u(h >> u(_SHIFTS[1]))) * u(_MULTIPLIERS[1])) ^ third
            h = u((h ^ u(h >> u(_SHIFTS[2]))) * u(_MULTIPLIERS[2]))
            h = u(h ^ u(h >> u(_SHIFTS[3])))
            lower = u(_FIRST) if np.int32(u(h << u(_BITS_OF_A_LEVEL))) >= least_kept else u(0)
            upper = u(_SECOND) if np.int32(h) >= least_kept else u(0)
            words[row, place] = np.uint16(lower | upper)


@inlined
def _n_pieces(x):
    return (x.shape[1] + _PIECE - 1) // _PIECE


@inlined
def _piece(task, x):
    """The row of a task's piece, and where in it the piece starts and ends."""
    row, start = task // _n_pieces(x), task % _n_pieces(x) * _PIECE
    return row, start, min(start + _PIECE, x.shape[1])


def _keep(x, mask, scale, kept):
    """Writes what is kept, in the type of ``kept``, scaled; zeroes in the places of the rest.

    Args:
        x: ``(n_rows, n)``.
        mask: From ``masks``, ``(n_rows, n)``.
        scale: Of what is kept.
        kept: ``(n_rows, n)``.
    """
    nothing = narrowed(scale * 0, kept)
    for task in numba.prange(len(x) * _n_pieces(x)):
        row, start, end = _piece(task, x)
        own, own_mask, own_kept = x[row, start:end], mask[row, start:end], kept[row, start:end]
        for i in range(len(own)):
            number = widened(narrowed(widened(own[i]), kept))
            own_kept[i] = narrowed(number * scale, kept) if own_mask[i] else nothing


def _keep_and_add(residual, x, mask, scale, total):
    """Writes the sum of a residual stream and of what ``_keep`` writes in the type of ``x``.

    Args:
        residual: ``(n_rows, n)``.
        x: ``(n_rows, n)``.
        mask: From ``masks``, ``(n_rows, n)``; ``(n_rows, 0)``: all of ``x`` is added as it is.
        scale: Of what is kept.
        total: ``(n_rows, n)``.
    """
    for task in numba.prange(len(x) * _n_pieces(x)):
        row, start, end = _piece(task, x)
        own, given, own_total = residual[row, start:end], x[row, start:end], total[row, start:end]
        if mask.shape[1] == 0:
            for i in range(len(own)):
                own_total[i] = own[i] + widened(given[i])
        else:
            own_mask = mask[row, start:end]
            for i in range(len(own)):
                number = widened(narrowed(widened(given[i]) * scale, x))
                own_total[i] = own[i] + (number if own_mask[i] else scale * 0)


# By the type of what is kept; in backward of a sum, what is read has the type of the residual
# stream. Each number is rounded as PyTorch would, so that it is the same whether or not something
# looks at it in between.
KEEP, KEEP_OF_SUM = (
    kernels_of_types(
        _keep,
        f"void({read}[:,::1], boolean[:,::1], {{1}}, {{0}}[:,::1])",
        bfloat16=True,
        exact=True,
    )
    for read in ("{0}", "{1}")
)
KEEP_AND_ADD = kernels_of_types(
    _keep_and_add,
    "void({1}[:,::1], {0}[:,::1], boolean[:,::1], {1}, {1}[:,::1])",
    bfloat16=True,
    exact=True,
)


def reference_levels(keys: np.ndarray, n_levels: int) -> np.ndarray:
    """The random number of each element, in plain operations.

    Args:
        keys: As of ``masks``.
        n_levels: As of ``masks``.

    Returns:
        int16 ``(n_rows, n_levels)``, uniform from -32768 on.
    """
    n_hashes = -(-n_levels // _LEVELS_A_HASH)
    hashes = np.tile(np.arange(n_hashes, dtype=np.uint32), (len(keys), 1))
    rounds = zip_longest(_SHIFTS, _MULTIPLIERS, keys.T)
    for shift, multiplier, word in rounds:
        hashes ^= 0 if word is None else word[:, None]
        hashes ^= hashes >> np.uint32(shift)
        hashes *= np.uint32(1 if multiplier is None else multiplier)
    return hashes.view(np.int16)[:, :n_levels]
