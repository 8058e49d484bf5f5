"""What happens to queries and keys before attention, in one pass over the rows each way.

Each head's query and key may be divided by its root mean square (Dehghani et al. 2023, "Scaling
Vision Transformers to 22 Billion Parameters", section 2.1, here without weights), and then be
rotated by angles that grow with its position (Su et al. 2021, "RoFormer", section 3.2).
"""

import numba

from lm_core.kernels.kernel import inlined, kernels_of_types
from lm_core.kernels.norm import rms_factor
from lm_core.kernels.numbers import narrowed, room, widened

# Rows of a task, which has memory of its own for a head's vector.
_ROWS_A_TASK = 16
# Queries, keys and values.
_PROJECTIONS = 3


@inlined
def prepare_head(vector, cosines, sines, norms, rotates, epsilon):
    """Norms and rotates a query or a key of one head in its place.

    Args:
        vector: ``(d_head,)`` of float32 or float64.
        cosines: Of the angles of its position, ``(d_head / 2,)``; of no use unless it rotates.
        sines: Of the same angles.
        norms: Whether it is divided by its root mean square.
        rotates: Whether it is rotated: element i and the one ``d_head / 2`` behind it by angle i.
        epsilon: Added to the mean of squares, a number of the same precision.
    """
    if norms:
        factor = rms_factor(vector, epsilon)
        for i in range(len(vector)):
            vector[i] *= factor
    if rotates:
        half = len(vector) // 2
        first, second = vector[:half], vector[half:]
        for i in range(half):
            a, b = first[i], second[i]
            first[i] = a * cosines[i] - b * sines[i]
            second[i] = b * cosines[i] + a * sines[i]


@inlined
def _rotate_back(vector, cosines, sines):
    """Rotates by the opposite angles, which is what backward does with a gradient."""
    half = len(vector) // 2
    first, second = vector[:half], vector[half:]
    for i in range(half):
        a, b = first[i], second[i]
        first[i] = a * cosines[i] + b * sines[i]
        second[i] = b * cosines[i] - a * sines[i]


@inlined
def _norm_back(vector, gradient, epsilon):
    """Makes the gradient of what was divided by its root mean square that of the vector itself."""
    factor = rms_factor(vector, epsilon)
    total = vector.dtype.type(0)
    for i in range(len(vector)):
        total += gradient[i] * (vector[i] * factor)
    share = total / vector.dtype.type(len(vector)) * factor
    for i in range(len(vector)):
        gradient[i] = factor * (gradient[i] - vector[i] * share)


def _prepare(projected, n_heads, cosines, sines, norms, rotates, epsilon, prepared):
    """Writes queries and keys as attention compares them, and values as they are.

    Args:
        projected: Queries, keys and values of a position side by side, in each head by head,
            ``(batch * time, 3 * d_model)``.
        n_heads: Attention heads.
        cosines: Of the angles of each position, ``(time, d_head / 2)``; ``(time, 0)`` will do
            unless it rotates.
        sines: Of the same angles.
        norms: Whether each head's query and key are divided by their root mean squares.
        rotates: Whether they are rotated.
        epsilon: Added to the mean of squares.
        prepared: Becomes the result, in the shape of ``projected``.
    """
    d_model = projected.shape[1] // _PROJECTIONS
    d_head = d_model // n_heads
    for task in numba.prange((len(projected) + _ROWS_A_TASK - 1) // _ROWS_A_TASK):
        vector = room(d_head, projected)
        for row in range(task * _ROWS_A_TASK, min((task + 1) * _ROWS_A_TASK, len(projected))):
            given, result, position = projected[row], prepared[row], row % len(cosines)
            for head in range(2 * n_heads):
                own, target = given[head * d_head :][:d_head], result[head * d_head :][:d_head]
                for i in range(len(vector)):
                    vector[i] = widened(own[i])
                prepare_head(vector, cosines[position], sines[position], norms, rotates, epsilon)
                for i in range(len(vector)):
                    target[i] = narrowed(vector[i], prepared)
            result[2 * d_model :] = given[2 * d_model :]


def _prepare_backward(
    projected, n_heads, cosines, sines, norms, rotates, epsilon, gradient, of_projected
):
    """The gradient of what ``_prepare`` was given.

    Args:
        projected: As of ``_prepare``; is read only if it ``norms``.
        n_heads: As of ``_prepare``.
        cosines: As of ``_prepare``.
        sines: As of ``_prepare``.
        norms: As of ``_prepare``.
        rotates: As of ``_prepare``.
        epsilon: As of ``_prepare``.
        gradient: Of what ``_prepare`` wrote, ``(batch * time, 3 * d_model)``.
        of_projected: Becomes the gradient of ``projected``, in its shape.
    """
    d_model = gradient.shape[1] // _PROJECTIONS
    d_head = d_model // n_heads
    for task in numba.prange((len(gradient) + _ROWS_A_TASK - 1) // _ROWS_A_TASK):
        vector, own = room(d_head, gradient), room(d_head, gradient)
        for row in range(task * _ROWS_A_TASK, min((task + 1) * _ROWS_A_TASK, len(gradient))):
            given, result, position = gradient[row], of_projected[row], row % len(cosines)
            for head in range(2 * n_heads):
                first = head * d_head
                of_head, target = given[first:][:d_head], result[first:][:d_head]
                for i in range(len(vector)):
                    vector[i] = widened(of_head[i])
                if rotates:
                    _rotate_back(vector, cosines[position], sines[position])
                if norms:
                    head_before = projected[row][first:][:d_head]
                    for i in range(len(own)):
                        own[i] = widened(head_before[i])
                    _norm_back(own, vector, epsilon)
                for i in range(len(vector)):
                    target[i] = narrowed(vector[i], of_projected)
            result[2 * d_model :] = given[2 * d_model :]


# What both begin with.
_GIVEN = "{0}[:,::1], int64, {1}[:,::1], {1}[:,::1], boolean, boolean, {1}"
# By the type of what they read and write.
PREPARE = kernels_of_types(_prepare, f"void({_GIVEN}, {{0}}[:,::1])", bfloat16=True)
PREPARE_BACKWARD = kernels_of_types(
    _prepare_backward, f"void({_GIVEN}, {{0}}[:,::1], {{0}}[:,::1])", bfloat16=True
)
