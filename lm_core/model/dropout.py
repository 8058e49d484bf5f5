"""Dropout whose masks are a function of (seed, step, place, sequence)."""

import numpy as np
import torch
from torch import nn

from lm_core.errors import InputError
from lm_core.model.sites import ForwardContext
from lm_core.randomness import StepKey, keyed_bits

# Each element compares 16 random bits with a threshold, so rates are multiples of 1 / 65536.
_LEVELS = 2**16
# A draw of the generator has 64 bits.
_ELEMENTS_A_DRAW = 4


class Dropout(nn.Module):
    """Zeroes a share of the elements in training and scales the others up (Srivastava et al. 2014).

    The mask of a sequence depends on the run's seed, the step, this layer's index and the place
    of the sequence in the global batch, and on nothing else: neither on how a batch is cut into
    pieces nor on what was drawn before.

    Args:
        rate: Share of elements that become zero, 0 to 1, rounded to a multiple of 1/65536, but
            not to 0 or 1. The scale belongs to the rounded rate, so that expectations are exact.
        index: Number of this layer in the model, different for each.
    """

    def __init__(self, rate: float, index: int) -> None:
        super().__init__()
        nearest = round(rate * _LEVELS)
        # What is neither nothing nor everything does not become so.
        self.n_dropped_levels = min(max(nearest, 1), _LEVELS - 1) if 0 < rate < 1 else nearest
        self.index = index

    @property
    def scale(self) -> float:
        """The factor of the elements that are kept; 0 when none is."""
        n_kept = _LEVELS - self.n_dropped_levels
        return _LEVELS / n_kept if n_kept else 0.0

    def is_active(self, context: ForwardContext) -> bool:
        """Whether this pass drops anything."""
        return context.training and self.n_dropped_levels > 0

    def forward(self, x: torch.Tensor, context: ForwardContext) -> torch.Tensor:
        """Applies the mask of this pass.

        Args:
            x: ``(batch, ...)``.
            context: The pass; must have a key when dropout is active.

        Returns:
            The same shape.

        Raises:
            InputError: Dropout is active and the pass has no key.
        """
        if not self.is_active(context):
            return x
        if context.key is None:
            raise InputError(
                "a forward pass in training mode with dropout needs a key, because its masks are "
                "a function of it: model(tokens, targets, key=StepKey(seed, step)), or model.eval()"
            )
        if self.scale == 0:
            return x * 0
        kept = keep_mask(context.key, self.index, self.n_dropped_levels, tuple(x.shape))
        return x * kept.to(device=x.device, dtype=x.dtype).mul_(self.scale)


def keep_mask(
    key: StepKey, index: int, n_dropped_levels: int, shape: tuple[int, ...]
) -> torch.Tensor:
    """Which elements a dropout layer keeps.

    Args:
        key: Seed, step, and index of the first sequence.
        index: Number of the dropout layer.
        n_dropped_levels: Dropped share in units of 1/65536, below 65536.
        shape: ``(batch, ...)``; one sequence for each index of the first dimension.

    Returns:
        Booleans of that shape.
    """
    n_sequences, n_elements = shape[0], int(np.prod(shape[1:]))
    n_draws = -(-n_elements // _ELEMENTS_A_DRAW)
    draws = np.empty((n_sequences, n_draws), dtype="<u8")
    for i in range(n_sequences):
        bits = keyed_bits(key.seed, "dropout", key.step, index, key.first_sequence + i)
        draws[i] = bits.random_raw(n_draws)
    levels = torch.from_numpy(draws.view("<i2").astype(np.int16, copy=False))
    # Read as signed, 16 bits are uniform from -32768.
    kept = levels[:, :n_elements] >= n_dropped_levels - _LEVELS // 2
    return kept.view(shape)
