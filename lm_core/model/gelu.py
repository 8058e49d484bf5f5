"""The exact GELU: in float32 and float64 on a CPU by a compiled loop, elsewhere PyTorch's own."""

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from lm_core.kernels.gelu import GELU, GELU_BACKWARD
from lm_core.kernels.tensors import has_content, numbers_of, type_of


def gelu(x: torch.Tensor) -> torch.Tensor:
    """The exact GELU (Hendrycks and Gimpel 2016): x times the share of what is normal below x.

    Args:
        x: Any shape, floating point.
    """
    if x.device.type == "cpu" and type_of(x.dtype) in GELU:
        return _Gelu.apply(x)
    return F.gelu(x)


class _Gelu(torch.autograd.Function):
    """``F.gelu``, which in float32 takes three times as long to go backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        y = torch.empty_like(x)
        if has_content(x):
            GELU[type_of(x.dtype)](numbers_of(x, -1), numbers_of(y, -1))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        gradient, of_x = gradient.contiguous(), torch.empty_like(x)
        GELU_BACKWARD[type_of(x.dtype)](*(numbers_of(part, -1) for part in (x, gradient, of_x)))
        return of_x
