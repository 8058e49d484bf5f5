"""The tokens of a corpus: in memory when it is small, in a memory-mapped file when it is large."""

import contextlib
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from lm_core.atomic_files import replace_file
from lm_core.data.corpus import Corpus
from lm_core.data.tokenizer import Tokenizer
from lm_core.errors import MachineError

# Corpora up to this size are encoded anew each time, which takes a fraction of a second.
LARGEST_IN_MEMORY = 64 * 2**20
CACHE_VARIABLE = "LM_CORE_CACHE"
# 128 bits in hexadecimal: no two texts share a name.
_DIGEST_LENGTH = 32
_PART = ".part"
# An encoding writes all the time; a part that nobody wrote to for an hour is nobody's.
_STALE_AFTER_SECONDS = 3600


def encode_corpus(
    corpus: Corpus,
    tokenizer: Tokenizer,
    cache_folder: Path | None = None,
    largest_in_memory: int = LARGEST_IN_MEMORY,
) -> np.ndarray:
    """The token ids of a corpus, ``(n_tokens,)`` of the tokenizer's dtype, read-only.

    Args:
        corpus: The text.
        tokenizer: How to encode it.
        cache_folder: Where the tokens of a large corpus are kept; None: the folder that the
            environment variable ``LM_CORE_CACHE`` names, or the user's cache folder.
        largest_in_memory: Size in bytes from which a corpus counts as large.

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
    path = (cache_folder or default_cache_folder()) / _file_name(corpus, tokenizer)
    if not _is_complete(path, tokenizer):
        _write(path, corpus, tokenizer)
    try:
        return np.memmap(path, dtype=tokenizer.dtype, mode="r")
    except OSError as error:
        raise _cannot_keep(path.parent, error) from error


def default_cache_folder() -> Path:
    """Where tokens are kept when nothing else is said.

    Raises:
        MachineError: The user has no home folder, and names no other one.
    """
    try:
        if named := os.environ.get(CACHE_VARIABLE):
            return Path(named).expanduser()
        user_cache = os.environ.get("XDG_CACHE_HOME")
        return (Path(user_cache) if user_cache else Path.home() / ".cache") / "lm_core"
    except RuntimeError as error:
        message = f"no folder for the tokens of the corpus: {error}"
        raise MachineError(f"{message}; {CACHE_VARIABLE} names one") from error


def _file_name(corpus: Corpus, tokenizer: Tokenizer) -> str:
    content = json.dumps([corpus.sha256, tokenizer.to_dict()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:_DIGEST_LENGTH] + ".tokens"


def _is_complete(path: Path, tokenizer: Tokenizer) -> bool:
    """Whether the file is, byte for byte, what was noted beside it when it was finished.

    The corpus itself has just been read from end to end for its SHA-256; this costs no more.
    """
    try:
        noted = json.loads(_note(path).read_text())
        if noted["dtype"] != tokenizer.dtype.name:
            return False
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == noted["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _note(path: Path) -> Path:
    return path.with_suffix(".json")


def _write(path: Path, corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Encodes block by block under a temporary name, so that no half file ever has the real one."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_parts(path.parent)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=_PART, delete=False) as stream:
            temporary = Path(stream.name)
            digest = hashlib.sha256()
            for block in corpus.blocks():
                data = tokenizer.encode_block(block).data
                digest.update(data)
                stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        note = {"sha256": digest.hexdigest(), "dtype": tokenizer.dtype.name}
        _note(path).unlink(missing_ok=True)
        temporary.replace(path)
        replace_file(_note(path), json.dumps(note).encode())
    except OSError as error:
        raise _cannot_keep(path.parent, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _remove_stale_parts(folder: Path) -> None:
    for part in folder.glob(f"*{_PART}"):
        with contextlib.suppress(FileNotFoundError):  # Another process was faster.
            if time.time() - part.stat().st_mtime > _STALE_AFTER_SECONDS:
                part.unlink()


def _cannot_keep(folder: Path, error: OSError) -> MachineError:
    message = f"the tokens of the corpus cannot be kept in {folder}: {error.strerror or error}"
    return MachineError(f"{message}; {CACHE_VARIABLE} names another folder")
