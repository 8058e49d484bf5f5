"""The norms of the residual stream and their gradients, in one pass over the rows each.

LayerNorm (Ba et al. 2016), and RMSNorm (Zhang and Sennrich 2019, "Root Mean Square Layer
Normalization").
"""

import numba
import numpy as np

from lm_core.kernels.kernel import inlined, kernels_of_types
from lm_core.kernels.numbers import narrowed, widened
from lm_core.kernels.sums import add_rows

# Rows of a task: their gradients of weights and biases are one sum.
_ROWS_A_TASK = 64


@inlined
def norm_row(x, weight, bias, epsilon, normed):
    """LayerNorm of a row, written to ``normed``; its mean, and the factor of what differs."""
    n = x.dtype.type(len(x))
    mean = x.dtype.type(0)
    for i in range(len(x)):
        mean += x[i]
    mean /= n
    variance = x.dtype.type(0)
    for i in range(len(x)):
        variance += (x[i] - mean) * (x[i] - mean)
    factor = x.dtype.type(1) / np.sqrt(variance / n + epsilon)
    # What is too large to be squared would become zero, and nobody would learn of it.
    factor = x.dtype.type(np.nan) if np.isinf(variance) else factor
    for i in range(len(x)):
        normed[i] = narrowed((x[i] - mean) * factor * weight[i] + bias[i], normed)
    return mean, factor


@inlined
def rms_factor(x, epsilon):
    """One divided by the root of the mean of a row's squares, to which ``epsilon`` is added."""
    squares = x.dtype.type(0)
    for i in range(len(x)):
        squares += x[i] * x[i]
    factor = x.dtype.type(1) / np.sqrt(squares / x.dtype.type(len(x)) + epsilon)
    # What is too large to be squared would become zero, and nobody would learn of it.
    return x.dtype.type(np.nan) if np.isinf(squares) else factor


@inlined
def rms_norm_row(x, weight, epsilon, normed):
    """RMSNorm of a row, written to ``normed``; the factor of the row."""
    factor = rms_factor(x, epsilon)
    for i in range(len(x)):
        normed[i] = narrowed(x[i] * factor * weight[i], normed)
    return factor


def _norm(x, weight, bias, epsilon, normed, means, factors):
    """LayerNorm of each row.

    Args:
        x: ``(n_rows, width)``.
        weight: ``(width,)``.
        bias: ``(width,)``.
        epsilon: Added to each variance.
        normed: Becomes the result, ``(n_rows, width)``.
        means: Become the means of the rows, ``(n_rows,)``.
        factors: Become one divided by their standard deviations, ``(n_rows,)``.
    """
    for task in numba.prange((len(x) + _ROWS_A_TASK - 1) // _ROWS_A_TASK):
        for row in range(task * _ROWS_A_TASK, min((task + 1) * _ROWS_A_TASK, len(x))):
            means[row], factors[row] = norm_row(x[row], weight, bias, epsilon, normed[row])


def _norm_backward(x, weight, means, factors, gradient, other, of_x, of_weight, of_bias):
    """Gradients of what ``_norm`` was given.

    Args:
        x: As of ``_norm``.
        weight: As of ``_norm``.
        means: From ``_norm``.
        factors: From ``_norm``.
        gradient: Of what ``_norm`` wrote, ``(n_rows, width)``.
        other: Another gradient of ``x``, which is added, ``(n_rows, width)``; ``(0, width)``: none.
        of_x: Becomes the gradient of ``x``, ``(n_rows, width)``.
        of_weight: Becomes that of ``weight``, ``(width,)``.
        of_bias: Becomes that of ``bias``, ``(width,)``.
    """
    n = x.dtype.type(x.shape[1])
    n_tasks = (len(x) + _ROWS_A_TASK - 1) // _ROWS_A_TASK
    sums = np.zeros((2, n_tasks, x.shape[1]), x.dtype)
    for task in numba.prange(n_tasks):
        own_weight, own_bias = sums[0, task], sums[1, task]
        for row in range(task * _ROWS_A_TASK, min((task + 1) * _ROWS_A_TASK, len(x))):
            own, given, result = x[row], gradient[row], of_x[row]
            mean, factor = means[row], factors[row]
            total = total_of_normed = x.dtype.type(0)
            for i in range(len(own)):
                g, difference = widened(given[i]), (own[i] - mean) * factor
                own_weight[i] += g * difference
                own_bias[i] += g
                total += g * weight[i]
                total_of_normed += g * weight[i] * difference
            total, total_of_normed = total / n, total_of_normed / n
            for i in range(len(own)):
                g, difference = widened(given[i]) * weight[i], (own[i] - mean) * factor
                result[i] = factor * (g - total - difference * total_of_normed)
            if len(other) > 0:
                more = other[row]
                for i in range(len(own)):
                    result[i] += more[i]
    of_weight[:] = 0
    of_bias[:] = 0
    add_rows(sums[0], 0, of_weight)
    add_rows(sums[1], 0, of_bias)


def _rms_norm(x, weight, epsilon, normed, factors):
    """RMSNorm of each row.

    Args:
        x: ``(n_rows, width)``.
        weight: ``(width,)``.
        epsilon: Added to each mean of squares.
        normed: Becomes the result, ``(n_rows, width)``.
        factors: Become one divided by the root mean squares of the rows, ``(n_rows,)``.
    """
    for task in numba.prange((len(x) + _ROWS_A_TASK - 1) // _ROWS_A_TASK):
        for row in range(task * _ROWS_A_TASK, min((task + 1) * _ROWS_A_TASK, len(x))):
            factors[row] = rms_norm_row(x[row], weight, epsilon, normed[row])


def _rms_norm_backward(x, weight, factors, gradient, other, of_x, of_weight):
    """Gradients of what ``_rms_norm`` was given.

    Args:
        x: As of ``_rms_norm``.
        weight: As of ``_rms_norm``.
        factors: From ``_rms_norm``.
        gradient: Of what ``_rms_norm`` wrote, ``(n_rows, width)``.
        other: Another gradient of ``x``, which is added, ``(n_rows, width)``; ``(0, width)``: none.
        of_x: Becomes the gradient of ``x``, ``(n_rows, width)``.
        of_weight: Becomes that of ``weight``, ``(width,)``.
    """
    n = x.dtype.type(x.shape[1])
    n_tasks = (len(x) + _ROWS_A_TASK - 1) // _ROWS_A_TASK
    sums = np.zeros((n_tasks, x.shape[1]), x.dtype)
    for task in numba.prange(n_tasks):
        own_weight = sums[task]
        for row in range(task * _ROWS_A_TASK, min((task + 1) * _ROWS_A_TASK, len(x))):
            own, given, result = x[row], gradient[row], of_x[row]
            factor = factors[row]
            total_of_normed = x.dtype.type(0)
            for i in range(len(own)):
                g = widened(given[i]) * (own[i] * factor)
                own_weight[i] += g
                total_of_normed += g * weight[i]
            share = factor * total_of_normed / n
            for i in range(len(own)):
                result[i] = factor * (widened(given[i]) * weight[i] - own[i] * share)
            if len(other) > 0:
                more = other[row]
                for i in range(len(own)):
                    result[i] += more[i]
    of_weight[:] = 0
    add_rows(sums, 0, of_weight)


# By the type of what is normed.
NORM = kernels_of_types(
    _norm,
    "void({1}[:,::1], {1}[::1], {1}[::1], {1}, {0}[:,::1], {1}[::1], {1}[::1])",
    bfloat16=True,
)
NORM_BACKWARD = kernels_of_types(
    _norm_backward,
    "void({1}[:,::1], {1}[::1], {1}[::1], {1}[::1], {0}[:,::1], {1}[:,::1], {1}[:,::1], "
    "{1}[::1], {1}[::1])",
    bfloat16=True,
)
RMS_NORM = kernels_of_types(
    _rms_norm, "void({1}[:,::1], {1}[::1], {1}, {0}[:,::1], {1}[::1])", bfloat16=True
)
RMS_NORM_BACKWARD = kernels_of_types(
    _rms_norm_backward,
    "void({1}[:,::1], {1}[::1], {1}[::1], {0}[:,::1], {1}[:,::1], {1}[:,::1], {1}[::1])",
    bfloat16=True,
)
