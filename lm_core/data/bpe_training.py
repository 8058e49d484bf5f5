"""Training byte-level BPE: the merges that a text asks for, always the same."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator

from lm_core.config.fields import SMALLEST_VOCABULARY
from lm_core.data.bpe import BpeTokenizer, package
from lm_core.data.text_pieces import pieces_of
from lm_core.data.tokenizer_json import SEPARATORS
from lm_core.errors import InputError

# A pair of tokens that a text has but once would make a token for that one place.
_FEWEST_PAIRS = 2
# Characters of a piece of text that is handed over.
_PIECE = 4096
# A word is no longer than this: the package goes through all of it for each merge that it has.
_LONGEST_WORD = 2 * _PIECE
# Of a larger text a part is taken, in pieces from all over it: which pairs are frequent shows in
# it, and what the package holds of the text, its different words, fits into memory.
LARGEST_TEXT = 32 * 2**20
# How long a signal waits for an answer, at the most.
_SECONDS_BETWEEN_LOOKS = 0.1


def train_bpe(
    documents: Iterable[Iterable[str]],
    vocab_size: int,
    n_bytes: int = 0,
    tell: Callable[[int], None] = lambda n_bytes: None,
) -> BpeTokenizer:
    """Byte-level BPE of texts: the 256 bytes, the separator, and what is merged of them.

    The separator is token 0, the bytes follow, then the merges in their order. The same texts and
    size give the same tokenizer, byte for byte, whatever parts a text comes in. It gets fewer
    tokens than are asked for where no pair of tokens occurs twice any more.

    Args:
        documents: The texts, each in parts. No word reaches from one into the next.
        vocab_size: Number of tokens, at least 257.
        n_bytes: Size of all texts in bytes, which tells whether a part of it is enough.
        tell: Called with the size of each part that was read.

    Raises:
        InputError: A vocabulary without room for the bytes, or the package is missing.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        least = f"{SMALLEST_VOCABULARY}: 256 bytes and the end of a text"
        raise InputError(f"vocab_size is {vocab_size}; bpe needs at least {least}")
    tokenizers = package()
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=_FEWEST_PAIRS,
        special_tokens=[SEPARATORS[0]],
        initial_alphabet=sorted(byte_level.alphabet()),
        show_progress=False,
    )
    stopped = threading.Event()
    told = (_told(texts, tell, stopped) for texts in documents)
    pieces = _taken(told, n_bytes)
    _interruptible(lambda: tokenizer.train_from_iterator(pieces, trainer), stopped)
    return BpeTokenizer(tokenizer.to_str())


class _StoppedError(Exception):
    """Nobody waits for the tokenizer any more."""


def _told(
    texts: Iterable[str], tell: Callable[[int], None], stopped: threading.Event
) -> Iterator[str]:
    for text in texts:
        if stopped.is_set():
            raise _StoppedError
        yield text
        tell(len(text.encode()))


def _taken(documents: Iterable[Iterable[str]], n_bytes: int) -> Iterator[str]:
    """Pieces of texts: all of them, or one in so many that they are no larger than is taken."""
    stride = max(1, -(-n_bytes // LARGEST_TEXT))
    pieces = (piece for texts in documents for piece in pieces_of(texts, _PIECE, _LONGEST_WORD))
    return itertools.islice(pieces, 0, None, stride)


def _interruptible(work: Callable[[], None], stopped: threading.Event) -> None:
    """Does work in a thread: this one is where signals are answered, and has to be in Python.

    A signal ends the reading of the text. Merges that are being made are waited for, unless there
    is a second one: what the package does then cannot be ended but with the process, and to take it
    from under the package ends the process in its own way.

    Args:
        work: What to do; raises as it does.
        stopped: Set when nobody waits for it any more.
    """
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    done = threading.Event()
    threading.Thread(target=guarded, name="bpe", daemon=True).start()
    try:
        # Not the thread's own end: Python takes it for ended once a signal interrupts the waiting.
        while not done.wait(_SECONDS_BETWEEN_LOOKS):
            pass
    except BaseException:
        stopped.set()
        done.wait()
        raise
    if errors:
        raise errors[0]
