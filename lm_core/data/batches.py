"""Windows of tokens: random ones to train on, and all of them, once, to validate."""

from collections.abc import Iterator

import numpy as np
import torch

from lm_core.errors import InputError
from lm_core.randomness import keyed_generator


class RandomBatches:
    """Batches of windows that start anywhere in the training part, each equally likely.

    Args:
        tokens: The training part, ``(n_tokens,)``.
        batch_size: Windows in a batch.
        seq_len: Length of a window, in tokens.
        seed: The run's seed.

    Attributes:
        n_tokens: Tokens of a batch, each of them a target once.

    Raises:
        InputError: Too few tokens for one window and the token after it.
    """

    def __init__(self, tokens: np.ndarray, batch_size: int, seq_len: int, seed: int) -> None:
        require_window(tokens, seq_len, "training")
        self._tokens = tokens
        self._batch_size = batch_size
        self.n_tokens = batch_size * seq_len
        self._offsets = np.arange(seq_len + 1)
        self._n_starts = len(tokens) - seq_len
        self._seed = seed

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of a step; a function of the seed and the step alone.

        Returns:
            Two int64 tensors ``(batch_size, seq_len)``; targets are the inputs' next tokens.
        """
        generator = keyed_generator(self._seed, "batches", step)
        starts = generator.integers(0, self._n_starts, size=(self._batch_size, 1))
        return _inputs_and_targets(self._tokens[starts + self._offsets])


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
