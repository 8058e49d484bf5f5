"""The text that is trained on: one file, many files, or the built-in corpus."""

import glob
import hashlib
import importlib
import os
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import gin
import numpy as np

from lm_core.data.cache_folder import LARGEST_IN_MEMORY, default_cache_folder
from lm_core.data.characters import OccurringCharacters
from lm_core.data.corpus_record import Findings, keep_findings, recorded_findings
from lm_core.data.digest_thread import DigestThread
from lm_core.data.text_files import (
    Block,
    TextFile,
    blocks_of,
    check_text,
    described,
    find_files,
    is_glob,
    reason_of,
)
from lm_core.errors import InputError, MachineError
from lm_core.progress import BytesProgress

BUILT_IN = "the built-in corpus (the documentation of Python)"


@dataclass(frozen=True)
class Corpus:
    """A text that has been read once from end to end and found good.

    Attributes:
        path: What names it, as an absolute path or glob; None for the built-in corpus.
        files: Its files, in the order they are joined.
        sha256: SHA-256 of all its bytes: what ``cat FILES | sha256sum`` prints.
        n_bytes: Their number.
        characters: The characters that occur in it, sorted by code point.
    """

    path: str | None
    files: tuple[TextFile, ...]
    sha256: str
    n_bytes: int
    characters: str

    @property
    def description(self) -> str:
        """What to call it in a message."""
        return BUILT_IN if self.path is None else self.path

    def blocks(self) -> Iterator[Block]:
        """The text from its start, in blocks that take little memory.

        Raises:
            InputError: A file is not what it was when the corpus was loaded. What changes while
                it is being read shows at the end, when the SHA-256 is another one.
        """
        if self.path is None:
            yield Block(_built_in_text(), BUILT_IN, 0)
            return
        with DigestThread() as digest:
            for file in self.files:
                if not file.is_as_it_was():
                    raise InputError(f"{file.path} has changed since this command began to read it")
                for block in blocks_of(file.path):
                    digest.update(block.data)
                    yield block
            if digest.hexdigest() != self.sha256:
                message = f"{self.path} has changed since this command began to read it"
                # What is written through a memory map may leave the times of a file as they were.
                hint = "--verify_corpus reads it again, whatever was recorded of it before"
                raise InputError(f"{message}; {hint}")


@gin.configurable(denylist=["verify", "cache_folder", "largest_in_memory"])
def load_corpus(
    path: str | None = None,
    verify: bool = False,
    cache_folder: Path | None = None,
    largest_in_memory: int = LARGEST_IN_MEMORY,
) -> Corpus:
    """Finds a text, reads it once, and makes sure that it is one.

    What was found in a large corpus is recorded, and as long as its files stay as they are, they
    are not read again.

    Args:
        path: A UTF-8 file; or a folder, for its ``*.txt`` at any depth; or a glob, where ``**``
            is any depth. Several files are joined in sorted order, with nothing between them.
            None: the built-in corpus, about half a megabyte of English and code that every
            CPython carries (``pydoc_data.topics``).
        verify: Whether to read it whatever is recorded.
        cache_folder: Where that is recorded; None: ``default_cache_folder``.
        largest_in_memory: Size in bytes from which a corpus counts as large.

    Raises:
        InputError: There is no text there, it cannot be read, or it is not UTF-8 text; names the
            file, and the byte where that helps.
        MachineError: There is no folder for the record of a large corpus.
    """
    if path is None:
        return _built_in_corpus()
    started_ns = time.time_ns()
    try:
        files = tuple(described(file) for file in find_files(path))
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"corpus: {path!r} cannot be read: {reason_of(error)}") from error
    name = absolute_path(path)
    if sum(file.size for file in files) <= largest_in_memory:
        return Corpus(name, files, *_found_in(path, files))
    folder = cache_folder or default_cache_folder()
    findings = None if verify else recorded_findings(folder, files)
    if findings is None:
        n_bytes = sum(file.size for file in files)
        with BytesProgress("reading the corpus", n_bytes) as progress:
            findings = _found_in(path, files, progress.add)
        if files == tuple(described(file.path) for file in files):
            keep_findings(folder, files, findings, started_ns)
    return Corpus(name, files, *findings)


def _found_in(
    path: str, files: Sequence[TextFile], tell: Callable[[int], None] = lambda n_bytes: None
) -> Findings:
    """Reads the files of a corpus.

    Args:
        path: What names it.
        files: Its files.
        tell: Called with the size of each block that was read.
    """
    n_bytes, occurring = 0, OccurringCharacters()
    with DigestThread() as digest:
        for file in files:
            for block in blocks_of(file.path):
                digest.update(block.data)
                try:
                    occurring.add(block.data)
                except UnicodeDecodeError:
                    check_text(block)
                    raise
                if b"\0" in block.data:
                    check_text(block)
                n_bytes += len(block.data)
                tell(len(block.data))
        if not n_bytes:
            raise InputError(f"corpus: {path!r} is empty")
        return Findings(digest.hexdigest(), n_bytes, occurring.sorted())


def _built_in_corpus() -> Corpus:
    text, occurring = _built_in_text(), OccurringCharacters()
    occurring.add(text)
    return Corpus(None, (), hashlib.sha256(text).hexdigest(), len(text), occurring.sorted())


def absolute_path(path: str) -> str:
    """The name under which a corpus is found from any working directory.

    Args:
        path: A file, a folder or a glob, as ``load_corpus`` takes it.
    """
    expanded = os.path.expanduser(path)  # noqa: PTH111 -- a glob is no path
    if is_glob(expanded):
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
        for character in typographic:
            # Many times faster than str.translate, which looks every character up.
            text = text.replace(character, plain)
    return unicodedata.normalize("NFKD", text).encode("ascii", errors="replace")
