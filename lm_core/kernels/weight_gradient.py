"""The gradients of a linear layer's weights and biases, in one pass over those of its outputs.

A library that multiplies matrices copies both into an order of its own first. Here neither needs
it: a tile reads the rows of both as they lie, since the sum of this product runs over the rows.
"""

import numba
import numpy as np

from lm_core.kernels.kernel import kernels_of_types
from lm_core.kernels.sums import add_rows
from lm_core.kernels.tiles import PANEL, multiply_and_add

# Rows that are summed up before the next are read: so many of both matrices stay in the cache.
_ROWS_AT_ONCE = 128
# Outputs and inputs of the weights whose gradient is one task: larger ones read less from memory.
_N_OUTPUTS, _N_INPUTS = 128, 256
# Tasks for each thread, where there is enough to do, so that none waits long for another.
_TASKS_A_THREAD = 2
# Outputs of the smallest tasks.
_LEAST_OUTPUTS = 16


def is_for(dtype: str, n_inputs: int) -> bool:
    """Whether ``weight_gradient`` computes with such numbers and so many inputs: whole panels.

    Args:
        dtype: Name of the type.
        n_inputs: Inputs of the layer.
    """
    return dtype in _KERNELS and n_inputs % PANEL == 0


def weight_gradient(
    of_outputs: np.ndarray, inputs: np.ndarray, n_threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of a linear layer's weights and biases.

    Args:
        of_outputs: Gradient of its outputs, ``(rows, n_outputs)``.
        inputs: Its inputs, ``(rows, n_inputs)``, for which ``is_for`` holds.
        n_threads: Threads that share the work. The result does not depend on it.

    Returns:
        ``of_outputs.T @ inputs``, ``(n_outputs, n_inputs)``, and the sum of the rows of
        ``of_outputs``, ``(n_outputs,)``.
    """
    n_outputs, n_inputs = of_outputs.shape[1], inputs.shape[1]
    of_weight = np.empty((n_outputs, n_inputs), inputs.dtype)
    of_bias = np.empty(n_outputs, inputs.dtype)
    step = _N_OUTPUTS
    n_parts = -(-n_inputs // _N_INPUTS)
    while step > _LEAST_OUTPUTS and -(-n_outputs // step) * n_parts < _TASKS_A_THREAD * n_threads:
        step //= 2
    _KERNELS[inputs.dtype.name](of_outputs, inputs, step, of_weight, of_bias)
    return of_weight, of_bias


def _write(of_outputs, inputs, step, of_weight, of_bias):
    """Writes what ``weight_gradient`` returns, by tasks of ``step`` outputs."""
    n_rows, n_inputs = inputs.shape
    n_outputs = len(of_bias)
    n_parts = (n_inputs + _N_INPUTS - 1) // _N_INPUTS
    for task in numba.prange(n_parts * ((n_outputs + step - 1) // step)):
        first_output, first_input = task // n_parts * step, task % n_parts * _N_INPUTS
        last_output = min(first_output + step, n_outputs)
        last_input = min(first_input + _N_INPUTS, n_inputs)
        own = of_weight[first_output:last_output, first_input:last_input]
        own_bias = of_bias[first_output:last_output]
        own[:] = 0
        if first_input == 0:
            own_bias[:] = 0
        for start in range(0, n_rows, _ROWS_AT_ONCE):
            end = min(start + _ROWS_AT_ONCE, n_rows)
            given = of_outputs[start:end, first_output:last_output]
            panels = inputs[start:end].reshape(end - start, n_inputs // PANEL, PANEL)
            panels = panels.transpose(1, 0, 2)[first_input // PANEL : last_input // PANEL]
            multiply_and_add(given.T, panels, own)
            if first_input == 0:
                add_rows(of_outputs[start:end], first_output, own_bias)


# By the type of what they compute with.
_KERNELS = kernels_of_types(_write, "void({0}[:,::1], {0}[:,::1], int64, {0}[:,::1], {0}[::1])")
