"""Windows of tokens: random ones to train on, and all of them, once, to validate."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

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
        InputError: Too few tokens for one window and the token after it, or no array of them.
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

    def batch(
        self, step: int, first: int = 0, last: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of a step, or of a part of its windows: only those are read.

        Args:
            step: The step, counted from 1.
            first: The first window.
            last: The first window that is not wanted any more. None: all are.

        Returns:
            Two int64 tensors ``(n_windows, seq_len)``; targets are the inputs' next tokens.
        """
        starts = self._starts(step)[first:last]
        return _inputs_and_targets(self._tokens[starts[:, None] + self._offsets])


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


class ValidationWindows(Sequence[tuple[torch.Tensor, torch.Tensor]]):
    """Every token but the first as a target exactly once, in windows that follow each other.

    It is a sequence of batches: inputs and targets, int64 ``(windows, seq_len)``, and at last
    ``(1, rest)``. Each is read from the tokens when it is asked for.

    Args:
        tokens: The validation part, ``(n_tokens,)``.
        seq_len: Length of a window; what is left at the end makes a shorter one.
        windows_a_batch: Most windows in a batch.

    Raises:
        InputError: Too few tokens for one window and the token after it, or no array of them.
    """

    def __init__(self, tokens: np.ndarray, seq_len: int, windows_a_batch: int) -> None:
        require_window(tokens, seq_len, "validation")
        self._tokens, self._windows_a_batch = tokens, windows_a_batch
        self._n_windows, self._rest = divmod(len(tokens) - 1, seq_len)
        self._offsets = np.arange(seq_len + 1)
        self._n_whole = -(-self._n_windows // windows_a_batch)

    def __len__(self) -> int:
        return self._n_whole + bool(self._rest)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} batches of windows, and no {index}")
        if index == self._n_whole:
            return _inputs_and_targets(self._tokens[None, len(self._tokens) - 1 - self._rest :])
        first = index * self._windows_a_batch
        windows = np.arange(first, min(first + self._windows_a_batch, self._n_windows))
        starts = windows * (len(self._offsets) - 1)
        return _inputs_and_targets(self._tokens[starts[:, None] + self._offsets])


def _inputs_and_targets(windows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    both = torch.from_numpy(windows.astype(np.int64))
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()


def require_window(tokens: np.ndarray, seq_len: int, part: str) -> None:
    """Refuses what is no array of tokens, or too short for one window and the token after it.

    The tokens themselves are not looked at: there may be more of them than the memory has room for.

    Args:
        tokens: The part, ``(n_tokens,)``.
        seq_len: Length of a window, in tokens.
        part: What to call it, such as ``training``.

    Raises:
        InputError: It is.
    """
    is_array = isinstance(tokens, np.ndarray)
    if not is_array or tokens.ndim != 1 or tokens.dtype.kind not in "ui":
        kind = f"{tokens.ndim} dimensions of {tokens.dtype}" if is_array else type(tokens).__name__
        raise InputError(
            f"the {part} tokens have to be a NumPy array of one dimension of integers, as "
            f"tokenizer.encode(text) gives it; these are of {kind}"
        )
    if len(tokens) <= seq_len:
        raise InputError(
            f"the {part} part of the corpus has {len(tokens):,} tokens; one window needs "
            f"{seq_len + 1:,} (max_seq_len + 1): take a longer text, a smaller max_seq_len or "
            "another train_ratio"
        )
