"""Muon: steps of equal size in all directions of a matrix."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn

from lm_core.parallel.shards import own_share, shared_like, whole

# How often the polynomial is applied, and its coefficients: they bring all singular values from
# above a few thousandths to about 0.7 to 1.2 (Jordan et al. 2024, "Muon: An optimizer for hidden
# layers in neural networks", https://kellerjordan.github.io/posts/muon/).
_ITERATIONS = 5
# The coefficients of the terms of degree one, three and five, from the same source.
_A, _B, _C = 3.4445, -4.7750, 2.0315
# The least norm that a gradient is divided by, from the same source.
_LEAST_NORM = 1e-7
# Matrices of one shape are multiplied at once, up to so many numbers: more would be no faster, and
# a few copies of them take memory.
NUMBERS_AT_ONCE = 2**21
# PyTorch converts no factor beyond the range of float32; there, the run has diverged anyway.
_LARGEST = torch.finfo(torch.float32).max
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
    It is what ``torch.optim.Muon`` does, but for four things: to build that loads PyTorch's
    compiler, used or not; it takes matrices one by one, where those of one shape are multiplied at
    once here; it knows no matrices that are kept in one parameter; and its products are always in
    bfloat16.

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
        for matrices in self._groups():
            self._update(matrices, self.learning_rate * factor, is_off)

    def _groups(self) -> Iterator[list[Matrix]]:
        """What is updated, in groups of parts of one shape that take little memory at once."""
        by_shape: dict[tuple[int, ...], list[Matrix]] = defaultdict(list)
        for matrix in self._matrices:
            if matrix.parameter.grad is not None:
                # Lying, tall matrices go together with wide ones, and products are smaller.
                by_shape[tuple(sorted(_part_shape(matrix)))].append(matrix)
        for (rows, columns), matrices in by_shape.items():
            most = max(1, NUMBERS_AT_ONCE // (rows * columns))
            group: list[Matrix] = []
            for matrix in matrices:
                if group and sum(m.n_parts for m in group) + matrix.n_parts > most:
                    yield group
                    group = []
                group.append(matrix)
            yield group

    def _update(self, matrices: list[Matrix], rate: float, is_off: torch.Tensor | None) -> None:
        """Moves matrices whose parts have one shape."""
        parts = []
        for matrix in matrices:
            ahead = whole(self._ahead(matrix.parameter, is_off))
            parts += [_lying(part) for part in ahead.chunk(matrix.n_parts)]
        directions = iter(orthogonalised(torch.stack(parts), self._dtype))
        for matrix in matrices:
            rows, columns = _part_shape(matrix)
            found = [next(directions) for _ in range(matrix.n_parts)]
            direction = torch.cat([part.T if rows > columns else part for part in found])
            direction = own_share(shared_like(direction, matrix.parameter.detach()))
            scale = math.sqrt(max(1, rows / columns))
            weight = own_share(matrix.parameter.detach())
            updated = weight * (1 - rate * self._weight_decay)
            updated.sub_(direction, alpha=min(rate * scale, _LARGEST))
            weight.copy_(updated if is_off is None else torch.where(is_off, weight, updated))

    def _ahead(self, parameter: nn.Parameter, is_off: torch.Tensor | None) -> torch.Tensor:
        """The mean of a gradient as it will be if the gradient stays as it is (Nesterov)."""
        state = self.state[parameter]
        if not state:
            state[_MEAN] = torch.zeros_like(parameter)
        newer = state[_MEAN].lerp(parameter.grad, 1 - self._momentum)
        mean, new_mean = own_share(state[_MEAN]), own_share(newer)
        mean.copy_(new_mean if is_off is None else torch.where(is_off, mean, new_mean))
        return parameter.grad.lerp(newer, self._momentum)


def _part_shape(matrix: Matrix) -> tuple[int, int]:
    rows, columns = matrix.parameter.shape
    return rows // matrix.n_parts, columns


def _lying(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


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
