"""Tokenizers: text to token ids and back, by table look-ups on arrays."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import gin
import numpy as np
from numpy.typing import ArrayLike

from lm_core.data.cache_folder import LARGEST_IN_MEMORY
from lm_core.data.characters import SURROGATES, CharacterNumbers, UnknownCharacterError
from lm_core.data.splitting import POSITION, Split
from lm_core.data.text_files import Block, blocks_of, check_text
from lm_core.errors import InputError, shown, unknown

# The vocabulary of the byte tokenizer: all values of a byte.
_N_BYTES = 256
# The vocabulary of the ascii tokenizer: ASCII has seven bits.
_N_ASCII = 128
# UTF-8 spells code points below these limits in one, two and three bytes, and others in four.
_UTF8_LIMITS = (0x80, 0x800, 0x10000)
# Tokens whose bytes are counted at once, so that a large corpus does not fill the memory.
_COUNTED_AT_ONCE = 2**22


class Tokenizer(ABC):
    """What every tokenizer does.

    Attributes:
        kind: Its name in configurations.
        vocab_size: Number of different tokens.
        is_context_free: Whether each byte or character is a token, whatever stands around it. Then
            the tokens of a text are those of its pieces, wherever it is cut, and may be cut
            themselves; otherwise text is divided into parts before it becomes tokens.
        kept_from: Size in bytes beyond which the tokens of a corpus are worth being kept.
        separator: The token that follows each document of a corpus, the last one too, and stands
            for no text; None: there is none, and documents are joined as ``Corpus.joint`` says.
            ``encode`` and ``encode_document`` do not make it.
    """

    kind: ClassVar[str]
    vocab_size: int
    is_context_free: ClassVar[bool] = False
    kept_from: ClassVar[int] = LARGEST_IN_MEMORY
    separator: int | None = None

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned type that holds every token id."""
        return np.min_scalar_type(self.vocab_size - 1)

    def encode(self, text: str, where: str = "the text") -> np.ndarray:
        """Token ids of a text, ``(n_tokens,)`` of ``dtype``.

        Args:
            text: What to encode.
            where: What to call it in a message.

        Raises:
            InputError: A character that the vocabulary lacks; tells which, where, and which
                tokenizer would take it. Or no text at all.
        """
        if not isinstance(text, str):
            raise InputError(f"{where}: {shown(text)} is no text, a str")
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            message = f"{where}: character {error.start + 1} is half of a surrogate pair"
            raise InputError(f"{message}, which is no text") from error
        return self.encode_block(Block(data, where, 0))

    @abstractmethod
    def encode_block(self, block: Block) -> np.ndarray:
        """Token ids of a piece of a corpus that splits no character; raises as ``encode``."""

    def encode_document(self, blocks: Iterable[Block]) -> Iterator[np.ndarray]:
        """Token ids of one document, or of a piece of one, in arrays that follow each other.

        A tokenizer whose tokens reach across the ends of blocks has another of its own: blocks end
        anywhere between two characters.

        Args:
            blocks: The text, in blocks that follow each other.

        Raises:
            InputError: As ``encode``.
        """
        return map(self.encode_block, blocks)

    def encode_documents(
        self, documents: Iterable[tuple[Any, Iterable[Block]]]
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """Token ids of many documents, in their order.

        Args:
            documents: Each with a key of its own, and its blocks, which are taken before the next
                document is. Documents may be taken long before their tokens are given.

        Yields:
            The key of a document and token ids of it; several times for a large one.

        Raises:
            InputError: As ``encode``.
        """
        for key, blocks in documents:
            for tokens in self.encode_document(blocks):
                yield key, tokens

    def decode(self, tokens: ArrayLike) -> str:
        """The text of token ids.

        Args:
            tokens: Integers from 0 to ``vocab_size - 1``, ``(n_tokens,)``: an array, a list, or a
                tensor on the CPU.

        Raises:
            InputError: There is another number, or they are no such row.
        """
        return self._decoded(self._ids(tokens))

    def _ids(self, tokens: ArrayLike) -> np.ndarray:
        """Token ids as an array that holds nothing else."""
        known = f"token ids, integers from 0 to {self.vocab_size - 1:,}"
        try:
            ids = np.asarray(tokens)
        except (TypeError, ValueError, RuntimeError) as error:
            kind = type(tokens).__name__
            raise InputError(f"decode takes a row of {known}, and no such {kind}") from error
        if ids.shape == (0,):  # NumPy takes a list of nothing for one of fractions.
            return ids.astype(self.dtype)
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
            there = f"{ids.ndim} dimensions of {ids.dtype}"
            raise InputError(f"decode takes a row of {known}; these are {there}")
        outside = (ids < 0) | (ids >= self.vocab_size)
        if outside.any():
            first = int(outside.argmax())
            message = f"decode: {ids[first]} at place {first:,} is none of the tokenizer's {known}"
            raise InputError(message)
        return ids

    @abstractmethod
    def _decoded(self, tokens: np.ndarray) -> str:
        """The text of token ids that there are, ``(n_tokens,)``."""

    @abstractmethod
    def count_bytes(self, tokens: np.ndarray) -> int:
        """How many bytes of UTF-8 the tokens stand for."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain data from which ``from_dict`` makes the same tokenizer."""

    @classmethod
    @abstractmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The tokenizer that ``to_dict`` described.

        Raises:
            InputError: This kind of tokenizer is not described like this.
        """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.to_dict().items()))


class ByteTokenizer(Tokenizer):
    """The 256 bytes of UTF-8. It takes any text."""

    kind = "byte"
    vocab_size = _N_BYTES
    is_context_free = True

    def encode_block(self, block: Block) -> np.ndarray:
        """The bytes themselves, as a view."""
        return np.frombuffer(block.data, dtype=np.uint8)

    def _decoded(self, tokens: np.ndarray) -> str:
        """The text; bytes that are no UTF-8 become U+FFFD."""
        return tokens.astype(np.uint8).tobytes().decode("utf-8", errors="replace")

    def count_bytes(self, tokens: np.ndarray) -> int:
        """One for each token."""
        return len(tokens)

    def to_dict(self) -> dict[str, Any]:
        """The kind; there is nothing more to it."""
        return {"kind": self.kind}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The one tokenizer of this kind; raises when another kind is described."""
        _require_kind(cls, data)
        return cls()


class AsciiTokenizer(ByteTokenizer):
    """The 128 characters of ASCII."""

    kind = "ascii"
    vocab_size = _N_ASCII

    def encode_block(self, block: Block) -> np.ndarray:
        """The bytes themselves, as a view, when all of them are ASCII."""
        tokens = super().encode_block(block)
        if not block.data.isascii():
            raise _unknown_character(self, block, int((tokens >= _N_ASCII).argmax()))
        return tokens


class CharTokenizer(Tokenizer):
    """The characters of a corpus, sorted by code point.

    Args:
        characters: All of them, sorted, none twice.

    Raises:
        InputError: They are not as they must be.
    """

    kind = "char"
    is_context_free = True

    def __init__(self, characters: str) -> None:
        code_points = [ord(character) for character in characters]
        if not characters or sorted(set(code_points)) != code_points:
            raise InputError("the characters of a char tokenizer are sorted, and none stands twice")
        if any(code_point in SURROGATES for code_point in code_points):
            raise InputError("a char tokenizer holds half of a surrogate pair, which is no text")
        self.characters = characters
        self.vocab_size = len(characters)
        self._code_points = np.array(code_points, dtype="<u4")
        self._numbers = CharacterNumbers(self._code_points)
        # The tokens from each of these on are spelled with one byte more than those before it.
        self._longer_from = np.searchsorted(self._code_points, _UTF8_LIMITS).tolist()

    def encode_block(self, block: Block) -> np.ndarray:
        """One token for each character."""
        try:
            return self._numbers.of(block.data)
        except UnknownCharacterError as error:
            raise _unknown_character(self, block, error.offset) from error
        except UnicodeDecodeError:  # The text has changed since it was checked.
            check_text(block)
            raise

    def _decoded(self, tokens: np.ndarray) -> str:
        """The characters of the tokens."""
        return self._code_points[tokens].tobytes().decode("utf-32-le")

    def count_bytes(self, tokens: np.ndarray) -> int:
        """The lengths of the characters in UTF-8."""
        n_bytes = len(tokens)
        for start in range(0, len(tokens), _COUNTED_AT_ONCE):
            part = np.asarray(tokens[start : start + _COUNTED_AT_ONCE])
            for first in self._longer_from:
                if first < self.vocab_size:
                    n_bytes += int(np.count_nonzero(part >= first))
        return n_bytes

    def to_dict(self) -> dict[str, Any]:
        """The kind and the characters."""
        return {"kind": self.kind, "characters": self.characters}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The tokenizer of the characters described; raises when they are none."""
        _require_kind(cls, data)
        if not isinstance(data.get("characters"), str):
            raise InputError("a char tokenizer is described by its characters, a text")
        return cls(data["characters"])


# The kind of ``bpe.BpeTokenizer``, whose module stands on this one.
_BPE = "bpe"
_CLASSES = {cls.kind: cls for cls in (AsciiTokenizer, CharTokenizer, ByteTokenizer)}


def depends_on_documents(kind: str, split_by: str) -> bool:
    """Whether what is learned of one text would be another with the same text in other documents.

    Args:
        kind: Which tokenizer.
        split_by: As of ``split_corpus``.
    """
    # No word of bpe reaches from one document into the next.
    return split_by != POSITION or kind == _BPE or not _CLASSES[kind].is_context_free


def _require_kind(cls: type[Tokenizer], data: Mapping[str, Any]) -> None:
    if data.get("kind") != cls.kind:
        raise InputError(f"{shown(data.get('kind'))} describes no {cls.kind} tokenizer")


@gin.configurable("Tokenizer", denylist=["split", "verify"])
def build_tokenizer(
    split: Split,
    kind: str = "ascii",
    vocab_size: int = 4096,
    file: str | None = None,
    verify: bool = False,
) -> Tokenizer:
    """The tokenizer of a new run.

    Args:
        split: The text; ``char`` takes the characters of all of it, ``bpe`` learns from the part
            that is trained on.
        kind: ``ascii``, ``char``, ``byte`` or ``bpe``.
        vocab_size: How many tokens ``bpe`` learns.
        file: An existing ``tokenizer.json``, in the place of what ``bpe`` would learn.
        verify: Whether to learn anew whatever is kept.

    Raises:
        InputError: Another kind, a file of another kind, or one that is no ``tokenizer.json`` that
            the lab takes.
    """
    if file is not None and kind != _BPE:
        raise InputError(f"tokenizer_file {file!r} is for bpe, and not for tokenizer {shown(kind)}")
    if kind == CharTokenizer.kind:
        return CharTokenizer(split.corpus.characters)
    if kind != _BPE:
        return tokenizer_from_dict({"kind": kind})
    from lm_core.data import bpe, bpe_store

    return bpe.read_tokenizer_file(file) if file else bpe_store.trained(split, vocab_size, verify)


def tokenizer_from_dict(data: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer, of whatever kind, that ``to_dict`` described.

    Raises:
        InputError: No tokenizer is described like this.
    """
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if isinstance(kind, str) and kind in _CLASSES:
        return _CLASSES[kind].from_dict(data)
    if kind == _BPE:
        from lm_core.data.bpe import BpeTokenizer

        return BpeTokenizer.from_dict(data)
    known = [*_CLASSES, _BPE]
    message = unknown(str(kind), known, "tokenizer")
    raise InputError(f"{shown(kind)}: {message} (there are {', '.join(known)})")


def _unknown_character(tokenizer: Tokenizer, block: Block, index: int) -> InputError:
    """The error about the character that starts at a byte of a block."""
    character = block.data[index:].decode("utf-8", errors="ignore")[0]
    n_before, n_lines, n_in_line = 0, 1, 0
    for text in (*_text_before(block), block.data[:index].decode("utf-8")):
        n_before += len(text)
        n_lines += text.count("\n")
        n_in_line = len(text) - text.rfind("\n") - 1 + (n_in_line if "\n" not in text else 0)
    takers = "byte" if tokenizer.kind == CharTokenizer.kind else "char or byte"
    hint = f"training with {takers} takes it (YAML key tokenizer, gin parameter Tokenizer.kind)"
    where = f"{block.where}, in its text" if block.line else block.where
    return InputError(
        f"{where}: line {n_lines:,}, column {n_in_line + 1:,} (character {n_before + 1:,}): "
        f"the {tokenizer.kind} tokenizer has no {character!r} (U+{ord(character):04X}); {hint}"
    )


def _text_before(block: Block) -> Iterator[str]:
    """What stands in the block's file before it; read again only when there is an error to tell."""
    # The documents of JSON lines are one block each.
    if block.offset and not block.line:
        for earlier in blocks_of(Path(block.place)):
            if earlier.offset >= block.offset:
                return
            yield earlier.data[: block.offset - earlier.offset].decode("utf-8")
