"""What happens to queries and keys before attention: norms of heads, and rotary positions.

A rotation by an angle that is proportional to the position makes the product of a query and a key
depend on how far apart they are, and on nothing else of their positions (Su et al. 2021,
"RoFormer: Enhanced Transformer with Rotary Position Embedding"). Queries and keys of one length
keep these products within bounds (Dehghani et al. 2023, "Scaling Vision Transformers to 22 Billion
Parameters", section 2.1).
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from lm_core.errors import InputError
from lm_core.kernels.rotary import PREPARE, PREPARE_BACKWARD
from lm_core.kernels.tensors import computed_in, has_content, number_for, numbers_of, type_of

# RoFormer's base of the wavelengths, from 2 * pi positions to nearly 2 * pi times as many.
BASE = 10_000
# Added to the mean square of a head, as LayerNorm does with a variance: heads of zeros stay so.
HEAD_NORM_EPSILON = 1e-5
# Tables of angles that are kept: a process needs few lengths, widths and precisions.
_TABLES_KEPT = 16
# Queries, keys and values.
_PROJECTIONS = 3


def prepared(
    projected: torch.Tensor,
    n_heads: int,
    first_position: int = 0,
    rotates: bool = True,
    norms: bool = False,
) -> torch.Tensor:
    """Queries and keys as attention compares them, and values as they are.

    Args:
        projected: Queries, keys and values side by side, ``(batch, time, 3 * d_model)``.
        n_heads: Attention heads, which divide ``d_model`` into ``d_head`` each.
        first_position: Tokens before the first of these.
        rotates: Whether queries and keys are rotated by their positions. For each i below
            ``d_head / 2``, elements i and ``i + d_head / 2`` of a head are turned by an angle of
            ``position * 10000**(-2 * i / d_head)`` radians.
        norms: Whether the query and the key of each head are divided by their root mean squares,
            before they are rotated.

    Returns:
        The same shape and dtype, the values to the last bit; ``projected`` itself if nothing is to
        be done. In bfloat16, it is computed in float32, and rounded once.

    Raises:
        InputError: Heads of an odd width are to be rotated.
    """
    d_head = projected.shape[-1] // _PROJECTIONS // n_heads
    if rotates and d_head % 2:
        raise InputError(f"rotary positions need heads of an even width, and d_head is {d_head}")
    if not rotates and not norms:
        return projected
    is_fast = projected.device.type == "cpu" and type_of(projected.dtype) in PREPARE
    compute = _Prepared.apply if is_fast else reference_prepared
    return compute(projected, n_heads, first_position, rotates, norms)


def reference_prepared(
    projected: torch.Tensor,
    n_heads: int,
    first_position: int = 0,
    rotates: bool = True,
    norms: bool = False,
) -> torch.Tensor:
    """The same in plain operations."""
    dtype = computed_in(projected.dtype)
    parts = projected.unflatten(-1, (_PROJECTIONS, n_heads, -1))
    x = parts[:, :, :2].to(dtype)
    if norms:
        x = x / (x.square().mean(-1, keepdim=True) + HEAD_NORM_EPSILON).sqrt()
    if rotates:
        _, time, _, _, d_head = x.shape
        # Each is the same for all heads of a position, and for its query and its key.
        cosines, sines = (
            torch.from_numpy(table).to(x.device)[:, None, None]
            for table in rotations(first_position, time, d_head, dtype)
        )
        a, b = x.chunk(2, -1)
        x = torch.cat([a * cosines - b * sines, b * cosines + a * sines], -1)
    return torch.cat([x.to(projected.dtype), parts[:, :, 2:]], 2).flatten(2)


def rotations(
    first_position: int, n_positions: int, d_head: int, dtype: torch.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """By how much positions are rotated.

    Args:
        first_position: The first of them.
        n_positions: How many.
        d_head: Width of a head, even.
        dtype: Of what is computed with, ``torch.float32`` or ``torch.float64``.

    Returns:
        Cosines and sines of the angles, each ``(n_positions, d_head / 2)`` and without gaps, to be
        read only. Those of a position do not depend on what else is asked for.
    """
    end = first_position + n_positions
    # Generation asks for one position after the other, and few lengths are to be kept.
    length = 1 << max(end - 1, 0).bit_length()
    cosines, sines = _tables(length, d_head, type_of(dtype))
    return cosines[first_position:end], sines[first_position:end]


@lru_cache(_TABLES_KEPT)
def _tables(length: int, d_head: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines for all positions below a length, rounded once.

    They are numpy's, which have content also where tensors are made without.
    """
    rates = np.float64(BASE) ** (-2 * np.arange(d_head // 2) / d_head)
    angles = np.arange(length)[:, None] * rates
    return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)


class _Prepared(torch.autograd.Function):
    """``reference_prepared`` in one pass, and one backward, which keep no more than its input."""

    @staticmethod
    def forward(
        ctx: Any,
        projected: torch.Tensor,
        n_heads: int,
        first_position: int,
        rotates: bool,
        norms: bool,
    ) -> torch.Tensor:
        projected = projected.contiguous()
        ctx.choices = n_heads, first_position, rotates, norms
        # A rotation is undone without what was rotated.
        ctx.save_for_backward(*([projected] if norms else []))
        result = torch.empty_like(projected)
        if has_content(projected):
            arguments = _arguments(projected, *ctx.choices)
            PREPARE[type_of(projected.dtype)](*arguments, _rows_of(result))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        gradient = gradient.contiguous()
        (projected,) = ctx.saved_tensors or (gradient,)
        of_projected = torch.empty_like(gradient)
        arguments = _arguments(projected, *ctx.choices)
        gradients = _rows_of(gradient), _rows_of(of_projected)
        PREPARE_BACKWARD[type_of(gradient.dtype)](*arguments, *gradients)
        return of_projected, None, None, None, None


def _arguments(
    projected: torch.Tensor, n_heads: int, first_position: int, rotates: bool, norms: bool
) -> tuple[Any, ...]:
    """The arguments that forward and backward of the kernel share."""
    _, time, width = projected.shape
    d_head = width // _PROJECTIONS // n_heads if rotates else 0
    angles = rotations(first_position, time, d_head, computed_in(projected.dtype))
    epsilon = number_for(projected.dtype, HEAD_NORM_EPSILON)
    return _rows_of(projected), n_heads, *angles, norms, rotates, epsilon


def _rows_of(x: torch.Tensor) -> np.ndarray:
    return numbers_of(x, -1, x.shape[-1])
