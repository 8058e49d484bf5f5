"""The loss on held-out text: every target once, the same number every time."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from lm_core.compute import DTYPES
from lm_core.data.batches import ValidationWindows
from lm_core.data.tokenizer import Tokenizer
from lm_core.metrics import bits_per_byte, perplexity
from lm_core.model.transformer import Transformer
from lm_core.parallel.group import Group
from lm_core.token_ids import require_token_ids
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
        group: Processes that evaluate together, each a share of the windows.

    Raises:
        InputError: Too few tokens for one window, or the tokenizer is not that of the model.
    """

    def __init__(
        self,
        model: Transformer,
        tokens: np.ndarray,
        tokenizer: Tokenizer,
        precision: str = "float32",
        group: Group = Group(),  # noqa: B008 -- it cannot change
    ) -> None:
        model.require_vocabulary(tokenizer.vocab_size)
        self._model, self._group = model, group
        self._dtype = DTYPES[precision]
        self._tokens = tokens
        self._tokenizer = tokenizer
        length = model.max_seq_len
        self._windows = ValidationWindows(tokens, length, -(-_TOKENS_A_BATCH // length))

    @cached_property
    def _n_bytes(self) -> int:
        """Bytes of the targets; counted at the first evaluation, which reads all tokens anyway."""
        return self._tokenizer.count_bytes(self._tokens[1:])

    def __call__(self, check_stop: CheckStop | None = None) -> Evaluation:
        """The loss over all targets; float32 per token, summed in float64.

        Args:
            check_stop: Called before each batch; what it raises ends the evaluation.
        """
        sums = self._sums(check_stop)
        # One after the other, whatever the number of processes: the same bits.
        total = float(sum(sums))
        n_targets = len(self._tokens) - 1
        loss = total / n_targets
        return Evaluation(loss, bits_per_byte(total, self._n_bytes), perplexity(loss), n_targets)

    def _sums(self, check_stop: CheckStop | None) -> list[float]:
        """The losses of each batch of windows, added up."""
        # In turns, so that the first process, whose hooks report, has some if there are any.
        own = range(self._group.rank, len(self._windows), self._group.n_processes)
        # In one piece of memory: small ones that stay would lie between those that come and go with
        # each batch, which then find no place of their size and take new ones, all along the text.
        sums = torch.zeros(len(own), dtype=torch.float64, device=self._model.device)
        with self._model.evaluating():
            # All processes ask as often whether to stop.
            for place in range(-(-len(self._windows) // self._group.n_processes)):
                if check_stop is not None:
                    check_stop()
                if place < len(own):
                    sums[place] = self._sum(*self._windows[own[place]])
        found = dict(zip(own, sums.tolist(), strict=True))
        return self._group.joined(found, len(self._windows))

    def _sum(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        device = self._model.device
        logits = self._model(inputs.to(device), dtype=self._dtype).float()
        targets = targets.to(device).flatten()
        try:
            losses = F.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
        except IndexError as error:
            require_token_ids(targets, self._model.vocab_size, error)
            raise
        return losses.double().sum()
