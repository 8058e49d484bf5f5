"""Muon: steps of equal size in all directions of a matrix."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

# How often the polynomial is applied, and its coefficients: they bring all singular values from
# above a few thousandths to about 0.7 to 1.2 (Jordan et al. 2024, "Muon: An optimizer for hidden
# layers in neural networks", https://kellerjordan.github.io/posts/muon/).
_ITERATIONS = 5
# The coefficients of the terms of degree one, three and five, from the same source.
_A, _B, _C = 3.4445, -4.7750, 2.0315
# The least norm that a gradient is divided by, from the same source.
_LEAST_NORM = 1e-7
# Under this name Muon keeps the mean of a matrix's gradient, as PyTorch's does.
_MEAN = "momentum_buffer"


class Matrix(NamedTuple):
    """A parameter that Muon updates.

    Attributes:
        parameter: ``(rows, columns)``, float32.
        n_parts: Matrices that it holds one below the other, each to be updated as one of its own.
    """

    parameter: nn.Parameter
    n_parts: int


class Muon:
    """Muon (Jordan et al. 2024) for matrices, with Nesterov's momentum and decoupled weight decay.

    A step moves a matrix by the nearest semi-orthogonal matrix to the mean of its gradient, times
    the learning rate and the square root of its rows divided by its columns, if that is above 1.
    It is what ``torch.optim.Muon`` does, but for three things: to build that loads PyTorch's
    compiler, used or not; it takes matrices one by one, where those of one shape are multiplied at
    once here; and it knows no matrices that are kept in one parameter.

    Args:
        matrices: What it updates, on one device.
        learning_rate: Step size.
        momentum: Decay of the mean of the gradient.
        weight_decay: Decoupled weight decay.
        dtype: Of the products, which need no more than bfloat16.

    Attributes:
        learning_rate: As given.
        state: What is kept for each parameter that was ever updated, by kind.
    """

    kinds_of_state = frozenset({_MEAN})

    def __init__(
        self,
        matrices: Sequence[Matrix],
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype,
    ) -> None:
        self._matrices = list(matrices)
        self.learning_rate, self._momentum = learning_rate, momentum
        self._weight_decay, self._dtype = weight_decay, dtype
        self.state: dict[nn.Parameter, dict[str, torch.Tensor]] = defaultdict(dict)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What it updates."""
        return [matrix.parameter for matrix in self._matrices]

    @torch.no_grad()
    def step(self, factor: float, is_off: torch.Tensor | None = None) -> None:
        """Updates the parameters that have a gradient.

        Args:
            factor: The learning rate is multiplied by it.
            is_off: A scalar on their device; where it is true, nothing changes. Nobody waits for
                it. None: false.
        """
        matrices = [matrix for matrix in self._matrices if matrix.parameter.grad is not None]
        directions = self._directions(matrices, is_off)
        rate = self.learning_rate * factor
        for (parameter, n_parts), direction in zip(matrices, directions, strict=True):
            rows, columns = parameter.shape[0] // n_parts, parameter.shape[1]
            scale = rate * math.sqrt(max(1, rows / columns))
            updated = (parameter * (1 - rate * self._weight_decay)).sub_(direction, alpha=scale)
            if is_off is not None:
                updated = torch.where(is_off, parameter, updated)
            parameter.copy_(updated)

    def _directions(
        self, matrices: Sequence[Matrix], is_off: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """The semi-orthogonal matrices along which parameters move, each in their shape."""
        directions = [torch.empty_like(matrix.parameter) for matrix in matrices]
        pieces: dict[tuple[int, int], list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
        for (parameter, n_parts), direction in zip(matrices, directions, strict=True):
            mean = self._mean_with(parameter, is_off)
            # Nesterov's: the mean as it will be if the gradient stays as it is.
            ahead = parameter.grad.lerp(mean, self._momentum)
            for part, result in zip(ahead.chunk(n_parts), direction.chunk(n_parts), strict=True):
                # Lying, tall matrices go together with wide ones, and products are smaller.
                pair = (part.T, result.T) if len(part) > part.shape[1] else (part, result)
                pieces[tuple(pair[0].shape)].append(pair)
        for pairs in pieces.values():
            found = orthogonalised(torch.stack([part for part, _ in pairs]), self._dtype)
            for (_, result), matrix in zip(pairs, found, strict=True):
                result.copy_(matrix)
        return directions

    def _mean_with(self, parameter: nn.Parameter, is_off: torch.Tensor | None) -> torch.Tensor:
        """The mean of a parameter's gradient, with the newest one."""
        state = self.state[parameter]
        if not state:
            state[_MEAN] = torch.zeros_like(parameter)
        mean = state[_MEAN]
        newer = mean.lerp(parameter.grad, 1 - self._momentum)
        mean.copy_(newer if is_off is None else torch.where(is_off, mean, newer))
        return mean


def orthogonalised(matrices: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Matrices with their singular vectors, and singular values near 1.

    The iteration is Newton's and Schulz's with the polynomial of Jordan et al. (2024): cheap
    products, no decomposition, and singular values of about 0.7 to 1.2, which is as good as 1.

    Args:
        matrices: ``(n, rows, columns)``; products are smallest where rows are not more.
        dtype: Of the products.

    Returns:
        As many, in that dtype.
    """
    norms = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    x = (matrices / norms.clamp(min=_LEAST_NORM)).to(dtype)
    for _ in range(_ITERATIONS):
        gram = torch.bmm(x, x.transpose(1, 2))
        polynomial = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        x = torch.baddbmm(x, polynomial, x, beta=_A)
    return x
