"""The characters of UTF-8 text, many at once: which of them occur, and the number of each."""

import sys
from types import ModuleType

import numpy as np

# Unicode ends below it.
_N_CODE_POINTS = sys.maxunicode + 1
# Halves of surrogate pairs are code points, but no characters.
SURROGATES = range(0xD800, 0xE000)
# ASCII has seven bits.
_N_ASCII = 0x80
# The values of a byte. None of the characters of ASCII has the last as its number.
_N_BYTES = 256


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
        # One number more than there are characters: that of all the others.
        self._unknown = len(code_points)
        self._dtype = np.min_scalar_type(self._unknown - 1)
        self._table = np.full(_N_CODE_POINTS, self._unknown, np.min_scalar_type(self._unknown))
        self._table[code_points] = np.arange(self._unknown)
        of_ascii = self._table[:_N_ASCII]
        numbers = np.where(of_ascii < self._unknown, of_ascii, _N_BYTES - 1).astype(np.uint8)
        self._ascii = numbers.tobytes().ljust(_N_BYTES, b"\0")

    def of(self, data: bytes) -> np.ndarray:
        """The number of each character, in the smallest unsigned type that holds all numbers.

        Args:
            data: UTF-8, a block of it: memory is taken for as many numbers as bytes.

        Raises:
            UnknownCharacterError: One has none; tells where the first such stands.
            UnicodeDecodeError: It is not UTF-8.
        """
        if data.isascii():
            # Python looks bytes up even faster.
            looked_up = data.translate(self._ascii)
            if (offset := looked_up.find(_N_BYTES - 1)) >= 0:
                raise UnknownCharacterError(offset)
            return np.frombuffer(looked_up, np.uint8).astype(self._dtype, copy=False)
        numbers = np.empty(len(data), self._table.dtype)
        look_up = _kernels().LOOK_UP[numbers.dtype.name]
        unknown = numbers.dtype.type(self._unknown)
        n_characters, n_bytes = look_up(_padded(data), self._table, unknown, numbers)
        if n_bytes < len(data):
            data.decode("utf-8")  # Raises where it is not UTF-8.
            raise UnknownCharacterError(n_bytes)
        return numbers[:n_characters].astype(self._dtype)


class OccurringCharacters:
    """The characters that occur in a text that comes in blocks."""

    def __init__(self) -> None:
        self._occurs = np.zeros(_N_CODE_POINTS, dtype=bool)
        self._known_ascii = b""

    def add(self, data: bytes) -> None:
        """Takes a block that splits no character.

        Raises:
            UnicodeDecodeError: It is not UTF-8.
        """
        if data.isascii():
            # What is left when all known characters are deleted is new, and nearly always nothing.
            if new := data.translate(None, self._known_ascii):
                self._occurs[np.frombuffer(new, np.uint8)] = True
                self._known_ascii = bytes(np.flatnonzero(self._occurs[:_N_ASCII]).tolist())
        elif _kernels().note(_padded(data), self._occurs) < len(data):
            data.decode("utf-8")

    def sorted(self) -> str:
        """All of them by code point, none twice."""
        return np.flatnonzero(self._occurs).astype("<u4").tobytes().decode("utf-32-le")


def _padded(data: bytes) -> np.ndarray:
    return np.frombuffer(data + bytes(_kernels().PADDING), np.uint8)


def _kernels() -> ModuleType:
    """The compiled loops; what compiles them takes a while to import, and many texts are ASCII."""
    from lm_core.kernels import utf8

    return utf8
