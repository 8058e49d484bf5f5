"""What of a corpus is trained on, and what is held out to validate."""

from collections.abc import Iterator
from typing import NamedTuple

import gin

from lm_core.data.corpus import Corpus
from lm_core.data.documents import KEY_BITS, key_of
from lm_core.data.text_files import Block
from lm_core.errors import InputError, unknown

# By where it stands in the text, or by whole documents.
POSITION, DOCUMENT = "position", "document"
# The bytes of a character in UTF-8 but its first have these bits (RFC 3629, section 3).
_CONTINUATION, _ITS_BITS = 0b1000_0000, 0b1100_0000


class Piece(NamedTuple):
    """A piece of the text, and on which side it is.

    Attributes:
        is_held_out: Whether it is held out, and not trained on.
        block: The piece.
    """

    is_held_out: bool
    block: Block


class Split:
    """The two parts of a corpus, as text; it needs no tokenizer.

    By position, the part that is trained on is the beginning of the text, up to the last whole
    character of the first ``train_ratio`` of its bytes. By document, it is those whose key
    (``key_of``) is below that share of all possible keys: about that share of the documents. This
    depends on nothing but the document's beginning: equal documents are on one side, and stay there
    when others come or go, and for every seed. So that neither part is empty, the document with the
    smallest key is trained on, and the one with the largest is held out.

    Args:
        corpus: The text.
        train_ratio: The share that is trained on, between 0 and 1.
        split_by: ``position`` or ``document``.

    Attributes:
        corpus: As given.
        train_ratio: As given.
        split_by: As given.

    Raises:
        InputError: A ratio that leaves one part nothing by definition, another word, or documents
            that cannot be divided.
    """

    def __init__(self, corpus: Corpus, train_ratio: float, split_by: str) -> None:
        if not 0 < train_ratio < 1:
            raise InputError(f"train_ratio is {train_ratio}; it must be greater than 0 and below 1")
        if split_by not in (POSITION, DOCUMENT):
            message = unknown(split_by, (POSITION, DOCUMENT), "split_by")
            raise InputError(f"{split_by!r}: {message} (there are {POSITION} and {DOCUMENT})")
        self.corpus = corpus
        self.train_ratio = train_ratio
        self.split_by = split_by
        if split_by == DOCUMENT:
            _require_different_documents(corpus)

    @property
    def limit(self) -> int:
        """Where the held-out part begins: a byte of the text, or by document a key."""
        if self.split_by == POSITION:
            return int(self.corpus.n_bytes * self.train_ratio)
        documents = self.corpus.documents
        limit = int(2**KEY_BITS * self.train_ratio)
        return min(max(limit, documents.smallest_key + 1), documents.largest_key)

    def pieces(self) -> Iterator[Piece]:
        """The whole text in its order, once, each piece with its side.

        Raises:
            InputError: As ``Corpus.blocks``.
        """
        return self._by_position() if self.split_by == POSITION else self._by_document()

    def training_text(self) -> Iterator[Block]:
        """The text that is trained on, and nothing of what is held out, in blocks.

        A document is one block or several, of which the last ``ends_document``; what a tokenizer
        or the corpus puts between documents (``Tokenizer.separator``, ``Corpus.joint``) is not in
        it. By position, the last document may be cut off.

        Raises:
            InputError: As ``Corpus.blocks``.
        """
        for is_held_out, block in self.pieces():
            if not is_held_out:
                yield block

    def _by_position(self) -> Iterator[Piece]:
        limit, place = self.limit, 0
        for block in self.corpus.blocks():
            n_before = limit - place
            place += len(block.data)
            if n_before >= len(block.data) or n_before <= 0:
                yield Piece(n_before <= 0, block)
                continue
            while n_before and block.data[n_before] & _ITS_BITS == _CONTINUATION:
                n_before -= 1
            first = block._replace(data=block.data[:n_before], ends_document=False)
            if first.data:
                yield Piece(False, first)
            rest = block._replace(data=block.data[n_before:], offset=block.offset + n_before)
            yield Piece(True, rest)

    def _by_document(self) -> Iterator[Piece]:
        limit, is_first, is_held_out = self.limit, True, False
        for block in self.corpus.blocks():
            if is_first:
                is_held_out = key_of(block.data) >= limit
            yield Piece(is_held_out, block)
            is_first = block.ends_document


def _require_different_documents(corpus: Corpus) -> None:
    documents = corpus.documents
    if documents.smallest_key < documents.largest_key:
        return
    if documents.n_documents == 1:
        message = (
            f"{corpus.description} is one document, and split_by document holds out whole ones"
        )
    else:
        message = f"all documents of {corpus.description} begin alike, so that none can be held out"
    raise InputError(f"{message}; split_by position divides it")


@gin.configurable(denylist=["corpus"])
def split_corpus(corpus: Corpus, train_ratio: float = 0.95, split_by: str = POSITION) -> Split:
    """Divides a corpus into what is trained on and what is held out for validation.

    Args:
        corpus: The text.
        train_ratio: The share that is trained on, between 0 and 1.
        split_by: ``position``: the beginning of the text is trained on, and its end held out.
            ``document``: whole documents are held out, chosen by what they say.

    Returns:
        The two parts, as text; nothing is read yet.

    Raises:
        InputError: As ``Split``.
    """
    return Split(corpus, train_ratio, split_by)
