"""UTF-8 read character by character (RFC 3629): the number of each, and which of them occur."""

import numpy as np

from lm_core.kernels.kernel import Kernel, inlined, kernel

# Places are unsigned, for of a signed one Numba first looks whether it counts from the end.
_U = np.uintp
# Numba's type of bytes, which nobody may change.
_BYTES = "Array(uint8, 1, 'C', readonly=True)"
# Bytes of zero that follow a text, so that its last character need not be looked for.
PADDING = 3
# Code points from here on have two, three and four bytes, and Unicode ends at the last.
_TWO, _THREE, _FOUR, _END = _U(0x80), _U(0x800), _U(0x10000), _U(0x110000)
# Halves of surrogate pairs are code points from here to before here, and no characters.
_SURROGATES, _AFTER_SURROGATES = _U(0xD800), _U(0xE000)
# Bytes from here on begin a character of two, three and four bytes, and from the last on none.
_BEGINS_TWO, _BEGINS_THREE, _BEGINS_FOUR, _BEGINS_NONE = _U(0xC0), _U(0xE0), _U(0xF0), _U(0xF8)
# A byte that goes on with a character begins with the bits 10, and six of the character's follow.
_MARK, _MARKED, _OF_CONTINUATION, _BITS = _U(0xC0), _U(0x80), _U(0x3F), _U(6)
# The bits of the character in a byte that begins one of two, three and four bytes.
_OF_TWO, _OF_THREE, _OF_FOUR = _U(0x1F), _U(0x0F), _U(0x07)


@inlined
def _goes_on(byte):
    return byte & _MARK == _MARKED


@inlined
def _with(point, byte):
    """The code point with six more bits of a byte that goes on with it."""
    return (point << _BITS) | (byte & _OF_CONTINUATION)


@inlined
def _character(data, place):
    """Code point of the character that begins at a place, and its bytes; 0 where none begins."""
    first = _U(data[place])
    if first < _TWO:
        return first, _U(1)
    second = _U(data[place + _U(1)])
    if first < _BEGINS_THREE:
        point = _with(first & _OF_TWO, second)
        # Those that go on with a character would be of one byte, too.
        is_one = first >= _BEGINS_TWO and point >= _TWO and _goes_on(second)
        return point, _U(2) if is_one else _U(0)
    third = _U(data[place + _U(2)])
    if first < _BEGINS_FOUR:
        point = _with(_with(first & _OF_THREE, second), third)
        is_surrogate = _SURROGATES <= point < _AFTER_SURROGATES
        is_one = _goes_on(second) and _goes_on(third) and point >= _THREE and not is_surrogate
        return point, _U(3) if is_one else _U(0)
    fourth = _U(data[place + _U(3)])
    point = _with(_with(_with(first & _OF_FOUR, second), third), fourth)
    is_one = first < _BEGINS_NONE and _goes_on(second) and _goes_on(third) and _goes_on(fourth)
    return point, _U(1 + 3) if is_one and _FOUR <= point < _END else _U(0)


def _look_up(data, table, unknown, numbers):
    """Writes the number of each character.

    Args:
        data: UTF-8, and ``PADDING``.
        table: The number of each code point.
        unknown: The number in it of those that have none, of its type.
        numbers: Takes the numbers, ``(at least as many as characters,)``, of the table's type.

    Returns:
        How many were written, and how many bytes they took: fewer than there are where a character
        has no number, or what follows is no character.
    """
    place = n = _U(0)
    while place < _U(len(data) - PADDING):
        point, size = _character(data, place)
        if size == _U(0) or table[point] == unknown:
            break
        numbers[n] = table[point]
        n += _U(1)
        place += size
    return n, place


def _look_ups(kind):
    signature = f"UniTuple(int64, 2)({_BYTES}, {kind}[::1], {kind}, {kind}[::1])"
    return Kernel(_look_up, signature, parallel=False)


# By the type of the table.
LOOK_UP = {kind: _look_ups(kind) for kind in ("uint8", "uint16", "uint32")}


@kernel(f"int64({_BYTES}, boolean[::1])")
def note(data, occurs):
    """Notes the characters that occur.

    Args:
        data: UTF-8, and ``PADDING``.
        occurs: Whether a code point occurs: becomes true for those that do.

    Returns:
        How many bytes were read: fewer than there are where no character follows.
    """
    place = _U(0)
    while place < _U(len(data) - PADDING):
        point, size = _character(data, place)
        if size == _U(0):
            break
        occurs[point] = True
        place += size
    return place
