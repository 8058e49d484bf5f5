"""Causal attention whose weights stay in the cache of the processor: forward and backward.

Each head of each sequence is one task of one thread. It takes a block of queries after the other,
with the keys up to the last of them, and gives up the weights of a block once they are used;
backward computes them anew from the largest and the sum (Dao et al. 2022, "FlashAttention").
"""

import numba
import numpy as np

from lm_core.kernels.kernel import inlined, kernels_of_types
from lm_core.kernels.numbers import exp, narrowed, room, widened
from lm_core.kernels.tiles import PANEL, multiply, multiply_and_add

# Queries that are computed together: fewer leave out more of the keys that none of them may see,
# more make larger products.
_BLOCK = 64
# Of them, so many are multiplied with the keys up to their own last one.
_QUERIES_AT_ONCE = 16


@inlined
def _n_panels(n):
    return (n + PANEL - 1) // PANEL


@inlined
def _whole(n):
    """So many numbers as panels have in which ``n`` find room.

    A loop over a row takes many numbers with every instruction, and what is left one by one, which
    takes longer. So rows are computed up to the end of a panel.
    """
    return _n_panels(n) * PANEL


@inlined
def _panels(matrix, column, width, factor):
    """Columns of a matrix, from ``column`` on, times a factor, in panels of them.

    Returns:
        ``(n_panels, rows, PANEL)``.
    """
    n_rows = len(matrix)
    panels = np.zeros((_n_panels(width), n_rows, PANEL), matrix.dtype)
    for index in range(len(panels)):
        first = index * PANEL
        for row in range(n_rows):
            # A part of a single row has no gaps, which a part of all rows has.
            given = matrix[row, column + first : column + min(first + PANEL, width)]
            own = panels[index, row]
            for i in range(len(given)):
                own[i] = given[i] * factor
    return panels


@inlined
def _panels_across(matrix, column, width, factor):
    """Columns of a matrix, from ``column`` on, times a factor, in panels of its rows.

    Returns:
        ``(n_panels, width, PANEL)``.
    """
    n_rows = len(matrix)
    panels = np.zeros((_n_panels(n_rows), width, PANEL), matrix.dtype)
    for row in range(n_rows):
        given, own = matrix[row, column : column + width], panels[row // PANEL]
        place = row % PANEL
        for i in range(len(given)):
            own[i, place] = given[i] * factor
    return panels


@inlined
def _write_columns(rows, matrix, first_row, column, width):
    """Writes the first ``width`` columns of rows to those of a matrix, from ``column`` on."""
    for row in range(len(rows)):
        given, own = rows[row, :width], matrix[first_row + row, column : column + width]
        for i in range(len(own)):
            own[i] = given[i]


@inlined
def _first_of_mask(query, time, head, n_heads, strip):
    """Where the mask of a query begins in that of its sequence: strip by strip, head by head."""
    index = query // strip
    start, end = index * strip, min((index + 1) * strip, time)
    of_earlier_strips = n_heads * strip * strip * index * (index + 1) // 2
    return of_earlier_strips + (head * (end - start) + query - start) * end


@inlined
def _multiply_seen(weights, start, panels, y):
    """Multiplies weights of queries, from place ``start`` on, with rows at the places they see."""
    for first in range(0, len(weights), _QUERIES_AT_ONCE):
        last = min(first + _QUERIES_AT_ONCE, len(weights))
        multiply(weights[first:last], panels[:, : start + last], y[first:last])


@inlined
def _add_to_seen(weights, start, panels, y):
    """Adds to each place the rows of the queries that see it, times their weights."""
    end = start + len(weights)
    multiply_and_add(weights[:, :start].T, panels[:, start:end], y[:start])
    for first in range(start, end, _QUERIES_AT_ONCE):
        last = min(first + _QUERIES_AT_ONCE, end)
        multiply_and_add(
            weights[first - start :, first:last].T, panels[:, first:end], y[first:last]
        )


@inlined
def _mask(weights, mask, first):
    """Drops weights of a query for which the mask, from a place on, is false; if there is one."""
    nothing, own = weights.dtype.type(0), mask[first:]
    for key in range(min(len(weights), len(own))):
        weights[key] = weights[key] if own[key] else nothing


@inlined
def _soften(weights):
    """Makes weights that add up to 1 of scores; the largest, and the sum of exponentials.

    The first score is of a key that is seen; those of keys that are not are minus infinity.
    """
    largest = weights[0]
    for key in range(len(weights)):
        largest = max(largest, weights[key])
    total = weights.dtype.type(0)
    for key in range(len(weights)):
        weights[key] = exp(weights[key] - largest)
        total += weights[key]
    share = weights.dtype.type(1) / total
    for key in range(len(weights)):
        weights[key] *= share
    return largest, total


@inlined
def _soften_backward(weights, of_weights):
    """Makes gradients of scores of those of the weights."""
    expected = weights.dtype.type(0)
    for key in range(len(weights)):
        expected += weights[key] * of_weights[key]
    for key in range(len(weights)):
        of_weights[key] = weights[key] * (of_weights[key] - expected)


def _forward(projected, n_heads, masks, strip, factor, scale, found, largest, sums):
    """Attention of each position to those up to it.

    Args:
        projected: Queries, keys and values side by side, ``(batch, time, 3 * d_model)``.
        n_heads: Attention heads.
        masks: Of the weights, ``(batch, n_attention_weights)``, true for those that are kept;
            ``(batch, 0)``: nothing is dropped.
        strip: Queries of a strip of masks.
        factor: Of the products of queries and keys.
        scale: Of the weights that are kept.
        found: Becomes what the heads found, ``(batch, time, d_model)``.
        largest: Becomes the largest score of each query, ``(batch, n_heads, time)``.
        sums: Become the sums of exponentials of the differences from it, of that shape.
    """
    batch, time, d_model = found.shape
    d_head = d_model // n_heads
    for task in numba.prange(batch * n_heads):
        sequence, head = task // n_heads, task % n_heads
        first, last = head * d_head, (head + 1) * d_head
        own_projected = projected[sequence]
        queries = own_projected[:, first:last]
        key_panels = _panels_across(own_projected, d_model + first, d_head, factor)
        value_panels = _panels(own_projected, 2 * d_model + first, d_head, scale)
        weights = np.empty((_BLOCK, _whole(time)), found.dtype)
        output = np.empty((_BLOCK, _whole(d_head)), found.dtype)
        for start in range(0, time, _BLOCK):
            end = min(start + _BLOCK, time)
            n_seen = _n_panels(end)
            multiply(queries[start:end], key_panels[:n_seen], weights)
            for query in range(start, end):
                n = query + 1
                own = weights[query - start, : _whole(n)]
                own[n:] = -np.inf
                highest, total = _soften(own)
                largest[sequence, head, query], sums[sequence, head, query] = highest, total
                weights[query - start, n:end] = 0
                _mask(own, masks[sequence], _first_of_mask(query, time, head, n_heads, strip))
            _multiply_seen(weights[: end - start], start, value_panels, output)
            _write_columns(output[: end - start], found[sequence], start, first, d_head)


def _backward(
    projected, n_heads, masks, strip, factor, scale, largest, sums, gradient, of_projected
):
    """Gradients of queries, keys and values.

    Args:
        projected: As of ``_forward``.
        n_heads: As of ``_forward``.
        masks: As of ``_forward``.
        strip: As of ``_forward``.
        factor: As of ``_forward``.
        scale: As of ``_forward``.
        largest: From ``_forward``.
        sums: From ``_forward``.
        gradient: Of what the heads found, ``(batch, time, d_model)``.
        of_projected: Becomes the gradient of ``projected``.
    """
    batch, time, d_model = gradient.shape
    d_head = d_model // n_heads
    width = _whole(d_head)
    for task in numba.prange(batch * n_heads):
        sequence, head = task // n_heads, task % n_heads
        first, last = head * d_head, (head + 1) * d_head
        own_projected, own_gradients = projected[sequence], of_projected[sequence]
        first_key, first_value = d_model + first, 2 * d_model + first
        queries, outputs = own_projected[:, first:last], gradient[sequence, :, first:last]
        keys_across = _panels_across(own_projected, first_key, d_head, factor)
        values_across = _panels_across(own_projected, first_value, d_head, scale)
        key_panels = _panels(own_projected, first_key, d_head, factor)
        query_panels = _panels(own_projected, first, d_head, factor)
        output_panels = _panels(gradient[sequence], first, d_head, scale)
        weights = np.empty((_BLOCK, _whole(time)), gradient.dtype)
        of_weights = np.empty_like(weights)
        of_queries = np.empty((_BLOCK, width), gradient.dtype)
        of_keys, of_values = np.zeros((2, time, width), gradient.dtype)
        for start in range(0, time, _BLOCK):
            end = min(start + _BLOCK, time)
            n_rows, n_seen = end - start, _n_panels(end)
            multiply(queries[start:end], keys_across[:n_seen], weights)
            multiply(outputs[start:end], values_across[:n_seen], of_weights)
            for query in range(start, end):
                row, n = query - start, query + 1
                own, of_own = weights[row, : _whole(n)], of_weights[row, : _whole(n)]
                own[n:] = -np.inf
                of_own[n:] = 0
                highest = largest[sequence, head, query]
                share = own.dtype.type(1) / sums[sequence, head, query]
                for key in range(len(own)):
                    own[key] = exp(own[key] - highest) * share
                place = _first_of_mask(query, time, head, n_heads, strip)
                _mask(of_own, masks[sequence], place)
                _soften_backward(own, of_own)
                _mask(own, masks[sequence], place)
                weights[row, n:end] = 0
                of_weights[row, n:end] = 0
            _add_to_seen(weights[:n_rows], start, output_panels, of_values)
            _add_to_seen(of_weights[:n_rows], start, query_panels, of_keys)
            _multiply_seen(of_weights[:n_rows], start, key_panels, of_queries)
            _write_columns(of_queries[:n_rows], own_gradients, start, first, d_head)
        _write_columns(of_keys, own_gradients, 0, first_key, d_head)
        _write_columns(of_values, own_gradients, 0, first_value, d_head)


@inlined
def _widen(row, n, rest, numbers):
    """Writes a row in the precision it is computed with, and ``rest`` from place ``n`` on."""
    for i in range(len(row)):
        numbers[i] = widened(row[i])
    numbers[n:] = rest


@inlined
def _narrow(numbers, n, row):
    """Writes the first ``n`` numbers to a row, and zeroes to the rest of it."""
    numbers[n:] = 0
    for i in range(len(row)):
        row[i] = narrowed(numbers[i], row)


def _soften_strip(scores, masks, strip, dropped):
    """Makes weights of the scores of a strip of queries.

    Args:
        scores: Of queries, which are at the places of the last of the keys, ``(batch, n_heads,
            queries, keys)``; become the weights.
        masks: As of ``_forward``.
        strip: As of ``_forward``.
        dropped: Become the weights that are kept, of the shape of ``scores``, and zero in the place
            of the others; stays as it is if nothing is dropped.
    """
    batch, n_heads, n_queries, end = scores.shape
    for task in numba.prange(batch * n_heads):
        sequence, head = task // n_heads, task % n_heads
        weights = room(_whole(end), scores)
        for row in range(n_queries):
            query = end - n_queries + row
            own, n = scores[sequence, head, row], query + 1
            _widen(own, n, -np.inf, weights)
            _soften(weights[: _whole(n)])
            _narrow(weights, n, own)
            if masks.shape[1] > 0:
                first = _first_of_mask(query, end, head, n_heads, strip)
                _mask(weights[: _whole(n)], masks[sequence], first)
                _narrow(weights, n, dropped[sequence, head, row])


def _soften_strip_backward(weights, masks, strip, of_dropped, dropped):
    """Makes gradients of the scores of a strip of queries.

    Args:
        weights: From ``_soften_strip``.
        masks: As of ``_forward``.
        strip: As of ``_forward``.
        of_dropped: Gradients of what it wrote to ``dropped``, or of the weights if nothing is
            dropped; become those of the scores.
        dropped: Becomes what it wrote there.
    """
    batch, n_heads, n_queries, end = weights.shape
    for task in numba.prange(batch * n_heads):
        sequence, head = task // n_heads, task % n_heads
        own, gradient = room(_whole(end), weights), room(_whole(end), weights)
        for row in range(n_queries):
            query = end - n_queries + row
            n = query + 1
            seen, of_seen = own[: _whole(n)], gradient[: _whole(n)]
            _widen(weights[sequence, head, row], n, 0, own)
            _widen(of_dropped[sequence, head, row], n, 0, gradient)
            first = _first_of_mask(query, end, head, n_heads, strip)
            _mask(of_seen, masks[sequence], first)
            _soften_backward(seen, of_seen)
            _narrow(gradient, n, of_dropped[sequence, head, row])
            if masks.shape[1] > 0:
                _mask(seen, masks[sequence], first)
                _narrow(own, n, dropped[sequence, head, row])


# By the type of what they compute with.
FORWARD = kernels_of_types(
    _forward,
    "void({0}[:,:,::1], int64, boolean[:,::1], int64, {0}, {0}, "
    "{0}[:,:,::1], {0}[:,:,::1], {0}[:,:,::1])",
)
BACKWARD = kernels_of_types(
    _backward,
    "void({0}[:,:,::1], int64, boolean[:,::1], int64, {0}, {0}, "
    "{0}[:,:,::1], {0}[:,:,::1], {0}[:,:,::1], {0}[:,:,::1])",
)
SOFTEN = kernels_of_types(
    _soften_strip, "void({0}[:,:,:,::1], boolean[:,::1], int64, {0}[:,:,:,::1])", bfloat16=True
)
SOFTEN_BACKWARD = kernels_of_types(
    _soften_strip_backward,
    "void({0}[:,:,:,::1], boolean[:,::1], int64, {0}[:,:,:,::1], {0}[:,:,:,::1])",
    bfloat16=True,
)
