"""The text that is trained on: one file, many files, or the built-in corpus."""

import bisect
import glob
import hashlib
import importlib
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import gin
import numpy as np

from lm_core.errors import InputError, MachineError

# Large enough that reading costs little, small enough for any memory.
_BLOCK_BYTES = 4 * 2**20
# UTF-8 spells a character in at most four bytes, the first of which is no continuation byte.
_LONGEST_CHARACTER = 4
# A byte of UTF-8 below the first of these is a whole character, and one from the second, third and
# fourth on is the first of two, three and four bytes (RFC 3629, section 3).
_FIRST_BYTES = (0b1000_0000, 0b1100_0000, 0b1110_0000, 0b1111_0000)
BUILT_IN = "the built-in corpus (the documentation of Python)"


class Block(NamedTuple):
    """A piece of the text that splits no character.

    Attributes:
        data: UTF-8.
        place: The file it is from, or the built-in corpus, for messages.
        offset: Bytes of that file before this block.
    """

    data: bytes
    place: str
    offset: int


class TextFile(NamedTuple):
    """A file of the corpus as it was when it was checked: path, size and modification time."""

    path: Path
    size: int
    modified_ns: int


@dataclass(frozen=True)
class Corpus:
    """A text that has been read once from end to end and found good.

    Attributes:
        path: What names it, as an absolute path or glob; None for the built-in corpus.
        files: Its files, in the order they are joined.
        sha256: SHA-256 of all its bytes: what ``cat FILES | sha256sum`` prints.
        n_bytes: Their number.
    """

    path: str | None
    files: tuple[TextFile, ...]
    sha256: str
    n_bytes: int

    @property
    def description(self) -> str:
        """What to call it in a message."""
        return BUILT_IN if self.path is None else self.path

    def blocks(self) -> Iterator[Block]:
        """The text from its start, in blocks of a few megabytes.

        Raises:
            InputError: A file is not what it was when the corpus was loaded. What changes while
                it is being read shows at the end, when the SHA-256 is another one.
        """
        if self.path is None:
            yield Block(_built_in_text(), BUILT_IN, 0)
            return
        digest = hashlib.sha256()
        for file in self.files:
            if _described(file.path) != file:
                raise InputError(f"{file.path} has changed since this command began to read it")
            for block in blocks_of(file.path):
                digest.update(block.data)
                yield block
        if digest.hexdigest() != self.sha256:
            raise InputError(f"{self.path} has changed since this command began to read it")


@gin.configurable
def load_corpus(path: str | None = None) -> Corpus:
    """Finds a text, reads it once, and makes sure that it is one.

    Args:
        path: A UTF-8 file; or a folder, for its ``*.txt`` at any depth; or a glob, where ``**``
            is any depth. Several files are joined in sorted order, with nothing between them.
            None: the built-in corpus, about half a megabyte of English and code that every
            CPython carries (``pydoc_data.topics``).

    Raises:
        InputError: There is no text there, it cannot be read, or it is not UTF-8 text; names the
            file, and the byte where that helps.
    """
    if path is None:
        text = _built_in_text()
        return Corpus(None, (), hashlib.sha256(text).hexdigest(), len(text))
    try:
        paths = _find_files(path)
        files = tuple(_described(file) for file in paths)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"corpus: {path!r} cannot be read: {_reason(error)}") from error
    digest, n_bytes = hashlib.sha256(), 0
    for file in files:
        for block in blocks_of(file.path):
            _check_text(block)
            digest.update(block.data)
            n_bytes += len(block.data)
    if not n_bytes:
        raise InputError(f"corpus: {path!r} is empty")
    return Corpus(absolute_path(path), files, digest.hexdigest(), n_bytes)


def absolute_path(path: str) -> str:
    """The name under which a corpus is found from any working directory.

    Args:
        path: A file, a folder or a glob, as ``load_corpus`` takes it.
    """
    expanded = os.path.expanduser(path)  # noqa: PTH111 -- a glob is no path
    if _is_glob(expanded):
        # The working directory is meant literally, whatever its name looks like.
        expanded = os.path.join(glob.escape(os.getcwd()), expanded)  # noqa: PTH109, PTH118
    return os.path.abspath(expanded)  # noqa: PTH100 -- keeps links


@gin.configurable(denylist=["tokens"])
def split_corpus(tokens: np.ndarray, train_ratio: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Cuts the corpus into its beginning, to train on, and its end, held out for validation.

    Args:
        tokens: ``(n_tokens,)``.
        train_ratio: Share of the first part, between 0 and 1.

    Returns:
        Views of the two parts; nothing is copied.

    Raises:
        InputError: A ratio that leaves one part nothing by definition.
    """
    if not 0 < train_ratio < 1:
        raise InputError(f"train_ratio is {train_ratio}; it must be greater than 0 and below 1")
    n_training = int(len(tokens) * train_ratio)
    return tokens[:n_training], tokens[n_training:]


def _built_in_text() -> bytes:
    """The topics of Python's documentation as ASCII; differs a little between versions."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        message = (
            "this Python has no pydoc_data.topics, the built-in corpus; name one with --corpus"
        )
        raise MachineError(message) from error
    text = "".join(topics[name] for name in sorted(topics))
    for typographic, plain in (("‘’‚‛", "'"), ("“”„‟", '"'), ("‐‑‒–—―−", "-")):  # noqa: RUF001
        text = text.translate(dict.fromkeys(map(ord, typographic), plain))
    return unicodedata.normalize("NFKD", text).encode("ascii", errors="replace")


def _find_files(path: str) -> list[Path]:
    if not path:
        raise InputError("the path of the corpus is empty")
    given = Path(path).expanduser()
    if given.is_dir():
        files = sorted(Path(name) for name in _files_below(given) if name.endswith(".txt"))
        if not files:
            raise InputError(f"corpus: {path!r} is a folder without a *.txt file at any depth")
        return files
    if not _is_glob(str(given)):
        return [given]
    files = sorted(match for match in _matches(given) if match.is_file())
    if not files:
        raise InputError(f"corpus: {path!r} is a glob that matches no file")
    return files


def _is_glob(path: str) -> bool:
    return glob.has_magic(path) and not Path(path).exists()


def _matches(pattern: Path) -> Iterator[Path]:
    """The matches of a glob; ``**`` goes through folders, not through links to them."""
    n_plain = next(i for i, part in enumerate(pattern.parts) if glob.has_magic(part))
    return Path(*pattern.parts[:n_plain]).glob(str(Path(*pattern.parts[n_plain:])))


def _files_below(folder: Path) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise error

    # Links to folders are not followed, so that a loop of them ends.
    for root, _, names in os.walk(folder, onerror=fail):
        for name in names:
            yield str(Path(root, name))


def _described(path: Path) -> TextFile:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise InputError(f"corpus: {str(path)!r} does not exist") from error
    except OSError as error:
        raise InputError(f"corpus: {str(path)!r} cannot be read: {_reason(error)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"corpus: {str(path)!r} is not a regular file")
    return TextFile(path, status.st_size, status.st_mtime_ns)


def blocks_of(path: Path) -> Iterator[Block]:
    """The bytes of a file, cut only between characters where they are UTF-8.

    Raises:
        InputError: It cannot be read.
    """
    offset, rest = 0, b""
    try:
        with path.open("rb") as stream:
            while data := stream.read(_BLOCK_BYTES):
                data = rest + data
                end = _end_of_last_character(data)
                rest = data[end:]
                yield Block(data[:end], str(path), offset)
                offset += end
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}") from error
    if rest:
        yield Block(rest, str(path), offset)


def _end_of_last_character(data: bytes) -> int:
    """Where the last whole character ends."""
    for back in range(1, min(_LONGEST_CHARACTER, len(data)) + 1):
        byte = data[-back]
        length = bisect.bisect_right(_FIRST_BYTES, byte)
        if length == 0:
            break
        if length > 1:
            return len(data) - back if back < length else len(data)
    return len(data)


def _check_text(block: Block) -> None:
    bad = block.data.find(b"\0")
    reason = "a zero byte, which no text holds"
    try:
        block.data.decode("utf-8")
    except UnicodeDecodeError as error:
        if bad < 0 or error.start < bad:
            bad, reason = error.start, f"0x{block.data[error.start]:02x}, which is not UTF-8"
    if bad >= 0:
        place = f"byte {block.offset + bad:,} is {reason}"
        raise InputError(f"{block.place} is not UTF-8 text: {place}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
