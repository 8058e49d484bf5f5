"""Norms of the residual stream, whose result has the dtype of the products after it."""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from lm_core.kernels.norm import NORM, NORM_BACKWARD, RMS_NORM, RMS_NORM_BACKWARD
from lm_core.kernels.tensors import computed_in, has_content, number_for, numbers_of, type_of


class Norm(nn.LayerNorm):
    """LayerNorm (Ba et al. 2016) at the start of a branch of the residual stream.

    With ``bias=False`` it adds nothing: there is no such parameter, and the results are those of a
    bias of zeros, to the last bit.
    """

    def forward(self, x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Norms each position by its mean and variance.

        Args:
            x: The residual stream, ``(..., d_model)``.
            dtype: Of the result.

        Returns:
            What is normed, ``(..., d_model)`` in that dtype, and ``x`` itself, for the residual
            stream to go on with: so the gradients of both are added in the pass that makes the
            first.
        """
        if _has_kernel(x, dtype):
            return _Norm.apply(x, self.weight, self.bias, self.eps, dtype)
        return super().forward(x).to(dtype), x


class RMSNorm(nn.RMSNorm):
    """RMSNorm (Zhang and Sennrich 2019, equation 4) at the start of a branch: no mean, no bias.

    Args:
        width: Of the residual stream.
        eps: Added to the mean of squares.
        dtype: Of the weight; None: PyTorch's default.
    """

    def __init__(self, width: int, eps: float, dtype: torch.dtype | None = None) -> None:
        super().__init__(width, eps=eps, dtype=dtype)

    def forward(self, x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Divides each position by its root mean square: ``x / sqrt(mean(x**2) + eps) * weight``.

        Args:
            x: The residual stream, ``(..., d_model)``.
            dtype: Of the result.

        Returns:
            As ``Norm.forward``.
        """
        if _has_kernel(x, dtype):
            return _RMSNorm.apply(x, self.weight, self.eps, dtype)
        return super().forward(x).to(dtype), x


def _has_kernel(x: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether compiled loops norm such a residual stream with such a result."""
    is_for = type_of(dtype) in NORM and computed_in(dtype) == x.dtype
    return x.device.type == "cpu" and is_for


class _Norm(torch.autograd.Function):
    """``torch.nn.functional.layer_norm`` with fewer passes over what is large."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        epsilon: float,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = x.contiguous().view(-1, x.shape[-1])
        normed = torch.empty(rows.shape, dtype=dtype)
        # Mean and factor of each row.
        measures = rows.new_empty(2, len(rows))
        weight = _copied(weight)
        ctx.save_for_backward(rows, weight, measures)
        ctx.has_bias = bias is not None
        ctx.set_materialize_grads(False)
        if has_content(x):
            # One loop for both, so that both have the same bits.
            bias = torch.zeros_like(weight) if bias is None else _copied(bias)
            inputs = (numbers_of(part) for part in (rows, weight, bias))
            found = numbers_of(normed), *numbers_of(measures)
            NORM[type_of(dtype)](*inputs, number_for(dtype, epsilon), *found)
        return normed.view(x.shape), x

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: torch.Tensor | None, other: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, None, None]:
        rows, weight, measures = ctx.saved_tensors
        if gradient is None:
            return other, None, None, None, None
        of_rows = torch.empty_like(rows)
        of_weight, of_bias = torch.empty_like(weight), torch.empty_like(weight)
        inputs = rows, weight, *measures, *_as_rows(gradient, other, rows)
        results = of_rows, of_weight, of_bias
        NORM_BACKWARD[type_of(gradient.dtype)](*(numbers_of(part) for part in (*inputs, *results)))
        of_bias = of_bias if ctx.has_bias else None
        return of_rows.view(gradient.shape), of_weight, of_bias, None, None


class _RMSNorm(torch.autograd.Function):
    """``torch.nn.functional.rms_norm`` with fewer passes over what is large."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = x.contiguous().view(-1, x.shape[-1])
        normed = torch.empty(rows.shape, dtype=dtype)
        factors = rows.new_empty(len(rows))
        weight = _copied(weight)
        ctx.save_for_backward(rows, weight, factors)
        ctx.set_materialize_grads(False)
        if has_content(x):
            found = numbers_of(normed), numbers_of(factors)
            inputs = numbers_of(rows), numbers_of(weight), number_for(dtype, epsilon)
            RMS_NORM[type_of(dtype)](*inputs, *found)
        return normed.view(x.shape), x

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: torch.Tensor | None, other: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        rows, weight, factors = ctx.saved_tensors
        if gradient is None:
            return other, None, None, None
        of_rows, of_weight = torch.empty_like(rows), torch.empty_like(weight)
        inputs = rows, weight, factors, *_as_rows(gradient, other, rows)
        parts = (numbers_of(part) for part in (*inputs, of_rows, of_weight))
        RMS_NORM_BACKWARD[type_of(gradient.dtype)](*parts)
        return of_rows.view(gradient.shape), of_weight, None, None


def _copied(parameter: torch.Tensor) -> torch.Tensor:
    """A copy for numpy to look at.

    Memory that it has seen cannot be given back any more and taken again, as FSDP does with that of
    parameters.
    """
    return parameter.detach().clone()


def _as_rows(
    gradient: torch.Tensor, other: torch.Tensor | None, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both gradients as the kernels read them; no rows for one that is not there."""
    more = rows[:0] if other is None else other.reshape(rows.shape).contiguous()
    return gradient.reshape(rows.shape).contiguous(), more
