"""The tokens of a corpus: in memory when it is small, in a memory-mapped file when it is large."""

import contextlib
import hashlib
import itertools
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lm_core.atomic_files import sync_folder
from lm_core.data.build_lock import only_one
from lm_core.data.cache_folder import LARGEST_IN_MEMORY, cannot_keep, default_cache_folder
from lm_core.data.corpus import Corpus
from lm_core.data.splitting import POSITION, Split
from lm_core.data.text_files import Block
from lm_core.data.token_file import DamagedFileError, TokenFile, TokenFileWriter
from lm_core.data.tokenizer import Tokenizer
from lm_core.errors import InputError
from lm_core.output import warn
from lm_core.progress import BytesProgress

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None  # type: ignore[assignment]

# The version of the files and of what tokenizers do; another one has files of its own.
_FORMAT = 2
# 128 bits in hexadecimal: no two texts share a name.
_DIGEST_LENGTH = 32
# So many digits tell the few machines apart that share a folder.
_HOST_LENGTH = 8
_PART = ".part"
# The parts of a split, by their numbers.
PARTS = ("training", "validation")
# Random bytes in the name of a part: no two ever have the same.
_NAME_BYTES = 8
# An encoding writes all the time; a part that nobody wrote to for an hour is nobody's.
_STALE_AFTER_SECONDS = 3600
# Records that lie in the folder too, as ``atomic_files.temporary_name`` has them written first.
_RECORD_BEGUN = re.compile(r"\.[0-9a-f]{32}\.(corpus|tokenizer)\.json\.[0-9]+\.tmp", re.ASCII)


def encode_corpus(
    corpus: Corpus,
    tokenizer: Tokenizer,
    cache_folder: Path | None = None,
    largest_in_memory: int = LARGEST_IN_MEMORY,
    verify: bool = False,
) -> np.ndarray:
    """The token ids of a corpus, ``(n_tokens,)`` of the tokenizer's dtype, read-only.

    Args:
        corpus: The text.
        tokenizer: How to encode it.
        cache_folder: Where the tokens of a large corpus are kept; None: the folder that the
            environment variable ``LM_CORE_CACHE`` names, or the user's cache folder.
        largest_in_memory: Size in bytes from which a corpus counts as large, unless the tokenizer
            is slow, and has a smaller one.
        verify: Whether to read all tokens that are kept, and compare them with their checksums.

    Returns:
        An array, or for a large corpus a memory map of a file whose name is its content's: the
        next run with the same text and tokenizer opens it at once, and of several processes that
        want it at once, one makes it.

    Raises:
        InputError: A character that the tokenizer lacks.
        MachineError: The file cannot be written.
    """
    whole = _Encoding(corpus, tokenizer, lambda: ((0, block) for block in corpus.blocks()))
    return whole.tokens(cache_folder, largest_in_memory, verify)[0]


def encode_split(
    split: Split,
    tokenizer: Tokenizer,
    cache_folder: Path | None = None,
    largest_in_memory: int = LARGEST_IN_MEMORY,
    verify: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The token ids of what is trained on and of what is held out; no token is of both.

    By position, the tokens of a context-free tokenizer are those of the whole text, of which
    ``train_ratio`` are trained on. In any other case each part becomes tokens by itself.

    Args:
        split: The two parts of a text.
        tokenizer: As of ``encode_corpus``, like the others.
        cache_folder: Where the tokens of a large corpus are kept.
        largest_in_memory: Size in bytes from which a corpus counts as large.
        verify: Whether to read all tokens that are kept.

    Returns:
        Two arrays or memory maps, as ``encode_corpus``.

    Raises:
        InputError: As ``encode_corpus``; or one part is empty.
        MachineError: A file cannot be written.
    """
    if split.split_by == POSITION and tokenizer.is_context_free:
        tokens = encode_corpus(split.corpus, tokenizer, cache_folder, largest_in_memory, verify)
        n_training = int(len(tokens) * split.train_ratio)
        return tokens[:n_training], tokens[n_training:]
    encoding = _Encoding(split.corpus, tokenizer, split.pieces, split)
    training, held_out = encoding.tokens(cache_folder, largest_in_memory, verify)
    return training, held_out


class _Encoding:
    """The tokens of a corpus, in one part or several.

    Args:
        corpus: The text.
        tokenizer: How to encode it.
        pieces: Gives the whole text, once, each piece with the number of its part.
        split: Which parts; None: the whole is one.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        pieces: Callable[[], Iterator[tuple[int, Block]]],
        split: Split | None = None,
    ) -> None:
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._pieces = pieces
        self._contents = _contents(corpus, tokenizer, split)

    def tokens(
        self, cache_folder: Path | None, largest_in_memory: int, verify: bool
    ) -> list[np.ndarray]:
        """The tokens of each part; arguments as of ``encode_corpus``."""
        if self._corpus.n_bytes <= min(largest_in_memory, self._tokenizer.kept_from):
            return self._in_memory()
        folder = cache_folder or default_cache_folder()
        paths = [folder / _file_name(content) for content in self._contents]
        try:
            before = _versions(paths)
            tokens = self._kept(paths, verify)
            if tokens is None:
                with only_one(paths[0], "encodes the corpus"):
                    # Another process may have made them meanwhile.
                    if _versions(paths) != before:
                        tokens = self._kept(paths, verify)
                    if tokens is None:
                        self._write(paths)
                        tokens = self._kept(paths, verify=False)
        except OSError as error:
            raise cannot_keep(folder, error) from error
        if tokens is None:
            raise cannot_keep(folder, OSError("what was written is not what is read"))
        return tokens

    def _in_memory(self) -> list[np.ndarray]:
        dtype = self._tokenizer.dtype
        # Many documents are small: as arrays they would take several times the memory.
        parts = [bytearray() for _ in self._contents]
        for part, tokens in self._encoded(self._pieces()):
            parts[part] += memoryview(np.ascontiguousarray(tokens)).cast("B")
        arrays = [np.frombuffer(part, dtype) for part in parts]
        for tokens in arrays:
            tokens.flags.writeable = False
        return arrays

    def _kept(self, paths: list[Path], verify: bool) -> list[np.ndarray] | None:
        """The tokens that are kept; None where any of them are to be made."""
        found = []
        for path, content in zip(paths, self._contents, strict=True):
            tokens = _kept(path, content, self._tokenizer, verify)
            if tokens is None:
                return None
            found.append(tokens)
        return found

    def _write(self, paths: list[Path]) -> None:
        """Encodes block by block under temporary names, so that no half file has a real one."""
        folder, dtype = paths[0].parent, self._tokenizer.dtype
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale_parts(folder)
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(_new_part(folder)) for _ in paths]
            writers = [
                stack.enter_context(TokenFileWriter(stream, dtype, content))
                for stream, content in zip(streams, self._contents, strict=True)
            ]
            with BytesProgress("encoding the corpus", self._corpus.n_bytes) as progress:
                for part, tokens in self._encoded(_told(self._pieces(), progress.add)):
                    writers[part].write(tokens)
                for writer, name in zip(writers, PARTS, strict=False):
                    if not writer.n_tokens:
                        message = f"the {name} part of {self._corpus.description} has no tokens"
                        raise InputError(f"{message}: take a longer text or another train_ratio")
                    writer.finish()
            for stream, path in zip(streams, paths, strict=True):
                Path(stream.name).replace(path)
        sync_folder(folder)

    def _encoded(self, pieces: Iterator[tuple[int, Block]]) -> Iterator[tuple[int, np.ndarray]]:
        """Tokens, each array with the number of its part."""
        separator, joint = self._tokenizer.separator, self._corpus.joint
        after = np.array([] if separator is None else [separator], self._tokenizer.dtype)
        # The documents whose end has been read, by the numbers of their part and their own.
        ended: set[tuple[int, int]] = set()

        def joined(blocks: Iterator[tuple[int, int, Block]]) -> Iterator[Block]:
            for part, document, block in blocks:
                if block.ends_document:
                    ended.add((part, document))
                    if separator is None and not block.data.endswith(joint):
                        block = block._replace(data=block.data + joint)
                yield block

        by_document = itertools.groupby(_numbered(pieces), itemgetter(0, 1))
        documents = ((key, joined(blocks)) for key, blocks in by_document)
        before = None
        for key, tokens in self._tokenizer.encode_documents(documents):
            if key != before and before in ended:
                ended.remove(before)
                yield before[0], after
            if len(tokens):
                yield key[0], tokens
            before = key
        if before in ended:
            yield before[0], after


def _numbered(pieces: Iterator[tuple[int, Block]]) -> Iterator[tuple[int, int, Block]]:
    """Each piece with the numbers of its part and of its document."""
    document = 0
    for part, block in pieces:
        yield part, document, block
        document += block.ends_document


def _told(
    pieces: Iterator[tuple[int, Block]], tell: Callable[[int], None]
) -> Iterator[tuple[int, Block]]:
    """The same pieces; the size of each is told."""
    for piece in pieces:
        yield piece
        tell(len(piece[1].data))


def _versions(paths: list[Path]) -> list[tuple[int, int] | None]:
    """What tells each file from another one that takes its place."""
    found: list[tuple[int, int] | None] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_mtime_ns))
    return found


def _contents(corpus: Corpus, tokenizer: Tokenizer, split: Split | None) -> list[dict[str, Any]]:
    """What tells the tokens of each part from those of another text, tokenizer or part."""
    description = json.dumps(tokenizer.to_dict(), sort_keys=True)
    content = {
        "format": _FORMAT,
        "text": corpus.sha256,
        "tokenizer": hashlib.sha256(description.encode()).hexdigest(),
    }
    if split is None and tokenizer.separator is None and tokenizer.is_context_free:
        return [content]
    content["documents"] = corpus.documents.lengths
    if split is None:
        return [content]
    return [content | {"part": [split.split_by, split.limit, name]} for name in PARTS]


def _file_name(content: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return digest[:_DIGEST_LENGTH] + ".tokens"


def _kept(
    path: Path, content: dict[str, Any], tokenizer: Tokenizer, verify: bool
) -> np.ndarray | None:
    """The tokens that are kept there; None where they are to be made.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            file = TokenFile(stream, tokenizer.dtype, content)
            if verify:
                with BytesProgress("checking the tokens", file.tokens.nbytes) as progress:
                    file.verify(tokenizer.vocab_size, progress.add)
            return file.tokens
    except FileNotFoundError:
        return None
    except DamagedFileError as error:
        warn(f"{path}: {error}; the corpus is encoded anew")
        return None


@contextlib.contextmanager
def _new_part(folder: Path) -> Iterator[BinaryIO]:
    """A new file that is gone in the end, unless it has another name by then."""
    stream = _locked_part(folder)
    try:
        with stream:
            yield stream
    finally:
        Path(stream.name).unlink(missing_ok=True)


def _locked_part(folder: Path) -> BinaryIO:
    """A new file, with a lock that tells others that somebody writes it, and ends with whoever."""
    while True:
        name = f"{_host()}-{secrets.token_hex(_NAME_BYTES)}{_PART}"
        stream = (folder / name).open("xb")
        if fcntl is not None:
            with contextlib.suppress(OSError):  # The file system knows no locks.
                fcntl.flock(stream.fileno(), fcntl.LOCK_EX)
        # Before it was locked, another process may have taken it for one that is nobody's.
        if os.fstat(stream.fileno()).st_nlink:
            return stream
        stream.close()


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:_HOST_LENGTH]


def _remove_stale_parts(folder: Path) -> None:
    """Removes what was left by encodings, and by the writing of records, that were killed."""
    for path in folder.iterdir():
        # Of which machine its process was, its name does not tell; it is written in a moment.
        if _RECORD_BEGUN.fullmatch(path.name):
            with contextlib.suppress(OSError):
                if _is_old(path):
                    path.unlink()
    for part in folder.glob(f"*{_PART}"):
        # Another process may have been faster, or it may be another user's.
        with contextlib.suppress(OSError), part.open("rb") as stream:
            if _is_abandoned(part, stream):
                part.unlink()


def _is_abandoned(part: Path, stream: BinaryIO) -> bool:
    """Whether nobody writes to a part; where the lock cannot tell that, its age does."""
    # The lock of another machine may be known there alone.
    if fcntl is not None and part.name.startswith(f"{_host()}-"):
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError:
            pass
    return _is_old(part)


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _STALE_AFTER_SECONDS
