"""What training makes small: the loss, and what is added to it."""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from lm_core.token_ids import require_token_ids


class Loss(NamedTuple):
    """The loss of a batch, as mean over its targets, in nats; scalars on the model's device.

    Attributes:
        objective: What gradients are of.
        cross_entropy: The loss alone, which compares with any other.
    """

    objective: torch.Tensor
    cross_entropy: torch.Tensor


class Objective(NamedTuple):
    """Cross-entropy, and what is to keep a model from being too sure.

    Attributes:
        label_smoothing: Share of the probability that the target gives to all tokens alike
            (Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7).
        z_loss: Factor of the squared logarithm of the softmax's normaliser, which keeps logits from
            drifting away (Chowdhery et al. 2022, "PaLM", section 5).
    """

    label_smoothing: float
    z_loss: float

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> Loss:
        """The loss of a batch.

        Args:
            logits: ``(batch, time, vocab_size)``; computed with in float32 at least.
            targets: ``(batch, time)`` token ids.

        Raises:
            InputError: A target is none of the vocabulary.
        """
        rows, targets = logits.flatten(0, 1), targets.flatten()
        if rows.dtype != torch.float64:
            rows = rows.float()
        try:
            cross_entropy = F.cross_entropy(rows, targets)
        except IndexError as error:
            require_token_ids(targets, rows.shape[-1], error)
            raise
        objective = cross_entropy
        if self.label_smoothing:
            # The target of a token is (1 - s) of its own probability, and s of that of all.
            of_all = -F.log_softmax(rows, -1).mean()
            objective = (1 - self.label_smoothing) * cross_entropy + self.label_smoothing * of_all
        if self.z_loss:
            objective = objective + self.z_loss * rows.logsumexp(-1).square().mean()
        return Loss(objective, cross_entropy)
