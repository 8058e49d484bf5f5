"""LayerNorm of the residual stream, whose result has the dtype of the products after it."""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from lm_core.kernels.norm import NORM, NORM_BACKWARD
from lm_core.kernels.tensors import computed_in, has_content, number_for, numbers_of, type_of


class Norm(nn.LayerNorm):
    """LayerNorm (Ba et al. 2016) at the start of a branch of the residual stream."""

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
        is_for = type_of(dtype) in NORM and computed_in(dtype) == x.dtype
        if x.device.type == "cpu" and is_for:
            return _Norm.apply(x, self.weight, self.bias, self.eps, dtype)
        return super().forward(x).to(dtype), x


class _Norm(torch.autograd.Function):
    """``torch.nn.functional.layer_norm`` with fewer passes over what is large."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        epsilon: float,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = x.contiguous().view(-1, x.shape[-1])
        normed = torch.empty(rows.shape, dtype=dtype)
        # Mean and factor of each row.
        measures = rows.new_empty(2, len(rows))
        ctx.save_for_backward(rows, weight, measures)
        ctx.set_materialize_grads(False)
        if has_content(x):
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
        more = rows[:0] if other is None else other.reshape(rows.shape).contiguous()
        inputs = rows, weight, *measures, gradient.reshape(rows.shape).contiguous(), more
        results = of_rows, of_weight, of_bias
        NORM_BACKWARD[type_of(gradient.dtype)](*(numbers_of(part) for part in (*inputs, *results)))
        return of_rows.view(gradient.shape), of_weight, of_bias, None, None
