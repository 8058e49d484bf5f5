"""Windows of tokens: random ones to train on, and all of them, once, to validate."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch

from lm_core.data.permutation import permuted
from lm_core.errors import InputError
from lm_core.randomness import keyed_generator


class Batches(ABC):
    """Batches of windows of the training part; each is a function of the seed and the step alone.

    Args:
        tokens: The training part, ``(n_tokens,)``.
        batch_size: Windows in a batch.
        seq_len: Length of a window, in tokens.
        seed: The run's seed.

    Attributes:
        batch_size: As given.
        n_tokens: Tokens of a batch, each of them a target once.

    Raises:
        InputError: Too few tokens for one window and the token after it.
    """

    def __init__(self, tokens: np.ndarray, batch_size: int, seq_len: int, seed: int) -> None:
        require_window(tokens, seq_len, "training")
        self._tokens = tokens
        self.batch_size = batch_size
        self.n_tokens = batch_size * seq_len
        self._offsets = np.arange(seq_len + 1)
        self._seq_len = seq_len
        self._seed = seed

    @abstractmethod
    def _starts(self, step: int) -> np.ndarray:
        """Where the windows of a step start, ``(batch_size,)``."""

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of a step, counted from 1.

        Returns:
            Two int64 tensors ``(batch_size, seq_len)``; targets are the inputs' next tokens.
        """
        return _inputs_and_targets(self._tokens[self._starts(step)[:, None] + self._offsets])


class RandomBatches(Batches):
    """Windows that start anywhere in the training part, each place equally likely."""

    def _starts(self, step: int) -> np.ndarray:
        generator = keyed_generator(self._seed, "batches", step)
        return generator.integers(0, len(self._tokens) - self._seq_len, size=self.batch_size)


class ShuffledBatches(Batches):
    """Windows that follow each other in the training part, each once an epoch, in random order.

    Every epoch has an order of its own. What is left at the end of the training part, less than a
    window, is never seen.
    """

    def _starts(self, step: int) -> np.ndarray:
        n_windows = (len(self._tokens) - 1) // self._seq_len
        first = (step - 1) * self.batch_size
        epochs, places = np.divmod(np.arange(first, first + self.batch_size), n_windows)
        windows = np.empty(self.batch_size, np.int64)
        for epoch in np.unique(epochs):
            own = epochs == epoch
            windows[own] = permuted(places[own], n_windows, self._seed, "data_order", int(epoch))
        return windows * self._seq_len


# The orders in which windows may be trained on.
ORDERS: dict[str, type[Batches]] = {"random": RandomBatches, "shuffled": ShuffledBatches}


def validation_windows(
    tokens: np.ndarray, seq_len: int, windows_a_batch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Every token but the first as a target exactly once, in windows that follow each other.

    Args:
        tokens: The validation part, ``(n_tokens,)``.
        seq_len: Length of a window; what is left at the end makes a shorter one.
        windows_a_batch: Most windows in a batch.

    Yields:
        Inputs and targets, int64 ``(windows, seq_len)``, and at last ``(1, rest)``.

    Raises:
        InputError: Too few tokens for one window and the token after it.
    """
    require_window(tokens, seq_len, "validation")
    n_windows, rest = divmod(len(tokens) - 1, seq_len)
    offsets = np.arange(seq_len + 1)
    for first in range(0, n_windows, windows_a_batch):
        starts = np.arange(first, min(first + windows_a_batch, n_windows)) * seq_len
        yield _inputs_and_targets(tokens[starts[:, None] + offsets])
    if rest:
        yield _inputs_and_targets(tokens[None, len(tokens) - 1 - rest :])


def _inputs_and_targets(windows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    both = torch.from_numpy(windows.astype(np.int64))
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()


def require_window(tokens: np.ndarray, seq_len: int, part: str) -> None:
    """Refuses a part of the corpus that is too short for one window and the token after it.

    Args:
        tokens: The part, ``(n_tokens,)``.
        seq_len: Length of a window, in tokens.
        part: What to call it, such as ``training``.

    Raises:
        InputError: It is.
    """
    if len(tokens) <= seq_len:
        raise InputError(
            f"the {part} part of the corpus has {len(tokens):,} tokens; one window needs "
            f"{seq_len + 1:,} (max_seq_len + 1): take a longer text, a smaller max_seq_len or "
            "another train_ratio"
        )
