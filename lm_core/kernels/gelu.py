"""The exact GELU and its derivative, in one pass each."""

import numba

from lm_core.kernels.kernel import Kernel
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
        for i in range(piece * _PIECE, min((piece + 1) * _PIECE, len(x))):
            _, below = normal(x[i])
            y[i] = x[i] * below


def _gelu_backward(x, gradient, of_x):
    """Writes the gradient of x.

    Args:
        x: ``(n,)``.
        gradient: Of what ``_gelu`` wrote, ``(n,)``.
        of_x: ``(n,)``, which may be ``gradient`` itself.
    """
    for piece in numba.prange((len(x) + _PIECE - 1) // _PIECE):
        for i in range(piece * _PIECE, min((piece + 1) * _PIECE, len(x))):
            density, below = normal(x[i])
            of_x[i] = gradient[i] * (below + x[i] * density)


# By the type of what they compute with.
GELU = {
    kind: Kernel(_gelu, f"void({kind}[::1], {kind}[::1])", True) for kind in ("float32", "float64")
}
GELU_BACKWARD = {
    kind: Kernel(_gelu_backward, f"void({kind}[::1], {kind}[::1], {kind}[::1])", True)
    for kind in ("float32", "float64")
}
