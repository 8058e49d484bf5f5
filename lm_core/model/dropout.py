"""Dropout whose masks are a function of (seed, step, place, sequence)."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from lm_core.errors import InputError
from lm_core.kernels.kernel import Kernel
from lm_core.kernels.masks import (
    KEEP,
    KEEP_AND_ADD,
    KEEP_OF_SUM,
    KEY_WORDS,
    N_LEVELS,
    masks,
)
from lm_core.kernels.seeds import seed_words
from lm_core.kernels.tensors import computed_in, has_content, number_for, numbers_of, type_of
from lm_core.model.sites import ForwardContext, Site
from lm_core.randomness import StepKey, keyed_bits, keyed_entropy


class Dropout(nn.Module):
    """Zeroes a share of the elements in training and scales the others up (Srivastava et al. 2014).

    On a CPU, the mask of a sequence depends on the run's seed, the step, this layer's index and the
    place of the sequence in the global batch, and on nothing else: neither on how a batch is cut
    into pieces nor on what was drawn before. On other devices PyTorch draws the masks, from a
    generator that each pass seeds with its key.

    Args:
        rate: Share of elements that become zero, 0 to 1, rounded to a multiple of 1/65536, but
            not to 0 or 1. The scale belongs to the rounded rate, so that expectations are exact.
        index: Number of this layer in the model, different for each.
    """

    def __init__(self, rate: float, index: int) -> None:
        super().__init__()
        nearest = round(rate * N_LEVELS)
        # What is neither nothing nor everything does not become so.
        self.n_dropped_levels = min(max(nearest, 1), N_LEVELS - 1) if 0 < rate < 1 else nearest
        self.index = index

    @property
    def rate(self) -> float:
        """The share of elements that become zero, as it was rounded."""
        return self.n_dropped_levels / N_LEVELS

    @property
    def scale(self) -> float:
        """The factor of the elements that are kept; 0 when none is."""
        n_kept = N_LEVELS - self.n_dropped_levels
        return N_LEVELS / n_kept if n_kept else 0.0

    def is_active(self, context: ForwardContext) -> bool:
        """Whether this pass drops anything."""
        return context.training and self.n_dropped_levels > 0

    def keep_mask(self, context: ForwardContext, shape: tuple[int, ...]) -> torch.Tensor:
        """The mask of this pass, as ``keep_mask`` makes it.

        Args:
            context: The pass.
            shape: ``(batch, ...)``.

        Raises:
            InputError: The pass has no key.
        """
        if context.key is None:
            raise InputError(
                "a forward pass in training mode with dropout needs a key, because its masks are "
                "a function of it: model(tokens, targets, key=StepKey(seed, step)), or model.eval()"
            )
        return keep_mask(context.key, self.index, self.n_dropped_levels, shape)

    def forward(self, x: torch.Tensor, context: ForwardContext) -> torch.Tensor:
        """Applies the mask of this pass.

        Args:
            x: ``(batch, ...)``.
            context: The pass; must have a key when dropout is active.

        Returns:
            The same shape and dtype.

        Raises:
            InputError: Dropout is active and the pass has no key.
        """
        if not self.is_active(context):
            return x
        if self.scale == 0:
            return x * 0
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.rate)
        mask = self.keep_mask(context, tuple(x.shape))
        apply = _Masked.apply if type_of(x.dtype) in KEEP else reference_masked
        return apply(x, mask, self.scale)

    def add(
        self, residual: torch.Tensor, x: torch.Tensor, site: Site, context: ForwardContext
    ) -> torch.Tensor:
        """``residual + site(self(x, context), context)``, to the last bit, in fewer passes.

        Args:
            residual: ``(batch, ...)`` on the device of ``x``.
            x: As of ``forward``, of the same shape.
            site: Where hooks may look at what is added.
            context: As of ``forward``.

        Returns:
            The same shape, in the dtype of ``residual``.

        Raises:
            InputError: As of ``forward``.
        """
        is_active = self.is_active(context)
        is_for = type_of(x.dtype) in KEEP and computed_in(x.dtype) == residual.dtype
        has_kernel = x.device.type == "cpu" and is_for and not (is_active and self.scale == 0)
        if site.hooks or not has_kernel:
            return residual + site(self(x, context), context)
        mask = self.keep_mask(context, tuple(x.shape)) if is_active else None
        return _AddedMasked.apply(residual, x, mask, self.scale if is_active else 1)


class _Masked(torch.autograd.Function):
    """``reference_masked`` in one pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return _kept(KEEP, x, mask, scale, x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return _kept(KEEP, gradient, mask, ctx.scale, gradient.dtype), None, None


class _AddedMasked(torch.autograd.Function):
    """``residual + reference_masked(x, mask, scale)`` in one pass."""

    @staticmethod
    def forward(
        ctx: Any,
        residual: torch.Tensor,
        x: torch.Tensor,
        mask: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(mask)
        ctx.scale, ctx.dtype = scale, x.dtype
        total = torch.empty(residual.shape, dtype=residual.dtype)
        if has_content(x):
            kept = np.empty((len(x), 0), np.bool_) if mask is None else _rows(mask)
            factor = number_for(x.dtype, scale)
            KEEP_AND_ADD[type_of(x.dtype)](_rows(residual), _rows(x), kept, factor, _rows(total))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        if mask is None:
            return gradient, gradient.to(ctx.dtype), None, None
        return gradient, _kept(KEEP_OF_SUM, gradient, mask, ctx.scale, ctx.dtype), None, None


def _kept(
    kernels: Mapping[str, Kernel],
    x: torch.Tensor,
    mask: torch.Tensor,
    scale: float,
    dtype: torch.dtype,
) -> torch.Tensor:
    """``reference_masked``, rounded to a dtype before and after it is scaled."""
    kept = torch.empty(x.shape, dtype=dtype)
    if has_content(x):
        kernels[type_of(dtype)](_rows(x), _rows(mask), number_for(dtype, scale), _rows(kept))
    return kept


def _rows(x: torch.Tensor) -> np.ndarray:
    """Numbers of a tensor for kernels, a row for each sequence."""
    return numbers_of(x.contiguous(), len(x), -1)


def reference_masked(x: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    """What dropout makes of activations, in plain operations.

    Args:
        x: Any shape.
        mask: From ``keep_mask``, the same shape.
        scale: The factor of what is kept.
    """
    return torch.where(mask, x * scale, torch.zeros_like(x))


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
        Truth values of that shape: true for what is kept.
    """
    sequences = range(key.first_sequence, key.first_sequence + shape[0])
    entropy = keyed_entropy(len(sequences), key.seed, "dropout", key.step, index, sequences)
    keys = seed_words(entropy, KEY_WORDS)
    return torch.from_numpy(masks(keys, math.prod(shape[1:]), n_dropped_levels)).view(shape)


def seed_device(key: StepKey, device: torch.device) -> None:
    """Seeds the generator from which a device other than a CPU draws the masks of a pass.

    Args:
        key: Where in the run's randomness the pass stands.
        device: Where the model is.
    """
    word = keyed_bits(key.seed, "dropout", key.step, 0, key.first_sequence).random_raw()
    # Seeds of PyTorch's generators have 63 bits on every device.
    torch.get_device_module(device).manual_seed(int(word) >> 1)
