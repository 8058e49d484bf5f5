"""The documents of a corpus: files of text, and the lines of files of JSON lines."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lm_core.data.compression import opened_text
from lm_core.data.digest_thread import DigestThread
from lm_core.data.text_files import Block, blocks_of, is_json_lines
from lm_core.errors import InputError, shown

# A line of JSON is held as a whole, and what JSON makes of it takes up to some twenty times as
# much: longer ones are refused, so that a gigabyte or two is the most, whatever a file holds.
LONGEST_LINE = 64 * 2**20
# So much of a file of JSON lines is read at once.
_READ_BYTES = 2**18
# What JSON lines may begin with where they are from Windows: the byte-order mark of UTF-8.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# An object may have many keys; a message shows so many of them.
_KEYS_SHOWN = 8
# So much of a document decides whether it is held out. Headers and licences are shorter.
_BEGINNING_BYTES = 2**16
# Bits of a document's key.
KEY_BITS = 64
# Bytes of a number of 64 bits, such as a document's key or its length.
_NUMBER_BYTES = 8


def documents_of(
    path: Path, text_key: str, tell: Callable[[int], None] = lambda n_bytes: None
) -> Iterator[Block]:
    """The documents of a file, each in one or more blocks, of which the last says so.

    A document without text is none.

    Args:
        path: The file: of JSON lines, where its name says so, or of text, which is one document.
        text_key: What the text is called in each JSON object.
        tell: Called with the number of bytes of the file that were read, each time.

    Raises:
        InputError: It cannot be read or is damaged, or a line is no JSON object with a text; names
            the file and the line.
    """
    if not is_json_lines(path):
        yield from blocks_of(path, tell)
        return
    for number, line in enumerate(_lines(path, tell), 1):
        if line and not line.isspace():
            data = _text_of(line, text_key, f"{path}: line {number:,}")
            if data:
                yield Block(data, str(path), 0, ends_document=True, line=number)


def _lines(path: Path, tell: Callable[[int], None]) -> Iterator[bytes]:
    """The lines of a file without their ends."""
    number, pieces, size, place = 1, [], 0, 0
    with opened_text(path) as (content, file):
        while data := content.read(_READ_BYTES):
            if not place:
                data = data.removeprefix(_BYTE_ORDER_MARK)
            first, *others = data.split(b"\n")
            pieces.append(first)
            size += len(first)
            if size > LONGEST_LINE:
                message = f"{path}: line {number:,} has more than {LONGEST_LINE:,} bytes"
                raise InputError(f"{message}, the most that one may have: split the document")
            if others:
                yield b"".join(pieces)
                yield from others[:-1]
                number += len(others)
                pieces, size = others[-1:], len(others[-1])
            before, place = place, file.tell()
            tell(place - before)
    if size:
        yield b"".join(pieces)


def _text_of(line: bytes, text_key: str, where: str) -> bytes:
    """The text in a JSON object, as UTF-8."""
    try:
        found = _value_of(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        place = f"byte {error.start:,} of it is 0x{line[error.start]:02x}, which is not UTF-8"
        raise InputError(f"{where}: {place}") from error
    except json.JSONDecodeError as error:
        place = f"column {error.pos + 1:,}"
        raise InputError(f"{where} is no JSON: {error.msg}, at {place}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{where} is no JSON that can be read: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{where} is no JSON object with a {text_key!r}: {shown(found)}")
    if text_key not in found:
        keys = ", ".join(shown(key) for key in list(found)[:_KEYS_SHOWN]) or "none"
        hint = "YAML key text_key, gin parameter load_corpus.text_key, names the one with the text"
        raise InputError(f"{where} has no key {text_key!r}, but {keys}; {hint}")
    text = found[text_key]
    if not isinstance(text, str):
        raise InputError(f"{where}: its {text_key!r} is no text: {shown(text)}")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        place = f"character {error.start + 1:,} of its {text_key!r} is half of a surrogate pair"
        raise InputError(f"{where}: {place}, which is no text") from error


def _value_of(text: str) -> Any:
    """What JSON stands for; integers that Python refuses to read, of thousands of digits, too."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # What numbers stand beside a text is nobody's concern.
        return json.loads(text, parse_int=float)


def key_of(beginning: bytes) -> int:
    """A number below ``2**KEY_BITS`` that looks random, and is the same for equal beginnings.

    It depends on nothing else, so that a document keeps its key wherever it stands.

    Args:
        beginning: The first block of a document.
    """
    digest = hashlib.blake2b(beginning[:_BEGINNING_BYTES], digest_size=_NUMBER_BYTES)
    return int.from_bytes(digest.digest(), "little")


class Documents(NamedTuple):
    """What tells the documents of a corpus from others of the same text.

    Attributes:
        n_documents: How many there are.
        lengths: SHA-256 of their lengths in bytes, each a number of 64 bits, least byte first.
        smallest_key: The smallest of their keys, as ``key_of`` has them.
        largest_key: The largest.
    """

    n_documents: int
    lengths: str
    smallest_key: int
    largest_key: int


class DocumentCounter:
    """Finds out about the documents of a text that comes in blocks."""

    def __init__(self) -> None:
        self._n_documents, self._n_bytes = 0, 0
        self._lengths = hashlib.sha256()
        self._smallest_key, self._largest_key = 2**KEY_BITS, -1

    def add(self, block: Block) -> None:
        """Takes the next block."""
        if not self._n_bytes:
            key = key_of(block.data)
            self._smallest_key = min(key, self._smallest_key)
            self._largest_key = max(key, self._largest_key)
        self._n_bytes += len(block.data)
        if block.ends_document:
            self._n_documents += 1
            self._lengths.update(self._n_bytes.to_bytes(_NUMBER_BYTES, "little"))
            self._n_bytes = 0

    def found(self) -> Documents:
        """What was found; there was a document at least."""
        return Documents(
            self._n_documents, self._lengths.hexdigest(), self._smallest_key, self._largest_key
        )


class TextDigest(DigestThread):
    """The SHA-256 of a text: of all its bytes, or also of where each document ends.

    Args:
        tells_documents: Whether each document is followed by a zero byte, which no text holds.
    """

    def __init__(self, tells_documents: bool) -> None:
        super().__init__()
        self._tells_documents = tells_documents

    def add(self, block: Block) -> None:
        """Takes the next block."""
        self.update(block.data)
        if self._tells_documents and block.ends_document:
            self.update(b"\0")
