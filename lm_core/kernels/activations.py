"""What the hidden layer of an MLP goes through, and its derivatives, in one pass each.

The exact GELU (Hendrycks and Gimpel 2016), the squared ReLU (So et al. 2021, "Primer: Searching for
Efficient Transformers for Language Modeling") and SwiGLU (Shazeer 2020, "GLU Variants Improve
Transformer").
"""

import numba

from lm_core.kernels.kernel import kernels_of_types
from lm_core.kernels.numbers import narrowed, normal, sigmoid, widened

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


def _relu_squared(x, y):
    """Writes the squares of what is positive, zeroes for the rest.

    Args:
        x: ``(n,)``.
        y: ``(n,)``, which may be ``x`` itself.
    """
    for piece in numba.prange((len(x) + _PIECE - 1) // _PIECE):
        part, result = x[piece * _PIECE :][:_PIECE], y[piece * _PIECE :][:_PIECE]
        for i in range(len(part)):
            number = widened(part[i])
            # What is not a number is not below zero either, and stays so.
            positive = type(number)(0) if number <= 0 else number
            result[i] = narrowed(positive * positive, y)


def _relu_squared_backward(x, gradient, of_x):
    """Writes the gradient of x.

    Args:
        x: ``(n,)``.
        gradient: Of what ``_relu_squared`` wrote, ``(n,)``.
        of_x: ``(n,)``, which may be ``gradient`` itself.
    """
    for piece in numba.prange((len(x) + _PIECE - 1) // _PIECE):
        start = piece * _PIECE
        part, given = x[start:][:_PIECE], gradient[start:][:_PIECE]
        result = of_x[start:][:_PIECE]
        for i in range(len(part)):
            number = widened(part[i])
            slope = number + number
            # A gradient that is infinite is none where nothing changes.
            own = type(number)(0) if number <= 0 else slope * widened(given[i])
            result[i] = narrowed(own, of_x)


def _swiglu(x, y):
    """Writes the second half of each row times the SiLU of the first.

    Args:
        x: ``(n_rows, 2 * width)``.
        y: ``(n_rows, width)``.
    """
    width = y.shape[1]
    for row in numba.prange(len(x)):
        own, result = x[row], y[row]
        gates, rest = own[:width], own[width:]
        for i in range(len(result)):
            gate = widened(gates[i])
            result[i] = narrowed(gate * sigmoid(gate) * widened(rest[i]), y)


def _swiglu_backward(x, gradient, of_x):
    """Writes the gradient of x.

    Args:
        x: As of ``_swiglu``.
        gradient: Of what ``_swiglu`` wrote, ``(n_rows, width)``.
        of_x: ``(n_rows, 2 * width)``.
    """
    width = gradient.shape[1]
    for row in numba.prange(len(x)):
        own, given, result = x[row], gradient[row], of_x[row]
        gates, rest = own[:width], own[width:]
        of_gates, of_rest = result[:width], result[width:]
        for i in range(len(given)):
            gate, g = widened(gates[i]), widened(given[i])
            share, one = sigmoid(gate), type(gate)(1)
            slope = share * (one + gate * (one - share))
            of_rest[i] = narrowed(g * gate * share, of_x)
            of_gates[i] = narrowed(g * widened(rest[i]) * slope, of_x)


# By the type of what they compute with.
GELU = kernels_of_types(_gelu, "void({0}[::1], {0}[::1])")
GELU_BACKWARD = kernels_of_types(_gelu_backward, "void({0}[::1], {0}[::1], {0}[::1])")
# By the type of what they read and write.
RELU_SQUARED = kernels_of_types(_relu_squared, "void({0}[::1], {0}[::1])", bfloat16=True)
RELU_SQUARED_BACKWARD = kernels_of_types(
    _relu_squared_backward, "void({0}[::1], {0}[::1], {0}[::1])", bfloat16=True
)
SWIGLU = kernels_of_types(_swiglu, "void({0}[:,::1], {0}[:,::1])", bfloat16=True)
SWIGLU_BACKWARD = kernels_of_types(
    _swiglu_backward, "void({0}[:,::1], {0}[:,::1], {0}[:,::1])", bfloat16=True
)
