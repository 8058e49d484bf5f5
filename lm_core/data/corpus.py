"""The text that is trained on: one file, many files, or the built-in corpus."""

import glob
import hashlib
import importlib
import os
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gin

from lm_core.data.build_lock import only_one
from lm_core.data.cache_folder import LARGEST_IN_MEMORY, default_cache_folder
from lm_core.data.characters import OccurringCharacters
from lm_core.data.corpus_record import Findings, findings_path, keep_findings, recorded_findings
from lm_core.data.documents import DocumentCounter, Documents, TextDigest, documents_of
from lm_core.data.text_files import (
    Block,
    TextFile,
    check_text,
    described,
    find_files,
    is_compressed,
    is_glob,
    is_json_lines,
    reason_of,
)
from lm_core.errors import InputError, MachineError
from lm_core.progress import BytesProgress

# Text compresses to a fourth or less; what may be so many times as much counts as much.
_LIKELY_EXPANSION = 8
BUILT_IN = "the built-in corpus (the documentation of Python)"


@dataclass(frozen=True)
class Corpus:
    """A text that has been read once from end to end and found good.

    It is made of documents: each file of text is one, and so is each line of JSON.

    Attributes:
        path: What names it, as an absolute path or glob; None for the built-in corpus.
        files: Its files, in the order they are joined.
        text_key: What the text is called in JSON lines.
        sha256: SHA-256 of all its bytes: what ``cat FILES | sha256sum`` prints, when compressed
            ones are decompressed. With JSON lines among the files, each document is followed by a
            zero byte: what ``jq --raw-output0 .text FILES | sha256sum`` prints.
        n_bytes: Bytes of all documents.
        characters: The characters that occur in it, sorted by code point, with a line feed where
            ``joint`` is one.
        documents: What is known about the documents.
    """

    path: str | None
    files: tuple[TextFile, ...]
    text_key: str
    sha256: str
    n_bytes: int
    characters: str
    documents: Documents

    @property
    def description(self) -> str:
        """What to call it in a message."""
        return BUILT_IN if self.path is None else self.path

    @property
    def extent(self) -> str:
        """How much there is of it, in words: ``1,234 bytes in 2 files, 56 documents``.

        A person sees there whether a folder or a glob stood for what was meant, and whether a text
        in JSON lines was divided as it was.
        """
        words = f"{self.n_bytes:,} bytes"
        if len(self.files) > 1:
            words += f" in {len(self.files):,} files"
        if self.joint:
            n_documents = self.documents.n_documents
            words += f", {n_documents:,} " + ("document" if n_documents == 1 else "documents")
        return words

    def record(self) -> dict[str, Any]:
        """What a manifest says of it, as plain data."""
        n_documents, lengths = self.documents[:2]
        documents = {"number": n_documents, "lengths": lengths}
        text = {"path": self.path, "sha256": self.sha256, "bytes": self.n_bytes}
        return {**text, "documents": documents}

    def is_recorded_in(self, record: Mapping[str, Any], with_documents: bool) -> bool:
        """Whether a manifest speaks of this text.

        Args:
            record: What it says, as ``record`` has it, or an older lab, which counted no documents.
            with_documents: Whether the same text in other documents is another one.
        """
        is_same = record["sha256"] == self.sha256
        if with_documents and "documents" in record:
            is_same &= record["documents"] == self.record()["documents"]
        return is_same

    @property
    def joint(self) -> bytes:
        """What a document ends with in a text of all of them, where no token does that.

        Nothing for files of text, which are joined as they are; with JSON lines among the files a
        line feed, which a document that ends in one already has.
        """
        return b"\n" if any(is_json_lines(file.path) for file in self.files) else b""

    def blocks(self) -> Iterator[Block]:
        """The text from its start, in blocks that take little memory, but for long JSON lines.

        Raises:
            InputError: A file is not what it was when the corpus was loaded. What changes while
                it is being read shows at the end, when the SHA-256 is another one.
        """
        if self.path is None:
            yield Block(_built_in_text(), BUILT_IN, 0, ends_document=True)
            return
        with TextDigest(bool(self.joint)) as digest:
            for file in self.files:
                if not file.is_as_it_was():
                    raise InputError(f"{file.path} has changed since this command began to read it")
                for block in documents_of(file.path, self.text_key):
                    digest.add(block)
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
    text_key: str = "text",
) -> Corpus:
    """Finds a text, reads it once, and makes sure that it is one.

    What was found in a large corpus is recorded, and as long as its files stay as they are, they
    are not read again.

    Args:
        path: A UTF-8 file, or one of JSON lines, compressed or not, as its name says; or a folder,
            for such files at any depth; or a glob, where ``**`` is any depth. Several files are
            joined in sorted order.
            None: the built-in corpus, about half a megabyte of English and code that every
            CPython carries (``pydoc_data.topics``).
        verify: Whether to read it whatever is recorded.
        cache_folder: Where that is recorded; None: ``default_cache_folder``.
        largest_in_memory: Size in bytes from which a corpus counts as large.
        text_key: What the text is called in each object of JSON lines.

    Raises:
        InputError: There is no text there, it cannot be read, or it is not UTF-8 text; names the
            file, and the byte or line where that helps.
        MachineError: There is no folder for the record of a large corpus.
    """
    if path is None:
        return _built_in_corpus(text_key)
    started_ns = time.time_ns()
    try:
        files = tuple(described(file) for file in find_files(path))
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"corpus: {path!r} cannot be read: {reason_of(error)}") from error
    reading = _Reading(path, files, text_key, started_ns)
    if not reading.may_exceed(largest_in_memory):
        findings = reading.findings()
    else:
        findings = reading.recorded_findings(cache_folder, verify, largest_in_memory)
    return Corpus(absolute_path(path), files, text_key, *findings)


@dataclass(frozen=True)
class _Reading:
    """The files of a corpus that is to be read.

    Attributes:
        path: What names it.
        files: Its files.
        text_key: What the text is called in JSON lines.
        started_ns: The time before they were looked at, in nanoseconds since 1970.
    """

    path: str
    files: Sequence[TextFile]
    text_key: str
    started_ns: int

    @property
    def _n_bytes(self) -> int:
        """Bytes of the files as they lie there."""
        return sum(file.size for file in self.files)

    @property
    def _likely_bytes(self) -> int:
        """Bytes of text, or more; of compressed files this is not known beforehand."""
        return sum(
            file.size * (_LIKELY_EXPANSION if is_compressed(file.path) else 1)
            for file in self.files
        )

    def may_exceed(self, n_bytes: int) -> bool:
        """Whether there may be more text: a compressed file may hold any amount of it."""
        return self._n_bytes > n_bytes or any(is_compressed(file.path) for file in self.files)

    def recorded_findings(
        self, folder: Path | None, verify: bool, largest_in_memory: int
    ) -> Findings:
        """What is found, or was found before; of several processes that want it, one reads.

        Args:
            folder: Where it is recorded; None: ``default_cache_folder``.
            verify: Whether to read whatever is recorded.
            largest_in_memory: Size in bytes from which it is worth a record.

        Raises:
            MachineError: There is no folder for the record.
        """
        is_likely_small = self._likely_bytes <= largest_in_memory
        try:
            folder = folder or default_cache_folder()
        except MachineError:
            # Reading tells whether one is needed.
            findings = self.findings() if is_likely_small else None
            if findings is None or findings.n_bytes > largest_in_memory:
                raise
            return findings
        json_key = self.text_key if any(is_json_lines(f.path) for f in self.files) else None
        known = None if verify else recorded_findings(folder, self.files, json_key)
        if known is not None:
            return known
        if is_likely_small:
            findings = self.findings()
        else:
            with only_one(findings_path(folder, self.files, json_key), "reads the corpus"):
                known = None if verify else recorded_findings(folder, self.files, json_key)
                if known is not None:
                    return known
                with BytesProgress("reading the corpus", self._n_bytes) as progress:
                    findings = self.findings(progress.add)
                self._keep(folder, findings, json_key)
            return findings
        if findings.n_bytes > largest_in_memory:
            self._keep(folder, findings, json_key)
        return findings

    def _keep(self, folder: Path, findings: Findings, json_key: str | None) -> None:
        if tuple(self.files) == tuple(described(file.path) for file in self.files):
            keep_findings(folder, self.files, findings, self.started_ns, json_key)

    def findings(self, tell: Callable[[int], None] = lambda n_bytes: None) -> Findings:
        """Reads the files.

        Args:
            tell: Called with the bytes of the files that were read, each time.
        """
        n_bytes, occurring, documents = 0, OccurringCharacters(), DocumentCounter()
        is_joined = any(is_json_lines(file.path) for file in self.files)
        with TextDigest(is_joined) as digest:
            for file in self.files:
                for block in documents_of(file.path, self.text_key, tell):
                    digest.add(block)
                    documents.add(block)
                    try:
                        occurring.add(block.data)
                    except UnicodeDecodeError:
                        check_text(block)
                        raise
                    if b"\0" in block.data:
                        check_text(block)
                    n_bytes += len(block.data)
            if not n_bytes:
                raise InputError(f"corpus: {self.path!r} is empty")
            if is_joined:
                occurring.add(b"\n")
            return Findings(digest.hexdigest(), n_bytes, occurring.sorted(), documents.found())


def _built_in_corpus(text_key: str) -> Corpus:
    text, occurring, documents = _built_in_text(), OccurringCharacters(), DocumentCounter()
    occurring.add(text)
    documents.add(Block(text, BUILT_IN, 0, ends_document=True))
    digest = hashlib.sha256(text).hexdigest()
    return Corpus(None, (), text_key, digest, len(text), occurring.sorted(), documents.found())


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
