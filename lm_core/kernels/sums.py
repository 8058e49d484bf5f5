"""Sums of the rows of a matrix: the gradient of what was added to each."""

import numba
import numpy as np

from lm_core.kernels.kernel import inlined, kernels_of_types
from lm_core.kernels.numbers import widened

# Rows of a task: their sum is made first, so that small numbers count.
_ROWS_A_TASK = 64


@inlined
def add_rows(rows, first, sums):
    """Adds the sum of rows to sums.

    Args:
        rows: ``(n_rows, at least first + width)``.
        first: Where in a row the numbers begin that are added up.
        sums: ``(width,)``, of the type that is computed with.
    """
    own = np.zeros(len(sums), sums.dtype)
    for row in range(len(rows)):
        given = rows[row, first : first + len(own)]
        for column in range(len(own)):
            own[column] += widened(given[column])
    for column in range(len(own)):
        sums[column] += own[column]


def _sum_of_rows(rows, sums):
    """Writes the sum of all rows, whose order does not depend on the number of threads.

    Args:
        rows: ``(n_rows, width)``.
        sums: ``(width,)``.
    """
    n_tasks = (len(rows) + _ROWS_A_TASK - 1) // _ROWS_A_TASK
    parts = np.zeros((n_tasks, len(sums)), sums.dtype)
    for task in numba.prange(n_tasks):
        add_rows(rows[task * _ROWS_A_TASK :][:_ROWS_A_TASK], 0, parts[task])
    sums[:] = 0
    add_rows(parts, 0, sums)


# By the type of the rows.
SUM_OF_ROWS = kernels_of_types(_sum_of_rows, "void({0}[:,::1], {1}[::1])", bfloat16=True)
