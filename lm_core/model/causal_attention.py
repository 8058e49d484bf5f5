"""Causal attention with keyed dropout: two fast paths for a CPU, and the plain formula they equal.

In float32, compiled loops compute a block of queries after the other without leaving the cache. In
bfloat16, batches of matrices are multiplied by the library that knows the processor's instructions
for it, in strips of queries that leave out the keys after them; the weights are kept for backward.
Both are two to four times faster than ``scaled_dot_product_attention`` on a CPU, most of it in
backward (``docs/performance.md``).
"""

import math
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from lm_core.kernels.attention import BACKWARD, FORWARD, SOFTEN, SOFTEN_BACKWARD
from lm_core.kernels.tensors import has_content, number_for, numbers_of, type_of
from lm_core.model.dropout import reference_masked

# Queries in a strip: fewer leave out more of the keys that no query of the strip may see, more
# make larger products, which run faster.
_QUERIES_A_STRIP = 128
# Queries, keys and values.
_PROJECTIONS = 3


class Strip(NamedTuple):
    """Queries ``start`` to ``end``, which see the keys up to ``end``."""

    start: int
    end: int

    @property
    def n_weights(self) -> int:
        """Attention weights of a head."""
        return (self.end - self.start) * self.end


def strips(time: int) -> list[Strip]:
    """The strips of queries of a sequence, from its start.

    Args:
        time: Tokens of the sequence.
    """
    starts = range(0, time, _QUERIES_A_STRIP)
    return [Strip(start, min(start + _QUERIES_A_STRIP, time)) for start in starts]


def n_attention_weights(time: int, n_heads: int) -> int:
    """Attention weights of a sequence in all strips and heads: so large is its mask.

    Args:
        time: Tokens of the sequence.
        n_heads: Attention heads.
    """
    return n_heads * sum(strip.n_weights for strip in strips(time))


def causal_attention(
    projected: torch.Tensor, n_heads: int, mask: torch.Tensor | None = None, scale: float = 1
) -> torch.Tensor:
    """Attention of each position to those up to it.

    Args:
        projected: Queries, keys and values side by side, ``(batch, time, 3 * d_model)``, on a CPU.
        n_heads: Attention heads.
        mask: Of the attention weights, from ``keep_mask``, ``(batch, n_attention_weights)``:
            strip by strip, in each head by head. None: nothing is dropped.
        scale: The factor of the weights that are kept.

    Returns:
        What the heads found, ``(batch, time, d_model)``, in the dtype of ``projected``.
    """
    if projected.dtype in (torch.float32, torch.float64):
        return _InBlocks.apply(projected, n_heads, mask, scale)
    if projected.dtype == torch.bfloat16:
        return _InStrips.apply(projected, n_heads, mask, scale)
    return reference_causal_attention(projected, n_heads, mask, scale)


def reference_causal_attention(
    projected: torch.Tensor, n_heads: int, mask: torch.Tensor | None = None, scale: float = 1
) -> torch.Tensor:
    """The same by the plain formula (Vaswani et al. 2017), at once for all queries and keys."""
    batch, time, width = projected.shape
    d_model = width // _PROJECTIONS
    q, k, v = (
        part.view(batch, time, n_heads, -1).transpose(1, 2) for part in projected.split(d_model, -1)
    )
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    later = torch.ones(time, time, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(later, -math.inf).softmax(-1)
    if mask is not None:
        kept = torch.zeros(batch, n_heads, time, time, dtype=torch.bool)
        for strip, part in zip(strips(time), _masks_of_strips(mask, time, n_heads), strict=True):
            kept[:, :, strip.start : strip.end, : strip.end] = part
        weights = reference_masked(weights, kept, scale)
    return (weights @ v).transpose(1, 2).reshape(batch, time, d_model)


def _masks_of_strips(mask: torch.Tensor, time: int, n_heads: int) -> list[torch.Tensor]:
    """The mask of each strip, ``(batch, n_heads, queries, keys)``, as views."""
    all_strips = strips(time)
    parts = mask.split([n_heads * strip.n_weights for strip in all_strips], dim=1)
    return [
        part.view(-1, n_heads, strip.end - strip.start, strip.end)
        for strip, part in zip(all_strips, parts, strict=True)
    ]


class _InStrips(torch.autograd.Function):
    """``reference_causal_attention`` in strips of queries.

    Queries are scaled before they are multiplied, and values carry the scale of dropout, so that
    nothing as large as the attention weights has to be.
    """

    @staticmethod
    def forward(
        ctx: Any, projected: torch.Tensor, n_heads: int, mask: torch.Tensor | None, scale: float
    ) -> torch.Tensor:
        batch, time, width = projected.shape
        shape = (batch, time, _PROJECTIONS, n_heads, width // _PROJECTIONS // n_heads)
        # Each head of each sequence becomes one matrix in a row of them, as a copy in any case.
        by_head = projected.new_empty(_PROJECTIONS, batch, n_heads, time, shape[-1])
        by_head.copy_(projected.reshape(shape).transpose(1, 3).movedim(2, 0))
        q, k, v = by_head.flatten(1, 2)
        q.mul_(1 / math.sqrt(shape[-1]))
        v.mul_(scale)
        heads, kept = torch.empty_like(v), []
        mask = _contiguous_mask(mask, projected)
        for strip in strips(time):
            seen = slice(strip.end)
            weights = torch.bmm(q[:, strip.start : strip.end], k[:, seen].transpose(1, 2))
            dropped = _room_for_dropped(weights, mask)
            if has_content(weights):
                four = (batch, n_heads, *weights.shape[1:])
                arguments = numbers_of(mask), _QUERIES_A_STRIP, numbers_of(dropped, *four)
                SOFTEN[type_of(weights.dtype)](numbers_of(weights, *four), *arguments)
            kept.append(weights)
            torch.bmm(dropped, v[:, seen], out=heads[:, strip.start : strip.end])
        ctx.save_for_backward(by_head, mask, *kept)
        ctx.scale = scale
        return heads.view(batch, n_heads, time, -1).transpose(1, 2).reshape(batch, time, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
        by_head, mask, *kept = ctx.saved_tensors
        _, batch, n_heads, time, d_head = by_head.shape
        q, k, v = by_head.flatten(1, 2)
        of_heads = gradient.reshape(batch, time, n_heads, d_head).transpose(1, 2).flatten(0, 1)
        gradients = torch.empty_like(by_head)
        of_q, of_k, of_v = gradients.flatten(1, 2)
        # From the last strip, which sees all keys: it writes where the others add.
        for strip, weights in reversed(list(zip(strips(time), kept, strict=True))):
            queries, seen = slice(strip.start, strip.end), slice(strip.end)
            beta = 0 if strip.end == time else 1
            g = of_heads[:, queries]
            of_scores = torch.bmm(g, v[:, seen].transpose(1, 2))
            dropped = _room_for_dropped(weights, mask)
            four = (batch, n_heads, *weights.shape[1:])
            arguments = (numbers_of(part, *four) for part in (of_scores, dropped))
            softened = numbers_of(weights, *four), numbers_of(mask), _QUERIES_A_STRIP
            SOFTEN_BACKWARD[type_of(weights.dtype)](*softened, *arguments)
            of_v[:, seen].baddbmm_(dropped.transpose(1, 2), g, beta=beta)
            torch.bmm(of_scores, k[:, seen], out=of_q[:, queries])
            of_k[:, seen].baddbmm_(of_scores.transpose(1, 2), q[:, queries], beta=beta)
        of_q.mul_(1 / math.sqrt(d_head))
        of_v.mul_(ctx.scale)
        of_projected = gradients.movedim(0, 2).transpose(1, 3).reshape(batch, time, -1)
        return of_projected, None, None, None


def _contiguous_mask(mask: torch.Tensor | None, projected: torch.Tensor) -> torch.Tensor:
    """Masks as the kernels take them: of none, ``(batch, 0)``."""
    if mask is None:
        return torch.empty(len(projected), 0, dtype=torch.bool)
    return mask.contiguous()


def _room_for_dropped(weights: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Where the weights that are kept come: where all are, if nothing is dropped."""
    return torch.empty_like(weights) if mask.shape[1] else weights


class _InBlocks(torch.autograd.Function):
    """``reference_causal_attention`` in float32 or float64, by ``kernels/attention.py``."""

    @staticmethod
    def forward(
        ctx: Any, projected: torch.Tensor, n_heads: int, mask: torch.Tensor | None, scale: float
    ) -> torch.Tensor:
        batch, time, width = projected.shape
        d_model = width // _PROJECTIONS
        projected = projected.contiguous()
        found = projected.new_empty(batch, time, d_model)
        # Of the scores of each query: the largest, and the sum of exponentials beside it.
        sums = projected.new_empty(2, batch, n_heads, time)
        mask = _contiguous_mask(mask, projected)
        ctx.save_for_backward(projected, mask, sums)
        ctx.n_heads, ctx.factors = n_heads, (1 / math.sqrt(d_model // n_heads), scale)
        if has_content(projected):
            arguments = _of_blocks(projected, n_heads, mask, ctx.factors)
            FORWARD[type_of(projected.dtype)](*arguments, numbers_of(found), *numbers_of(sums))
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        projected, mask, sums = ctx.saved_tensors
        of_projected = torch.empty_like(projected)
        arguments = _of_blocks(projected, ctx.n_heads, mask, ctx.factors)
        gradients = numbers_of(gradient.contiguous()), numbers_of(of_projected)
        BACKWARD[type_of(projected.dtype)](*arguments, *numbers_of(sums), *gradients)
        return of_projected, None, None, None


def _of_blocks(
    projected: torch.Tensor, n_heads: int, mask: torch.Tensor, factors: tuple[float, float]
) -> tuple[Any, ...]:
    """The arguments that forward and backward of the kernel share."""
    factor, scale = (number_for(projected.dtype, value) for value in factors)
    return numbers_of(projected), n_heads, numbers_of(mask), _QUERIES_A_STRIP, factor, scale
