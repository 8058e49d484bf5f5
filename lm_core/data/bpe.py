"""Byte-level BPE: tokens of several bytes, as the package ``tokenizers`` makes them."""

import hashlib
import itertools
import stat
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np

from lm_core.data.text_files import Block, check_text, reason_of
from lm_core.data.text_pieces import pieces_of
from lm_core.data.tokenizer import Tokenizer
from lm_core.data.tokenizer_json import Description, described
from lm_core.errors import InputError, one_line, shown
from lm_core.extras import needed

# Characters of a piece of text: of larger ones the package is slower, of smaller ones there are
# more to hand over.
_PIECE = 2048
# A text that has no place to be cut for so many characters is cut here all the same: the package
# takes a hundred times the memory that a text has.
LONGEST_PIECE = 2**20
# Characters that are encoded at once: many pieces for each core, and some ten megabytes.
_AT_ONCE = 2**20
# A text from this size in bytes on counts as large: it takes about a second to encode.
KEPT_FROM = 4 * 2**20
# Tokens whose bytes are counted at once, so that a large corpus does not fill the memory.
_COUNTED_AT_ONCE = 2**22
# Those of the largest vocabularies that are in use have some 20 megabytes.
_LARGEST_FILE = 64 * 2**20
# Characters of what the package has to say about a file.
_LONGEST_REASON = 200


class BpeTokenizer(Tokenizer):
    """Byte-level BPE, as a ``tokenizer.json`` describes it. It takes any text, and loses nothing.

    What looks like a special token in a text is text. The separator of documents stands for no
    bytes, and is shown by its name.

    Args:
        json: The content of a ``tokenizer.json``.

    Attributes:
        json: As given.
        separator: The id of the token that ends a document; None: it has none.

    Raises:
        InputError: It is no such content, or one that loses something of a text, or the package
            ``tokenizers`` is missing.
    """

    kind = "bpe"
    kept_from = KEPT_FROM

    def __init__(self, json: str) -> None:
        tokenizers = package()
        try:
            found = described(json)
            self._package = _built(found, tokenizers)
        except InputError as error:
            raise InputError(f"this describes no bpe tokenizer: {error.message}") from error
        self.json = json
        self.separator: int | None = found.separator
        self.vocab_size = len(found.spellings)
        self._spellings = found.spellings
        self._names = found.names
        self._lengths = np.array([len(spelling) for spelling in found.spellings], np.uint32)

    @property
    def sha256(self) -> str:
        """SHA-256 of the ``tokenizer.json``, which tells it from others."""
        return sha256_of(self.json)

    def encode_block(self, block: Block) -> np.ndarray:
        """Token ids of a whole text."""
        parts = list(self.encode_document([block]))
        return np.concatenate(parts) if parts else np.empty(0, self.dtype)

    def encode_document(self, blocks: Iterable[Block]) -> Iterator[np.ndarray]:
        """Token ids of a text that comes in blocks: those of the whole, wherever it is cut."""
        return (tokens for _, tokens in self.encode_documents([(None, blocks)]))

    def encode_documents(
        self, documents: Iterable[tuple[Any, Iterable[Block]]]
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """Token ids of documents, on all cores, in memory that does not depend on their size."""
        waiting: list[tuple[Any, str]] = []
        n_waiting = 0
        for key, blocks in documents:
            for piece in pieces_of(map(text_of, blocks), _PIECE, LONGEST_PIECE):
                waiting.append((key, piece))
                n_waiting += len(piece)
                if n_waiting >= _AT_ONCE:
                    yield from self._encoded(waiting)
                    waiting, n_waiting = [], 0
        yield from self._encoded(waiting)

    def _encoded(self, pieces: list[tuple[Any, str]]) -> Iterator[tuple[Any, np.ndarray]]:
        """Token ids of pieces; those that follow each other with one key are joined."""
        texts = [text for _, text in pieces]
        encodings = self._package.encode_batch_fast(texts, add_special_tokens=False)
        keyed = zip((key for key, _ in pieces), encodings, strict=True)
        for key, same in itertools.groupby(keyed, itemgetter(0)):
            parts = [np.array(encoding.ids, dtype=self.dtype) for _, encoding in same]
            yield key, np.concatenate(parts)

    def _decoded(self, tokens: np.ndarray) -> str:
        """The text; bytes that are no UTF-8 become U+FFFD, special tokens stand by their names."""
        names = self._names
        spelled = (
            names[token].encode("utf-8", errors="replace")
            if token in names
            else self._spellings[token]
            for token in tokens.tolist()
        )
        return b"".join(spelled).decode("utf-8", errors="replace")

    def count_bytes(self, tokens: np.ndarray) -> int:
        """The lengths of the tokens, which may be parts of characters; of special ones, nothing."""
        n_bytes = 0
        for start in range(0, len(tokens), _COUNTED_AT_ONCE):
            part = np.asarray(tokens[start : start + _COUNTED_AT_ONCE])
            n_bytes += int(self._lengths[part].sum(dtype=np.int64))
        return n_bytes

    def to_dict(self) -> dict[str, Any]:
        """The kind and the content of the ``tokenizer.json``."""
        return {"kind": self.kind, "json": self.json}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The tokenizer described; raises when it is of another kind, or none."""
        if data.get("kind") != cls.kind:
            raise InputError(f"{shown(data.get('kind'))} describes no {cls.kind} tokenizer")
        if not isinstance(data.get("json"), str):
            raise InputError("a bpe tokenizer is described by the text of its tokenizer.json")
        return cls(data["json"])


def read_tokenizer_file(path: str) -> BpeTokenizer:
    """The tokenizer of an existing ``tokenizer.json``.

    Args:
        path: The file. Nothing is looked for anywhere else.

    Raises:
        InputError: There is no such file, or it is not what the lab takes; names it.
    """
    try:
        return BpeTokenizer(text_of_file(path))
    except InputError as error:
        place = "" if error.message.startswith("tokenizer_file") else f"tokenizer_file: {path!r}: "
        raise InputError(f"{place}{error.message}") from error


def text_of_file(path: str | Path, where: str | None = None) -> str:
    """The content of a ``tokenizer.json``.

    Args:
        path: The file.
        where: What to call it in a message; None: the hyperparameter and the path.

    Raises:
        InputError: It cannot be read, or is no text, or far too large; names it.
    """
    where = where or f"tokenizer_file: {str(path)!r}"
    try:
        data = _content(Path(path).expanduser())
        if len(data) <= _LARGEST_FILE:
            return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 text") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{where} cannot be read: {reason_of(error)}") from error
    limit = f"more than {_LARGEST_FILE:,} bytes"
    raise InputError(f"{where} has {limit}, which no tokenizer.json has")


def sha256_of(text: str) -> str:
    """What ``sha256sum`` prints for a file with this content."""
    return hashlib.sha256(text.encode()).hexdigest()


def text_of(block: Block) -> str:
    """The characters of a block.

    Raises:
        InputError: It is not UTF-8.
    """
    try:
        return block.data.decode("utf-8")
    except UnicodeDecodeError:  # The text has changed since it was checked.
        check_text(block)
        raise


def package(who: str = "tokenizer bpe") -> ModuleType:
    """The package ``tokenizers``, which takes a moment to import.

    Raises:
        InputError: It is not installed; says what installs it.
    """
    return needed("tokenizers", "bpe", who)


def _content(path: Path) -> bytes:
    # To open a pipe would wait for ever.
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("it is not a regular file")
    with path.open("rb") as stream:
        return stream.read(_LARGEST_FILE + 1)


def _built(description: Description, tokenizers: ModuleType) -> Any:
    """The package's own tokenizer, which takes all text for text."""
    try:
        built = tokenizers.Tokenizer.from_str(description.for_package)
    except Exception as error:  # The package raises nothing more special.
        reason = one_line(" ".join(str(error).split()))[:_LONGEST_REASON]
        raise InputError(f"the package tokenizers refuses it: {reason}") from error
    if built.get_vocab() != description.ids:
        raise InputError("the package tokenizers gives its tokens other ids than it says")
    built.encode_special_tokens = True
    return built
