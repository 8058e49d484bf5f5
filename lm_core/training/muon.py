"""Muon: steps of equal size in all directions of a matrix."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
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


class _Piece(NamedTuple):
    """A matrix that is updated as one, lying if it is tall: views of what belongs to it.

    Attributes:
        weight: The matrix.
        gradient: Its gradient.
        mean: The mean of its gradients.
        scale: The factor of its learning rate.
    """

    weight: torch.Tensor
    gradient: torch.Tensor
    mean: torch.Tensor
    scale: float


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
        rate = self.learning_rate * factor
        for pieces in self._groups():
            self._update(pieces, rate, is_off)

    def _groups(self) -> Iterator[list[_Piece]]:
        """What is updated, in groups of matrices of one shape that take little memory at once."""
        by_shape: dict[tuple[int, ...], list[_Piece]] = defaultdict(list)
        for parameter, n_parts in self._matrices:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state[_MEAN] = torch.zeros_like(parameter)
            triples = (x.chunk(n_parts) for x in (parameter, parameter.grad, state[_MEAN]))
            for parts in zip(*triples, strict=True):
                rows, columns = parts[0].shape
                # Lying, tall matrices go together with wide ones, and products are smaller.
                views = (x.T for x in parts) if rows > columns else parts
                piece = _Piece(*views, math.sqrt(max(1, rows / columns)))
                by_shape[tuple(piece.weight.shape)].append(piece)
        for (rows, columns), pieces in by_shape.items():
            n_at_once = max(1, NUMBERS_AT_ONCE // (rows * columns))
            for first in range(0, len(pieces), n_at_once):
                yield pieces[first : first + n_at_once]

    def _update(self, pieces: list[_Piece], rate: float, is_off: torch.Tensor | None) -> None:
        """Moves matrices of one shape."""
        ahead = []
        for piece in pieces:
            newer = piece.mean.lerp(piece.gradient, 1 - self._momentum)
            piece.mean.copy_(newer if is_off is None else torch.where(is_off, piece.mean, newer))
            # Nesterov's: the mean as it will be if the gradient stays as it is.
            ahead.append(piece.gradient.lerp(newer, self._momentum))
        directions = orthogonalised(torch.stack(ahead), self._dtype)
        for piece, direction in zip(pieces, directions, strict=True):
            updated = piece.weight * (1 - rate * self._weight_decay)
            updated.sub_(direction, alpha=min(rate * piece.scale, _LARGEST))
            if is_off is not None:
                updated = torch.where(is_off, piece.weight, updated)
            piece.weight.copy_(updated)


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
