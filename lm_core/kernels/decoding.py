"""One more token for each sequence of a batch, from what is cached of the tokens before."""

import numba
import numpy as np

from lm_core.kernels.kernel import inlined, kernel
from lm_core.kernels.norm import norm_row
from lm_core.kernels.numbers import exp, normal
from lm_core.kernels.tiles import multiply

_F = np.float32
# Keys or values that are looked at together, which reads what they are combined with once.
_TOGETHER = 4
# Queries, keys and values.
_PROJECTIONS = 3
# The vectors of a block that are as wide as the residual stream, in their order.
_NORM, _NORM_BIAS, _MIX_BIAS, _MLP_NORM, _MLP_NORM_BIAS, _CONTRACT_BIAS = range(6)


@inlined
def _gelu(x):
    """The exact GELU (Hendrycks and Gimpel 2016)."""
    _, share_below = normal(x)
    return x * share_below


@inlined
def _dots(rows, n, vector, products):
    """The product of each of the first ``n`` rows with a vector."""
    for row in range(0, n - _TOGETHER + 1, _TOGETHER):
        a = b = c = d = _F(0)
        for i in range(len(vector)):
            a += rows[row, i] * vector[i]
            b += rows[row + 1, i] * vector[i]
            c += rows[row + 2, i] * vector[i]
            d += rows[row + 3, i] * vector[i]
        products[row], products[row + 1], products[row + 2], products[row + 3] = a, b, c, d
    for row in range(n // _TOGETHER * _TOGETHER, n):
        a = _F(0)
        for i in range(len(vector)):
            a += rows[row, i] * vector[i]
        products[row] = a


@inlined
def _add_rows(rows, n, weights, total):
    """The sum of the first ``n`` rows, each times its weight."""
    for i in range(len(total)):
        total[i] = _F(0)
    for row in range(0, n - _TOGETHER + 1, _TOGETHER):
        a, b, c, d = weights[row], weights[row + 1], weights[row + 2], weights[row + 3]
        for i in range(len(total)):
            two = a * rows[row, i] + b * rows[row + 1, i]
            total[i] += two + (c * rows[row + 2, i] + d * rows[row + 3, i])
    for row in range(n // _TOGETHER * _TOGETHER, n):
        for i in range(len(total)):
            total[i] += weights[row] * rows[row, i]


@inlined
def _attend(projected, bias, keys, values, n_before, weights, found):
    """Attention of a sequence's newest token to all of its tokens (Vaswani et al. 2017).

    ``projected`` is query, key and value of the newest token side by side; key and value are stored
    behind the ``n_before`` that are there.
    """
    n_heads, _, d_head = keys.shape
    d_model, n_tokens = n_heads * d_head, n_before + 1
    for i in range(_PROJECTIONS * d_model):
        projected[i] += bias[i]
    scale = _F(1) / np.sqrt(_F(d_head))
    for head in range(n_heads):
        first = head * d_head
        for i in range(d_head):
            keys[head, n_before, i] = projected[d_model + first + i]
            values[head, n_before, i] = projected[2 * d_model + first + i]
        _dots(keys[head], n_tokens, projected[first : first + d_head], weights)
        largest = _F(-np.inf)
        for token in range(n_tokens):
            largest = max(largest, weights[token])
        total = _F(0)
        for token in range(n_tokens):
            weights[token] = exp((weights[token] - largest) * scale)
            total += weights[token]
        for token in range(n_tokens):
            weights[token] /= total
        _add_rows(values[head], n_tokens, weights, found[first : first + d_head])


@inlined
def _add(x, product, bias):
    for i in range(len(x)):
        x[i] += product[i] + bias[i]


@inlined
def _decode(tokens, n_before, weights, epsilon, cache, memory, logits, first, end):
    """What ``decode`` does, for the sequences from ``first`` to ``end``."""
    embedding, positions, vectors, bias_of_qkv, bias_of_hidden, qkv, mix, expand, contract, head = (
        weights
    )
    x, normed, added, wide, scores = memory
    for r in range(first, end):
        for i in range(x.shape[1]):
            x[r, i] = embedding[tokens[r], i] + positions[n_before, i]
        norm_row(x[r], vectors[0, _NORM], vectors[0, _NORM_BIAS], epsilon, normed[r])
    for layer in range(len(qkv)):
        own, following = vectors[layer], vectors[layer + 1]
        multiply(normed[first:end], qkv[layer], wide[first:end])
        for r in range(first, end):
            keys, values = cache[layer, 0, r], cache[layer, 1, r]
            _attend(wide[r], bias_of_qkv[layer], keys, values, n_before, scores[r], normed[r])
        multiply(normed[first:end], mix[layer], added[first:end])
        for r in range(first, end):
            _add(x[r], added[r], own[_MIX_BIAS])
            norm_row(x[r], own[_MLP_NORM], own[_MLP_NORM_BIAS], epsilon, normed[r])
        multiply(normed[first:end], expand[layer], wide[first:end])
        for r in range(first, end):
            for i in range(bias_of_hidden.shape[1]):
                wide[r, i] = _gelu(wide[r, i] + bias_of_hidden[layer, i])
        multiply(wide[first:end], contract[layer], added[first:end])
        for r in range(first, end):
            _add(x[r], added[r], own[_CONTRACT_BIAS])
            norm_row(x[r], following[_NORM], following[_NORM_BIAS], epsilon, normed[r])
    multiply(normed[first:end], head, logits[first:end])


_ROWS, _PANELS, _STACKS = "float32[:,::1]", "float32[:,:,::1]", "float32[:,:,:,::1]"
_MATRICES = ", ".join([_STACKS, _STACKS, _STACKS, _STACKS, _PANELS])
_WEIGHTS = f"{_ROWS}, {_ROWS}, {_PANELS}, {_ROWS}, {_ROWS}, {_MATRICES}"
_MEMORY = ", ".join([_ROWS, _ROWS, _ROWS, _ROWS, _ROWS])
_DECODE = (
    f"int64[::1], int64, Tuple(({_WEIGHTS})), float32, float32[:,:,:,:,:,::1], "
    f"Tuple(({_MEMORY})), {_ROWS}"
)


@kernel(f"void({_DECODE})")
def decode(tokens, n_before, weights, epsilon, cache, memory, logits):
    """The logits for the tokens after these.

    Args:
        tokens: The newest token of each sequence, ``(batch,)``, each within the vocabulary.
        n_before: Tokens before it, fewer than the cache and the positions have room for.
        weights: Of the model:
            the embedding, ``(vocab_size, d_model)``;
            the positions, ``(max_seq_len, d_model)``;
            weight and bias of the first norm, bias of the attention's projection, weight and bias
            of the second norm, bias of the MLP's projection, for each block, and weight and bias of
            the final norm as those of a block's first, ``(n_layers + 1, 6, d_model)``;
            the biases of queries, keys and values, ``(n_layers, 3 * d_model)``;
            the biases of the MLP's hidden layer, ``(n_layers, d_ff)``;
            queries, keys and values, the attention's projection, the MLP's hidden layer, and its
            projection, each ``packed`` for all blocks;
            the head, ``packed``.
        epsilon: Of the norms: is added to the variance.
        cache: ``(n_layers, 2, batch, n_heads, most_tokens, d_head)``: keys and values of the tokens
            before, behind which those of the newest are written.
        memory: To work in, of a row for each sequence: twice ``d_model`` numbers; as many,
            ``padded``; the larger of ``3 * d_model`` and ``d_ff``, ``padded``; and ``most_tokens``.
        logits: Become the logits, ``(batch, vocab_size)``, ``padded``.
    """
    _decode(tokens, n_before, weights, epsilon, cache, memory, logits, 0, len(tokens))


@kernel(f"void({_DECODE}, int64)", parallel=True)
def decode_in_threads(tokens, n_before, weights, epsilon, cache, memory, logits, n_threads):
    """As ``decode``, with the sequences divided among threads."""
    n = len(tokens)
    for thread in numba.prange(n_threads):
        first, end = thread * n // n_threads, (thread + 1) * n // n_threads
        _decode(tokens, n_before, weights, epsilon, cache, memory, logits, first, end)
