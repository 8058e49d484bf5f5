"""UTF-8 read character by character (RFC 3629): the number of each, and which of them occur."""

from lm_core.kernels.kernel import Kernel, inlined, kernel

# Numba's type of bytes, which nobody may change.
_BYTES = "Array(uint8, 1, 'C', readonly=True)"
# What is below has one byte, below the next two, and below the next three.
_TWO, _THREE, _FOUR = 0x80, 0x800, 0x10000
# Unicode ends below it.
_N_CODE_POINTS = 0x110000
# Halves of surrogate pairs are code points from here to here, and no characters.
_FIRST_SURROGATE, _LAST_SURROGATE = 0xD800, 0xDFFF
# Bytes from here on begin a character of two, three and four bytes, and from the last on none.
_BEGINS_TWO, _BEGINS_THREE, _BEGINS_FOUR, _BEGINS_NONE = 0xC0, 0xE0, 0xF0, 0xF8
# A byte that goes on with a character begins with the bits 10, and six of the character's follow.
_MARK, _MARKED, _BITS = 0xC0, 0x80, 6
# In the place of the bits of a byte that is not there: less than all bits of any character.
_NONE = -(2**40)
# Bits of the character in a byte that goes on with one, and in one that begins one of two bytes.
_OF_CONTINUATION, _OF_TWO = 0x3F, 0x1F
# Bits of it in a byte that begins one of three bytes, and of four.
_OF_THREE, _OF_FOUR = 0x0F, 0x07


@inlined
def _continuation(data, place):
    """The bits of a byte that goes on with a character; negative where it does not."""
    if place >= len(data) or data[place] & _MARK != _MARKED:
        return _NONE
    return data[place] & _OF_CONTINUATION


@inlined
def _character(data, place):
    """Code point of the character that begins at a place, and its bytes; 0 where none begins."""
    first = data[place]
    if first < _TWO:
        return first, 1
    second = _continuation(data, place + 1)
    if first < _BEGINS_TWO:
        return 0, 0
    if first < _BEGINS_THREE:
        point = ((first & _OF_TWO) << _BITS) + second
        return point, 2 if point >= _TWO else 0
    third = _continuation(data, place + 2)
    if first < _BEGINS_FOUR:
        point = ((((first & _OF_THREE) << _BITS) + second) << _BITS) + third
        is_surrogate = _FIRST_SURROGATE <= point <= _LAST_SURROGATE
        return point, 3 if point >= _THREE and not is_surrogate else 0
    if first >= _BEGINS_NONE:
        return 0, 0
    fourth = _continuation(data, place + 3)
    rest = (second << _BITS) + third
    point = ((((first & _OF_FOUR) << 2 * _BITS) + rest) << _BITS) + fourth
    return point, 3 + 1 if _FOUR <= point < _N_CODE_POINTS else 0


def _look_up(data, table, unknown, numbers):
    """Writes the number of each character.

    Args:
        data: UTF-8, ``(n_bytes,)`` uint8.
        table: The number of each code point.
        unknown: The number in it of those that have none.
        numbers: Takes the numbers, ``(at least as many as characters,)``, of the table's type.

    Returns:
        How many were written, and how many bytes they took: fewer than there are where a character
        has no number, or what follows is no character.
    """
    place = n = 0
    while place < len(data):
        point, size = _character(data, place)
        if size == 0 or table[point] == unknown:
            break
        numbers[n] = table[point]
        n += 1
        place += size
    return n, place


def _look_ups(kind):
    signature = f"UniTuple(int64, 2)({_BYTES}, {kind}[::1], int64, {kind}[::1])"
    return Kernel(_look_up, signature, parallel=False)


# By the type of the table.
LOOK_UP = {kind: _look_ups(kind) for kind in ("uint8", "uint16", "uint32")}


@kernel(f"int64({_BYTES}, boolean[::1])")
def note(data, occurs):
    """Notes the characters that occur.

    Args:
        data: UTF-8, ``(n_bytes,)`` uint8.
        occurs: Whether a code point occurs: becomes true for those that do.

    Returns:
        How many bytes were read: fewer than there are where no character follows.
    """
    place = 0
    while place < len(data):
        point, size = _character(data, place)
        if size == 0:
            break
        occurs[point] = True
        place += size
    return place
