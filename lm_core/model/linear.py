"""Linear layers whose weights are kept in one precision and multiplied in another."""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from lm_core.kernels.sums import SUM_OF_ROWS
from lm_core.kernels.tensors import computed_in, numbers_of, type_of
from lm_core.kernels.weight_gradient import is_for, weight_gradient

# oneDNN's linear layer with a bias, as PyTorch's own compiler calls it.
_ONEDNN_LINEAR = "_linear_pointwise"


class Linear(nn.Linear):
    """A linear layer that multiplies in the precision it is told.

    Weights and their gradients keep their own dtype; only the products run in the given one.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        bias: Whether something is added to each output.
        n_parts: Layers that are kept in this one, whose outputs stand side by side.
        dtype: Of the weights; None: PyTorch's default.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        n_parts: int = 1,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, dtype=dtype)
        self.n_parts = n_parts

    def forward(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """``x @ weight.T + bias``.

        Args:
            x: ``(..., in_features)``.
            dtype: Of the product.

        Returns:
            ``(..., out_features)`` in that dtype.
        """
        return linear(x.to(dtype), self.weight, self.bias)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """What a linear layer makes of its input, in the dtype of that.

    Args:
        x: ``(..., in_features)``.
        weight: ``(out_features, in_features)`` of any dtype.
        bias: ``(out_features,)`` of any dtype, or None.

    Returns:
        ``(..., out_features)``.
    """
    compute = _Linear.apply if x.device.type == "cpu" else reference_linear
    return compute(x, weight, bias)


def reference_linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """The same in plain operations."""
    return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def product(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """``rows @ weight.T + bias`` on a CPU, by the library that is faster at it on this processor.

    For bfloat16 PyTorch multiplies with oneDNN, for float32 with MKL. By itself, oneDNN adds the
    bias while it writes the product; ``addmm`` fills the product with copies of it before.

    Args:
        rows: ``(n_rows, in_features)``.
        weight: ``(out_features, in_features)`` of its dtype, with any strides.
        bias: ``(out_features,)`` of its dtype, or None.
    """
    if _is_onednn_faster(rows.dtype):
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    result = torch.mm(rows, weight.t())
    return result if bias is None else result.add_(bias)


@cache
def _is_onednn_faster(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there, and faster with a dtype than what PyTorch would take."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, _ONEDNN_LINEAR):
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 and _is_mkl_slow()


@cache
def _is_mkl_slow() -> bool:
    """Whether MKL, which PyTorch multiplies float32 with, is slower here than others.

    On AMD's processors it reaches two thirds to four fifths of their speed
    (``docs/performance.md``).
    """
    return "AMD" in str(torch.cpu.get_capabilities().get("cpu_name", ""))


class _Linear(torch.autograd.Function):
    """``reference_linear`` with fewer passes over what is large."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        cast = weight.to(x.dtype)
        rows = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(rows, cast)
        ctx.own_dtype, ctx.has_bias = weight.dtype, bias is not None
        cast_bias = None if bias is None else bias.to(x.dtype)
        return product(rows, cast, cast_bias).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        rows, cast = ctx.saved_tensors
        of_rows = gradient.reshape(-1, gradient.shape[-1])
        of_x = product(of_rows, cast.t(), None).view(*gradient.shape[:-1], -1)
        of_weight, of_bias = _of_parameters(of_rows, rows, ctx.has_bias)
        of_bias = None if of_bias is None else of_bias.to(ctx.own_dtype)
        return of_x, of_weight.to(ctx.own_dtype), of_bias


def _of_parameters(
    of_rows: torch.Tensor, rows: torch.Tensor, has_bias: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of weights and biases, of those of the outputs and from the inputs."""
    if _is_mkl_slow() and is_for(type_of(rows.dtype), rows.shape[1]):
        numbers = numbers_of(of_rows.contiguous()), numbers_of(rows.contiguous())
        of_weight, of_bias = weight_gradient(*numbers, torch.get_num_threads())
        return torch.from_numpy(of_weight), torch.from_numpy(of_bias) if has_bias else None
    return torch.mm(of_rows.t(), rows), sum_of_rows(of_rows) if has_bias else None


def sum_of_rows(rows: torch.Tensor) -> torch.Tensor:
    """The sum of the rows of a matrix on a CPU, which are added up in float32 or float64.

    Args:
        rows: ``(n_rows, n)``.

    Returns:
        ``(n,)``, in the dtype of the sum, if there is a compiled loop for the one of the rows.
    """
    if type_of(rows.dtype) not in SUM_OF_ROWS:
        return rows.sum(0)
    sums = torch.empty(rows.shape[1], dtype=computed_in(rows.dtype))
    SUM_OF_ROWS[type_of(rows.dtype)](numbers_of(rows.contiguous()), numbers_of(sums))
    return sums
