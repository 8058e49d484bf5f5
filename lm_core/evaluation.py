"""The loss on held-out text: every target once, the same number every time."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from lm_core.compute import DTYPES
from lm_core.data.batches import validation_windows
from lm_core.data.tokenizer import Tokenizer
from lm_core.metrics import bits_per_byte, perplexity
from lm_core.model.transformer import Transformer
from lm_core.training.signals import CheckStop

# Enough to fill matrix products; the result depends on it only by rounding.
_TOKENS_A_BATCH = 4096


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
        loss: Mean loss in nats per token.
        bits_per_byte: The same in bits for each byte of text.
        perplexity: Exponential of the loss.
        n_targets: Tokens that were predicted.
    """

    loss: float
    bits_per_byte: float
    perplexity: float
    n_targets: int

    def __str__(self) -> str:
        return (
            f"{self.loss:.4f} nats per token, {self.bits_per_byte:.4f} bits per byte, "
            f"perplexity {self.perplexity:.4g}"
        )


class Evaluator:
    """Evaluates a model on tokens, in windows of its ``max_seq_len`` that follow each other.

    Args:
        model: The model; it is put into evaluation mode and back.
        tokens: The held-out tokens, at least ``max_seq_len + 1``.
        tokenizer: Tells how many bytes tokens stand for.
        precision: Of matrix products, ``float32`` or ``bfloat16``.

    Raises:
        InputError: Too few tokens for one window.
    """

    def __init__(
        self,
        model: Transformer,
        tokens: np.ndarray,
        tokenizer: Tokenizer,
        precision: str = "float32",
    ) -> None:
        self._model = model
        self._dtype = DTYPES[precision]
        self._tokens = tokens
        self._tokenizer = tokenizer
        next(self._windows())

    def _windows(self):  # noqa: ANN202 -- the iterator of validation_windows
        length = self._model.max_seq_len
        return validation_windows(self._tokens, length, -(-_TOKENS_A_BATCH // length))

    @cached_property
    def _n_bytes(self) -> int:
        """Bytes of the targets; counted at the first evaluation, which reads all tokens anyway."""
        return self._tokenizer.count_bytes(self._tokens[1:])

    def __call__(self, check_stop: CheckStop | None = None) -> Evaluation:
        """The loss over all targets; float32 per token, summed in float64.

        Args:
            check_stop: Called before each batch; what it raises ends the evaluation.
        """
        device = self._model.device
        total = torch.zeros((), dtype=torch.float64, device=device)
        with self._model.evaluating():
            for inputs, targets in self._windows():
                if check_stop is not None:
                    check_stop()
                logits = self._model(inputs.to(device), dtype=self._dtype).float()
                targets = targets.to(device).flatten()
                losses = F.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
                total += losses.double().sum()
        n_targets = len(self._tokens) - 1
        loss = float(total) / n_targets
        return Evaluation(
            loss, bits_per_byte(float(total), self._n_bytes), perplexity(loss), n_targets
        )
