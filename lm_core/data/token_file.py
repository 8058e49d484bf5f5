"""A file of tokens that says of itself whether it is whole.

It is made of three parts, each of which tells whether it is damaged:

- the header, of a fixed size: eight bytes that name the format, the SHA-256 of the rest of the
  header, and JSON: what the tokens are of, how many there are, and the SHA-256 of the checksums;
- the tokens, as numpy holds them, at an offset that any system can map into memory;
- the checksums: the CRC-32 of each block of the tokens.

To open a file, the header, the checksums and the size are checked, which takes no time; the blocks
are checked on demand. A CRC-32 notices every burst of errors that is no longer than four bytes, and
of others all but one in four thousand million.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

_MAGIC = b"lmtoken1"
# A multiple of the size of a page of memory, on any system that there is.
HEADER_BYTES = 2**16
# Bytes of tokens that have a checksum together; a multiple of the size of any token.
BLOCK_BYTES = 4 * 2**20
# So much is written before the disk is told to take it, so that the end need not wait for all.
_SYNCED_BYTES = 128 * 2**20
# How checksums are stored, least byte first.
_CHECKSUM = np.dtype("<u4")
# The bytes of a SHA-256 itself.
_DIGEST_BYTES = 32


class DamagedFileError(Exception):
    """A file of tokens is not as it was written; the message says in what way."""


class TokenFileWriter:
    """Writes tokens into a new file. Only after ``finish`` is it a whole one.

    Args:
        stream: The file, empty, at its start.
        dtype: Type of the tokens.
        content: What the tokens are of, as plain data that JSON can hold.
    """

    def __init__(self, stream: BinaryIO, dtype: np.dtype, content: dict[str, Any]) -> None:
        self._stream = stream
        self._dtype = dtype
        self._content = content
        self._n_bytes = 0
        self._checksums: list[int] = []
        self._syncing: Future[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fsync")
        # No header has this content, so that nobody takes an unfinished file for a whole one.
        stream.write(bytes(HEADER_BYTES))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    @property
    def n_tokens(self) -> int:
        """How many tokens were written so far."""
        return self._n_bytes // self._dtype.itemsize

    def write(self, tokens: np.ndarray) -> None:
        """Adds tokens, ``(n_tokens,)`` of the file's type.

        Raises:
            OSError: The disk takes no more.
        """
        data = memoryview(np.ascontiguousarray(tokens)).cast("B")
        self._stream.write(data)
        before = self._n_bytes
        while data:
            room = BLOCK_BYTES - self._n_bytes % BLOCK_BYTES
            if room == BLOCK_BYTES:
                self._checksums.append(0)
            part = data[:room]
            self._checksums[-1] = zlib.crc32(part, self._checksums[-1])
            self._n_bytes += len(part)
            data = data[room:]
        if before // _SYNCED_BYTES < self._n_bytes // _SYNCED_BYTES:
            self._begin_to_sync()

    def finish(self) -> None:
        """Writes the checksums and the header, and waits until the disk has everything.

        Raises:
            OSError: The disk takes no more.
        """
        checksums = np.array(self._checksums, dtype=_CHECKSUM).tobytes()
        self._stream.write(checksums)
        fields = {
            "content": self._content,
            "dtype": self._dtype.str,
            "tokens": self.n_tokens,
            "checksums": hashlib.sha256(checksums).hexdigest(),
        }
        text = json.dumps(fields).encode()
        text = text.ljust(HEADER_BYTES - len(_MAGIC) - _DIGEST_BYTES)
        self._stream.seek(0)
        self._stream.write(_MAGIC + hashlib.sha256(text).digest() + text)
        self._begin_to_sync()
        self._wait()

    def _begin_to_sync(self) -> None:
        """Has the disk take what is written so far, while more is being made.

        It waits for the time before, so that never more than two pieces are on their way.
        """
        self._wait()
        self._stream.flush()
        self._syncing = self._thread.submit(os.fsync, self._stream.fileno())

    def _wait(self) -> None:
        if self._syncing is not None:
            self._syncing.result()


class TokenFile:
    """An open file of tokens whose header, checksums and size are sound.

    Attributes:
        tokens: ``(n_tokens,)``, mapped from the file, read-only.

    Args:
        stream: The file.
        dtype: Type of the tokens that are expected.
        content: What they are expected to be of.

    Raises:
        DamagedFileError: It is none, it is cut off or damaged, or it holds something else.
        OSError: It cannot be read.
    """

    def __init__(self, stream: BinaryIO, dtype: np.dtype, content: dict[str, Any]) -> None:
        fields = _read_header(stream)
        if (fields.get("content"), fields.get("dtype")) != (content, dtype.str):
            raise DamagedFileError("it holds other tokens than its name says")
        n_tokens = fields.get("tokens")
        if not isinstance(n_tokens, int) or n_tokens < 1:
            raise DamagedFileError("its header gives no number of tokens")
        n_bytes = n_tokens * dtype.itemsize
        n_checksums = -(-n_bytes // BLOCK_BYTES)
        size = HEADER_BYTES + n_bytes + n_checksums * _CHECKSUM.itemsize
        # Nothing is read or mapped by a number that the size of the file does not bear out.
        found = os.fstat(stream.fileno()).st_size
        if found != size:
            raise DamagedFileError(f"it has {found:,} bytes, and should have {size:,}")
        stream.seek(HEADER_BYTES + n_bytes)
        checksums = stream.read(n_checksums * _CHECKSUM.itemsize)
        if hashlib.sha256(checksums).hexdigest() != fields.get("checksums"):
            raise DamagedFileError("its checksums are damaged")
        self._stream = stream
        self._checksums = np.frombuffer(checksums, dtype=_CHECKSUM).tolist()
        self.tokens = np.memmap(stream, dtype, "r", offset=HEADER_BYTES, shape=(n_tokens,))

    def verify(self, vocab_size: int, tell: Callable[[int], None] = lambda n_bytes: None) -> None:
        """Reads all tokens.

        Args:
            vocab_size: Number of different tokens; no token may be beyond.
            tell: Called with the size of each block that was read.

        Raises:
            DamagedFileError: A block is not what was written.
        """
        n_left, dtype = self.tokens.nbytes, self.tokens.dtype
        self._stream.seek(HEADER_BYTES)
        for checksum in self._checksums:
            first = self._stream.tell()
            # Read, not mapped: a disk that fails is an error then, and does not end the program.
            size = min(BLOCK_BYTES, n_left)
            block = self._stream.read(size)
            n_left -= size
            if len(block) < size or zlib.crc32(block) != checksum:
                last = first + size - 1
                raise DamagedFileError(f"the block of its bytes {first:,} to {last:,} is damaged")
            if int(np.frombuffer(block, dtype).max()) >= vocab_size:
                raise DamagedFileError("it holds tokens that the vocabulary lacks")
            tell(len(block))


def _read_header(stream: BinaryIO) -> dict[str, Any]:
    header = stream.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or not header.startswith(_MAGIC):
        raise DamagedFileError("it does not begin like a file of tokens")
    digest, text = header[len(_MAGIC) :][:_DIGEST_BYTES], header[len(_MAGIC) + _DIGEST_BYTES :]
    if hashlib.sha256(text).digest() != digest:
        raise DamagedFileError("its header is damaged")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError("its header is no JSON") from error
    if not isinstance(fields, dict):
        raise DamagedFileError("its header is no JSON object")
    return fields
