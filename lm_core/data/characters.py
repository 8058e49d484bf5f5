"""The characters of UTF-8 text, many at once: which of them occur, and the number of each.

Text is taken in pieces that stay in the caches of the processor, each by the shortest way that its
bytes allow. ASCII and Latin-1 have one byte a character, which ``bytes.translate`` looks up; the
rest is decoded, and looked up by code point.
"""

from collections.abc import Iterator

import numpy as np

from lm_core.data.text_files import end_of_last_character

# Unicode ends at U+10FFFF.
N_CODE_POINTS = 0x110000
# Halves of surrogate pairs are code points, but no characters.
SURROGATES = range(0xD800, 0xE000)
# As large as a block of a file, so that it is one piece; what is made of it stays in the caches.
_PIECE_BYTES = 2**18
# Code points of Latin-1, which one byte holds.
_N_LATIN = 0x100
# Code points that two bytes of UTF-16 hold; it spells others as pairs of surrogates.
_N_BASIC = 0x10000
# ASCII has seven bits; the highest byte of a text that is ASCII is below this.
_NOT_ASCII = 0x80
# UTF-8 begins the first character beyond Latin-1 with this byte (RFC 3629, section 3).
_NOT_LATIN = 0xC4
# UTF-8 begins the first character beyond U+FFFF with this byte (RFC 3629, section 3).
_NOT_BASIC = 0xF0


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


class OccurringCharacters:
    """The characters that occur in a text that comes in blocks."""

    def __init__(self) -> None:
        self._occurs = np.zeros(N_CODE_POINTS, dtype=bool)
        self._latin = b""

    def add(self, data: bytes) -> None:
        """Takes a block that splits no character.

        Raises:
            UnicodeDecodeError: It is not UTF-8.
        """
        for _, piece in _pieces(data):
            highest = int(np.frombuffer(piece, dtype=np.uint8).max())
            if highest < _NOT_LATIN:
                latin = piece if highest < _NOT_ASCII else piece.decode("utf-8").encode("latin-1")
                self._add_latin(latin)
            else:
                points = _code_points(piece, highest >= _NOT_BASIC)
                # Nearly always all are there already, and to look is faster than to write.
                if not self._occurs.take(points, mode="clip").all():
                    self._occurs[points] = True

    def _add_latin(self, latin: bytes) -> None:
        """Takes text in Latin-1; what is left when all known characters are deleted is new."""
        if new := latin.translate(None, self._latin):
            self._occurs[np.frombuffer(new, dtype=np.uint8)] = True
            self._latin = bytes(np.flatnonzero(self._occurs[:_N_LATIN]).tolist())

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


def _code_points(piece: bytes, has_pairs: bool) -> np.ndarray:
    """Code points, in two bytes each where none is beyond U+FFFF."""
    text = piece.decode("utf-8")
    if has_pairs:
        return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    return np.frombuffer(text.encode("utf-16-le"), dtype="<u2")
