"""What the hidden layer of an MLP goes through: by compiled loops on a CPU, elsewhere by PyTorch.

For the exact GELU in bfloat16, and for its approximation, PyTorch's own loops are as good on a CPU.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from lm_core.kernels.activations import (
    GELU,
    GELU_BACKWARD,
    RELU_SQUARED,
    RELU_SQUARED_BACKWARD,
    SWIGLU,
    SWIGLU_BACKWARD,
)
from lm_core.kernels.kernel import Kernel
from lm_core.kernels.tensors import has_content, numbers_of, type_of


def gelu(x: torch.Tensor) -> torch.Tensor:
    """The exact GELU (Hendrycks and Gimpel 2016): x times the share of what is normal below x.

    Args:
        x: Any shape, floating point.
    """
    if x.device.type == "cpu" and type_of(x.dtype) in GELU:
        return _Elementwise.apply(x, GELU, GELU_BACKWARD)
    return F.gelu(x)


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    """GELU by a hyperbolic tangent (Hendrycks and Gimpel 2016, section 2), as in OpenAI's GPT-2.

    Args:
        x: Any shape, floating point.

    Returns:
        ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))``, of that shape.
    """
    return F.gelu(x, approximate="tanh")


def relu_squared(x: torch.Tensor) -> torch.Tensor:
    """The square of the ReLU (So et al. 2021, "Primer", section 4): ``max(x, 0)**2``.

    Args:
        x: Any shape, floating point.
    """
    if x.device.type == "cpu" and type_of(x.dtype) in RELU_SQUARED:
        return _Elementwise.apply(x, RELU_SQUARED, RELU_SQUARED_BACKWARD)
    return reference_relu_squared(x)


def reference_relu_squared(x: torch.Tensor) -> torch.Tensor:
    """The same in plain operations."""
    return F.relu(x).square()


def swiglu(x: torch.Tensor) -> torch.Tensor:
    """What a gate lets through (Shazeer 2020, "GLU Variants Improve Transformer", equation 6).

    Args:
        x: Gates and what they gate side by side, ``(..., 2 * d_ff)``, floating point.

    Returns:
        ``silu(gates) * rest``, ``(..., d_ff)``, where ``silu(x)`` is ``x * sigmoid(x)``. In
        bfloat16, it is computed in float32 on a CPU, and rounded once.
    """
    if x.device.type == "cpu" and type_of(x.dtype) in SWIGLU:
        return _Swiglu.apply(x)
    return reference_swiglu(x)


def reference_swiglu(x: torch.Tensor) -> torch.Tensor:
    """The same in plain operations."""
    gates, rest = x.unflatten(-1, (2, -1)).unbind(-2)
    return F.silu(gates) * rest


class _Elementwise(torch.autograd.Function):
    """A function of each number alone, in one pass forward and one backward.

    Of GELU in float32, PyTorch's own takes three times as long to go backward.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, kernels: Mapping[str, Kernel], backward: Mapping[str, Kernel]
    ) -> torch.Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        ctx.kernels = backward
        y = torch.empty_like(x)
        if has_content(x):
            kernels[type_of(x.dtype)](numbers_of(x, -1), numbers_of(y, -1))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (x,) = ctx.saved_tensors
        of_x = torch.empty_like(x)
        parts = x, gradient.contiguous(), of_x
        ctx.kernels[type_of(x.dtype)](*(numbers_of(part, -1) for part in parts))
        return of_x, None, None


class _Swiglu(torch.autograd.Function):
    """``reference_swiglu`` in one pass, and one backward, which keep nothing but its input."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        y = torch.empty_like(
            x.unflatten(-1, (2, -1))[..., 0, :], memory_format=torch.contiguous_format
        )
        if has_content(x):
            SWIGLU[type_of(x.dtype)](_rows_of(x), _rows_of(y))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        of_x = torch.empty_like(x)
        parts = x, gradient.contiguous(), of_x
        SWIGLU_BACKWARD[type_of(x.dtype)](*(_rows_of(part) for part in parts))
        return of_x


def _rows_of(x: torch.Tensor) -> np.ndarray:
    return numbers_of(x, -1, x.shape[-1])
