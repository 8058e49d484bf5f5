"""Files of text, compressed or not, as streams of the bytes that are in them."""

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lm_core.errors import InputError
from lm_core.extras import needed

GZIP, ZSTANDARD = ".gz", ".zst"
COMPRESSED = (GZIP, ZSTANDARD)
# Four bytes of zstandard may stand for a block of 128 KiB (RFC 8878, section 3.1.1.2), so that
# never more than 32 MiB come out of so many at once, whatever they claim.
_ZSTANDARD_BYTES = 2**10
# Pieces of this size stay in memory that malloc keeps; larger ones take twice the time.
_PIECE_BYTES = 2**14


class TextStream(NamedTuple):
    """An open file of text.

    Attributes:
        content: What is read from; uncompressed.
        file: The file itself; where it stands tells how much of it is done.
    """

    content: BinaryIO
    file: BinaryIO


@contextlib.contextmanager
def opened_text(path: Path) -> Iterator[TextStream]:
    """Opens a file of text; what its name says is compressed is decompressed as it is read.

    What is damaged may be found while it is read, within this context, and is told as an error.

    Args:
        path: The file; ``.gz`` at the end of its name is gzip, and ``.zst`` is zstandard, both of
            one piece or of several that follow each other.

    Raises:
        InputError: It cannot be read, its compressed data are damaged or cut off, or zstandard is
            not installed.
    """
    try:
        with path.open("rb") as file:
            try:
                with _content(file, path) as content:
                    yield TextStream(content, file)
            except (EOFError, zlib.error, gzip.BadGzipFile, _DamagedError) as error:
                place = f"near byte {file.tell():,} of it"
                raise InputError(f"{path} is damaged or cut off, {place}: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _content(file: BinaryIO, path: Path) -> BinaryIO:
    ending = path.suffix.lower()
    if ending == GZIP:
        if not file.peek(1):  # type: ignore[attr-defined]
            raise EOFError("it is empty, which no gzip file is")
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if ending == ZSTANDARD:
        return io.BufferedReader(_Zstandard(file, path))
    return contextlib.nullcontext(file)  # type: ignore[return-value]


class _DamagedError(Exception):
    """Compressed data are not what was written."""


class _Zstandard(io.RawIOBase):
    """What is in a file of zstandard frames.

    The package has a stream of its own, which takes a frame that is cut off for a whole one.

    Args:
        file: The file.
        path: Its name, for messages.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._package = needed("zstandard", "zstd", str(path))
        self._file = file
        self._decompressor = self._package.ZstdDecompressor()
        self._frame: Any = None
        self._waiting = memoryview(b"")
        self._is_begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._waiting:
            compressed = self._file.read(_ZSTANDARD_BYTES)
            if not compressed:
                if self._frame is not None or not self._is_begun:
                    raise _DamagedError("it ends within a frame of zstandard")
                return 0
            self._is_begun = True
            self._waiting = memoryview(self._decompressed(compressed))
        n_bytes = min(len(buffer), len(self._waiting))
        buffer[:n_bytes] = self._waiting[:n_bytes]
        self._waiting = self._waiting[n_bytes:]
        return n_bytes

    def _decompressed(self, compressed: bytes) -> bytes:
        pieces = []
        while compressed:
            if self._frame is None:
                self._frame = self._decompressor.decompressobj(write_size=_PIECE_BYTES)
            try:
                pieces.append(self._frame.decompress(compressed))
            except self._package.ZstdError as error:
                raise _DamagedError(str(error)) from error
            compressed = b""
            if self._frame.eof:
                compressed, self._frame = self._frame.unused_data, None
        return b"".join(pieces)
