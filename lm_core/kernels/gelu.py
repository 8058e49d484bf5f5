"""The exact GELU and its derivative, in one pass each."""

import numba

from lm_core.kernels.kernel import kernels_of_types
from lm_core.kernels.numbers import normal

# Numbers that a thread computes in one go: enough to be worth it.
_PIECE = 4096


def _gelu(x, y):
    """Writes x times the share of a normal distribution that is below it.

    Args:
        x: ``(n,)``.
        y: ``(n,)``, which may be ``x`` itself.
    """
    for piece in numba.prange((len(x) + _PIECE - 1) // _PIECE):
        part, result = x[piece * _PIECE :][:_PIECE], y[piece * _PIECE :][:_PIECE]
        for i in range(len(part)):
            _, below = normal(part[i])
            result[i] = part[i] * below


def _gelu_backward(x, gradient, of_x):
    """Writes the gradient of x.

    Args:
        x: ``(n,)``.
        gradient: Of what ``_gelu`` wrote, ``(n,)``.
        of_x: ``(n,)``, which may be ``gradient`` itself.
    """
    for piece in numba.prange((len(x) + _PIECE - 1) // _PIECE):
        start = piece * _PIECE
        part, given = x[start:][:_PIECE], gradient[start:][:_PIECE]
        result = of_x[start:][:_PIECE]
        for i in range(len(part)):
            density, below = normal(part[i])
            result[i] = given[i] * (below + part[i] * density)


# By the type of what they compute with.
GELU = kernels_of_types(_gelu, "void({0}[::1], {0}[::1])")
GELU_BACKWARD = kernels_of_types(_gelu_backward, "void({0}[::1], {0}[::1], {0}[::1])")
