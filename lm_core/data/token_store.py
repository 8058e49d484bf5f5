"""The tokens of a corpus: in memory when it is small, in a memory-mapped file when it is large."""

import contextlib
import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lm_core.atomic_files import sync_folder
from lm_core.data.cache_folder import LARGEST_IN_MEMORY, cannot_keep, default_cache_folder
from lm_core.data.corpus import Corpus
from lm_core.data.token_file import DamagedFileError, TokenFile, TokenFileWriter
from lm_core.data.tokenizer import Tokenizer
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
# Random bytes in the name of a part: no two ever have the same.
_NAME_BYTES = 8
# An encoding writes all the time; a part that nobody wrote to for an hour is nobody's.
_STALE_AFTER_SECONDS = 3600


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
        largest_in_memory: Size in bytes from which a corpus counts as large.
        verify: Whether to read all tokens that are kept, and compare them with their checksums.

    Returns:
        An array, or for a large corpus a memory map of a file whose name is its content's: the
        next run with the same text and tokenizer opens it at once.

    Raises:
        InputError: A character that the tokenizer lacks.
        MachineError: The file cannot be written.
    """
    if corpus.n_bytes <= largest_in_memory:
        parts = [tokenizer.encode_block(block) for block in corpus.blocks()]
        tokens = np.concatenate(parts) if len(parts) > 1 else parts[0]
        tokens.flags.writeable = False
        return tokens
    content = _content(corpus, tokenizer)
    path = (cache_folder or default_cache_folder()) / _file_name(content)
    try:
        tokens = _kept(path, content, tokenizer, verify)
        if tokens is None:
            _write(path, content, corpus, tokenizer)
            tokens = _kept(path, content, tokenizer, verify=False)
    except OSError as error:
        raise cannot_keep(path.parent, error) from error
    if tokens is None:
        raise cannot_keep(path.parent, OSError("what was written is not what is read"))
    return tokens


def _content(corpus: Corpus, tokenizer: Tokenizer) -> dict[str, Any]:
    """What tells the tokens of a text from those of another text or tokenizer."""
    description = json.dumps(tokenizer.to_dict(), sort_keys=True)
    return {
        "format": _FORMAT,
        "text": corpus.sha256,
        "tokenizer": hashlib.sha256(description.encode()).hexdigest(),
    }


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


def _write(path: Path, content: dict[str, Any], corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Encodes block by block under a temporary name, so that no half file ever has the real one.

    Two processes that do the same at once write two files, of which one takes the other's place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale_parts(path.parent)
    with _new_part(path.parent) as stream:
        with (
            TokenFileWriter(stream, tokenizer.dtype, content) as writer,
            BytesProgress("encoding the corpus", corpus.n_bytes) as progress,
        ):
            for block in corpus.blocks():
                writer.write(tokenizer.encode_block(block))
                progress.add(len(block.data))
            writer.finish()
        Path(stream.name).replace(path)
    sync_folder(path.parent)


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
    """Removes what encodings left that were killed."""
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
    return time.time() - part.stat().st_mtime > _STALE_AFTER_SECONDS
