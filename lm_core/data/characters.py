"""The characters of UTF-8 text, many at once: which of them occur, and the number of each.

Text is taken in pieces that stay in the caches of the processor, each by the shortest way that its
bytes allow. ASCII and Latin-1 have one byte a character, which ``bytes.translate`` looks up. Where
few characters are beyond ASCII, as in English with typographic signs, it also leaves out all bytes
of those but the first, in whose places they are then put. The rest is decoded, and looked up by
code point.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lm_core.data.text_files import LONGEST_CHARACTER, end_of_last_character

# Unicode ends at U+10FFFF.
N_CODE_POINTS = 0x110000
# Halves of surrogate pairs are code points, but no characters.
SURROGATES = range(0xD800, 0xE000)
# As large as a block of a file, so that it is one piece; what is made of it stays in the caches.
_PIECE_BYTES = 2**18
# Where fewer than one byte in so many begins a character beyond ASCII, those few are put in places.
_RARE = 40
# Code points of Latin-1, which one byte holds.
_N_LATIN = 0x100
# Code points that two bytes of UTF-16 hold; it spells others as pairs of surrogates.
_N_BASIC = 0x10000
# ASCII has seven bits; the highest byte of a text that is ASCII is below this.
_NOT_ASCII = 0x80
# Bytes from ASCII's end to here go on with a character, and others begin one (RFC 3629, section 3).
_FIRST_BYTE = 0xC0
# UTF-8 begins the first character of three bytes with this byte (RFC 3629, section 3).
_FIRST_OF_THREE = 0xE0
# The bits of a byte that goes on with a character, which are six (RFC 3629, section 3).
_BITS = 6
# What the marks of all bytes add up to, in characters that have none, one, two, three more bytes.
_MARKS = (0, 0x3080, 0xE2080, 0x3C82080)
# UTF-8 begins the first character beyond Latin-1 with this byte (RFC 3629, section 3).
_NOT_LATIN = 0xC4
# UTF-8 begins the first character beyond U+FFFF with this byte (RFC 3629, section 3).
_NOT_BASIC = 0xF0
_CONTINUATIONS = bytes(range(_NOT_ASCII, _FIRST_BYTE))
_BEYOND_ASCII = bytes(range(_NOT_ASCII, _N_LATIN))


class UnknownCharacterError(LookupError):
    """A text has a character that has no number.

    Args:
        offset: Where its first byte stands.
    """

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


class CharacterNumbers:
    """Turns text into the numbers of its characters: their places among all that are known.

    Args:
        code_points: The known ones, ``(n_characters,)``, at least one, sorted, none twice.
    """

    def __init__(self, code_points: np.ndarray) -> None:
        self._unknown = len(code_points)
        self._dtype = np.min_scalar_type(self._unknown - 1)
        # One number more than there are characters: that of all the others.
        table = np.full(N_CODE_POINTS, self._unknown, dtype=np.min_scalar_type(self._unknown))
        table[code_points] = np.arange(self._unknown)
        self._table = table
        self._has_pairs = bool(code_points[-1] >= _N_BASIC)
        # Sorted as they are, those of Latin-1 have numbers below 255, unless none is missing.
        latin = table[:_N_LATIN]
        is_whole = bool((latin < self._unknown).all())
        self._unknown_latin = _N_LATIN if is_whole else _N_LATIN - 1
        numbers = np.where(latin < self._unknown, latin, _N_LATIN - 1)
        self._latin = numbers.astype(np.uint8).tobytes()
        self._ascii = self._latin[:_NOT_ASCII].ljust(_N_LATIN, b"\0")

    def of(self, data: bytes) -> np.ndarray:
        """The number of each character, in the smallest unsigned type that holds all numbers.

        Args:
            data: UTF-8.

        Raises:
            UnknownCharacterError: One has none; tells where the first such stands.
        """
        parts = []
        for start, piece in _pieces(data):
            numbers, n_known = self._of_piece(piece)
            if n_known < len(numbers):
                before = piece.decode("utf-8")[:n_known]
                raise UnknownCharacterError(start + len(before.encode("utf-8")))
            parts.append(numbers)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, self._dtype)

    def _of_piece(self, piece: bytes) -> tuple[np.ndarray, int]:
        """Numbers, and how many of them come before the first that is none."""
        highest = int(np.frombuffer(piece, dtype=np.uint8).max())
        if highest >= _NOT_ASCII:
            numbers = self._of_mostly_ascii(piece)
            if numbers is not None:
                return numbers, len(numbers)
        if highest < _NOT_LATIN:
            latin = piece if highest < _NOT_ASCII else piece.decode("utf-8").encode("latin-1")
            numbers = np.frombuffer(latin.translate(self._latin), dtype=np.uint8)
            unknown = self._unknown_latin
        else:
            # Where no pair of surrogates is known, each half of one is as unknown as the pair.
            points = _code_points(piece, highest >= _NOT_BASIC and self._has_pairs)
            numbers, unknown = self._table.take(points, mode="clip"), self._unknown
        is_known = int(numbers.max()) < unknown
        n_known = len(numbers) if is_known else int((numbers >= unknown).argmax())
        return numbers.astype(self._dtype, copy=False), n_known

    def _of_mostly_ascii(self, piece: bytes) -> np.ndarray | None:
        """Numbers, where few characters are beyond ASCII and all are known; None elsewhere."""
        rare = _rare_characters(piece)
        if rare is None:
            return None
        others = self._table.take(rare.points, mode="clip")
        ascii_ = np.frombuffer(piece.translate(self._ascii, _CONTINUATIONS), dtype=np.uint8)
        if int(ascii_.max()) >= _NOT_ASCII or int(others.max()) >= self._unknown:
            return None
        # What is not UTF-8 has no such places; to decode it tells that.
        if int(rare.places.min()) < 0 or int(rare.places.max()) >= len(ascii_):
            return None
        numbers = ascii_.astype(self._dtype)
        numbers[rare.places] = others
        return numbers


class OccurringCharacters:
    """The characters that occur in a text that comes in blocks."""

    def __init__(self) -> None:
        self._occurs = np.zeros(N_CODE_POINTS, dtype=bool)
        self._known = b""

    def add(self, data: bytes) -> None:
        """Takes a block that splits no character.

        Raises:
            UnicodeDecodeError: It is not UTF-8.
        """
        for _, piece in _pieces(data):
            highest = int(np.frombuffer(piece, dtype=np.uint8).max())
            if highest < _NOT_ASCII:
                self._add_latin(piece)
            elif rare := _rare_characters(piece):
                piece.decode("utf-8")
                self._add_points(rare.points)
                self._add_latin(piece.translate(None, self._known + _BEYOND_ASCII))
            elif highest < _NOT_LATIN:
                self._add_latin(piece.decode("utf-8").encode("latin-1"))
            else:
                self._add_points(_code_points(piece, highest >= _NOT_BASIC))

    def _add_latin(self, latin: bytes) -> None:
        """Takes text in Latin-1; what is left when all known characters are deleted is new."""
        if new := latin.translate(None, self._known):
            self._occurs[np.frombuffer(new, dtype=np.uint8)] = True
            self._known = bytes(np.flatnonzero(self._occurs[:_N_LATIN]).tolist())

    def _add_points(self, points: np.ndarray) -> None:
        # Nearly always all are there already, and to look is faster than to write.
        if not self._occurs.take(points, mode="clip").all():
            self._occurs[points] = True

    def sorted(self) -> str:
        """All of them by code point, none twice."""
        return np.flatnonzero(self._occurs).astype("<u4").tobytes().decode("utf-32-le")


def _pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Pieces that split no character, each with the number of bytes before it."""
    start = 0
    while start < len(data):
        piece = data[start : start + _PIECE_BYTES]
        if start + len(piece) < len(data):
            piece = piece[: end_of_last_character(piece)]
        yield start, piece
        start += len(piece)


class _RareCharacters(NamedTuple):
    """The characters beyond ASCII of a piece that has few: code points, and places among all."""

    points: np.ndarray
    places: np.ndarray


def _rare_characters(piece: bytes) -> _RareCharacters | None:
    """Those of a piece that is not ASCII; None where they are not rare.

    Of what is not UTF-8, code points and places are any numbers.
    """
    data = np.frombuffer(piece, dtype=np.uint8)
    is_first = data >= _FIRST_BYTE
    n_rare = np.count_nonzero(is_first)
    if n_rare == 0 or n_rare * _RARE > len(data):
        return None
    starts = np.flatnonzero(is_first)
    # A character that is cut off reads zeros, and not beyond the end.
    padded = np.concatenate([data, np.zeros(LONGEST_CHARACTER, dtype=np.uint8)])
    first, second, third, fourth = (
        padded[starts + i].astype(np.int32) for i in range(LONGEST_CHARACTER)
    )
    n_more = 1 + (first >= _FIRST_OF_THREE) + (first >= _NOT_BASIC)
    of_two = (first << _BITS) + second
    of_three = (of_two << _BITS) + third
    of_four = (of_three << _BITS) + fourth
    points = np.where(n_more == 1, of_two, np.where(n_more == 2, of_three, of_four))
    marks = np.array(_MARKS, dtype=np.int32)[n_more]
    return _RareCharacters(points - marks, starts - (np.cumsum(n_more) - n_more))


def _code_points(piece: bytes, has_pairs: bool) -> np.ndarray:
    """Code points, in two bytes each where none is beyond U+FFFF."""
    text = piece.decode("utf-8")
    if has_pairs:
        return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    return np.frombuffer(text.encode("utf-16-le"), dtype="<u2")
