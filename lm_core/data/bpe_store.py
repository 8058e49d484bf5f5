"""Tokenizers of byte-level BPE that were learned, so that none is learned from one text twice."""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

from lm_core.atomic_files import replace_file
from lm_core.data.bpe import KEPT_FROM, BpeTokenizer, package, sha256_of, text_of
from lm_core.data.bpe_training import train_bpe
from lm_core.data.build_lock import only_one
from lm_core.data.cache_folder import default_cache_folder, require_usable
from lm_core.data.splitting import Split
from lm_core.data.text_files import Block
from lm_core.errors import InputError
from lm_core.progress import BytesProgress

# The version of what training does; another one gives other tokenizers.
_FORMAT = 1
# 128 bits in hexadecimal: no two texts share a name.
_DIGEST_LENGTH = 32
# Those of the largest vocabulary that can be trained have some 100 megabytes.
_LARGEST_FILE = 256 * 2**20


def trained(
    split: Split,
    vocab_size: int,
    verify: bool = False,
    cache_folder: Path | None = None,
    largest_in_memory: int = KEPT_FROM,
) -> BpeTokenizer:
    """The tokenizer that is learned from what is trained on, and from nothing that is held out.

    Args:
        split: The text.
        vocab_size: Number of tokens.
        verify: Whether to learn anew whatever is kept.
        cache_folder: Where that of a large text is kept; None: ``default_cache_folder``. Its tokens
            will be kept there too, so that nothing is learned where that cannot be.
        largest_in_memory: Size in bytes from which a text counts as large.

    Raises:
        InputError: As ``train_bpe``, or the text is not what it was.
        MachineError: There is no folder for that of a large text, or none that takes something.
    """
    n_bytes = int(split.corpus.n_bytes * split.train_ratio)
    if split.corpus.n_bytes <= largest_in_memory:
        return train_bpe(_documents(split), vocab_size, n_bytes)
    content = _content(split, vocab_size)
    path = (cache_folder or default_cache_folder()) / _file_name(content)
    tokenizer = _kept(path, content)
    if tokenizer is not None and not verify:
        return tokenizer
    if tokenizer is None:
        require_usable(path.parent)
    with only_one(path, "trains the tokenizer"):
        # Another process may have done it meanwhile.
        tokenizer = None if verify else _kept(path, content)
        if tokenizer is not None:
            return tokenizer
        with BytesProgress("training the tokenizer", n_bytes) as progress:
            tokenizer = train_bpe(_documents(split), vocab_size, n_bytes, progress.add)
        record = {**content, "json": tokenizer.json, "sha256": tokenizer.sha256}
        # It may have been full since; then it is learned again the next time.
        with contextlib.suppress(OSError):
            replace_file(path, json.dumps(record).encode())
    return tokenizer


def _documents(split: Split) -> Iterator[Iterator[str]]:
    """The texts that are trained on, each in parts."""
    for _, blocks in itertools.groupby(_numbered(split.training_text()), itemgetter(0)):
        yield (text_of(block) for _, block in blocks)


def _numbered(blocks: Iterator[Block]) -> Iterator[tuple[int, Block]]:
    number = 0
    for block in blocks:
        yield number, block
        number += block.ends_document


def _content(split: Split, vocab_size: int) -> dict[str, Any]:
    """What tells a tokenizer from that of another text, size or version."""
    return {
        "format": _FORMAT,
        "text": split.corpus.sha256,
        "documents": split.corpus.documents.lengths,
        "part": [split.split_by, split.limit],
        "vocab_size": vocab_size,
        "tokenizers": package().__version__,
    }


def _file_name(content: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return digest[:_DIGEST_LENGTH] + ".tokenizer.json"


def _kept(path: Path, content: dict[str, Any]) -> BpeTokenizer | None:
    """The tokenizer that is kept there; None where it is to be trained."""
    try:
        with path.open("rb") as stream:
            record = json.loads(stream.read(_LARGEST_FILE))
        text, told = record.pop("json"), record.pop("sha256")
        if record == content and told == sha256_of(text):
            return BpeTokenizer(text)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError):
        pass
    return None
