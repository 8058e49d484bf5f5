"""Linear layers whose weights are kept in one precision and multiplied in another."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable


class Linear(nn.Linear):
    """A linear layer that multiplies in the precision it is told.

    Weights and their gradients keep their own dtype; only the products run in the given one.
    """

    def forward(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """``x @ weight.T + bias``.

        Args:
            x: ``(..., in_features)``.
            dtype: Of the product.

        Returns:
            ``(..., out_features)`` in that dtype.
        """
        if x.device.type == "cpu":
            return _Linear.apply(x.to(dtype), self.weight, self.bias)
        return reference_linear(x.to(dtype), self.weight, self.bias)


def reference_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A linear layer in the dtype of its input, in plain operations.

    Args:
        x: ``(..., in_features)``.
        weight: ``(out_features, in_features)`` of any dtype.
        bias: ``(out_features,)`` of any dtype.
    """
    return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))


class _Linear(torch.autograd.Function):
    """``reference_linear`` with fewer passes over what is large.

    On a CPU, PyTorch first fills the whole output with copies of the bias; adding it afterwards
    takes less. Sums over the batch leave a product in the weight's dtype, without a copy.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        cast = weight.to(x.dtype)
        rows = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(rows, cast)
        ctx.own_dtype = weight.dtype
        product = torch.mm(rows, cast.t()).add_(bias.to(x.dtype))
        return product.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows, cast = ctx.saved_tensors
        of_rows = gradient.reshape(-1, gradient.shape[-1])
        of_x = torch.mm(of_rows, cast).view(*gradient.shape[:-1], -1)
        of_weight = torch.mm(of_rows.t(), rows).to(ctx.own_dtype)
        # Told another dtype, a sum would first copy everything; it adds up in float32 anyway.
        return of_x, of_weight, of_rows.sum(0).to(ctx.own_dtype)
