"""One more token for each sequence of a batch, from what is cached of the tokens before."""

import numba
import numpy as np

from lm_core.kernels.kernel import inlined, kernel
from lm_core.kernels.norm import norm_row, rms_norm_row
from lm_core.kernels.numbers import exp, normal, sigmoid
from lm_core.kernels.rotary import prepare_head
from lm_core.kernels.tiles import multiply

_F = np.float32
# Keys or values that are looked at together, which reads what they are combined with once.
_TOGETHER = 4
# Queries, keys and values.
_PROJECTIONS = 3
# The vectors of a block that are as wide as the residual stream, in their order.
_NORM, _NORM_BIAS, _MIX_BIAS, _MLP_NORM, _MLP_NORM_BIAS, _CONTRACT_BIAS = range(6)
# Embeddings, rotations and vectors, which come first among the weights.
_N_NARROW = 5
# What the hidden layer of an MLP makes of its input, by name.
ACTIVATIONS = {"gelu": 0, "relu_squared": 1, "swiglu": 2, "gelu_tanh": 3}
# The same as numbers that a kernel knows.
_RELU_SQUARED, _SWIGLU, _GELU_TANH = 1, 2, 3
# The approximation of GELU (Hendrycks and Gimpel 2016, section 2): twice the square root of 2 / pi,
# and the share of the cube.
_TANH_RATE, _SHARE_OF_CUBE = _F(1.5957691216057308), _F(0.044715)


@inlined
def _gelu(x):
    """The exact GELU (Hendrycks and Gimpel 2016)."""
    _, share_below = normal(x)
    return x * share_below


@inlined
def _gelu_tanh(x):
    """GELU by a hyperbolic tangent: half of one and a tangent is a sigmoid of twice as much."""
    return x * sigmoid(_TANH_RATE * (x + _SHARE_OF_CUBE * x * x * x))


@inlined
def _activate(hidden, bias, kind):
    """The hidden layer of an MLP, in the first places of what comes into it."""
    for i in range(len(bias)):
        hidden[i] += bias[i]
    if kind == _SWIGLU:
        n = len(bias) // 2
        gates, rest = hidden[:n], hidden[n:]
        for i in range(n):
            gates[i] *= sigmoid(gates[i]) * rest[i]
    elif kind == _RELU_SQUARED:
        for i in range(len(bias)):
            above = max(hidden[i], _F(0))
            # What is no number stays none.
            hidden[i] = above * above if hidden[i] == hidden[i] else hidden[i]
    elif kind == _GELU_TANH:
        for i in range(len(bias)):
            hidden[i] = _gelu_tanh(hidden[i])
    else:
        for i in range(len(bias)):
            hidden[i] = _gelu(hidden[i])


@inlined
def _normed(x, weight, bias, epsilon, is_rms, normed):
    if is_rms:
        rms_norm_row(x, weight, epsilon, normed)
    else:
        norm_row(x, weight, bias, epsilon, normed)


@inlined
def _cap(logits, bound):
    """The bound times the hyperbolic tangent of each logit divided by it; 0: there is none."""
    if bound > 0:
        for i in range(len(logits)):
            logits[i] = bound * np.tanh(logits[i] / bound)


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
def _attend(projected, bias, rotation, choices, keys, values, n_before, weights, found):
    """Attention of a sequence's newest token to all of its tokens (Vaswani et al. 2017).

    ``projected`` is query, key and value of the newest token side by side; key and value are stored
    behind the ``n_before`` that are there.
    """
    cosines, sines = rotation
    _, _, norms_heads, rotates, epsilon, _, _ = choices
    n_heads, _, d_head = keys.shape
    d_model, n_tokens = n_heads * d_head, n_before + 1
    for i in range(_PROJECTIONS * d_model):
        projected[i] += bias[i]
    scale = _F(1) / np.sqrt(_F(d_head))
    for head in range(n_heads):
        first = head * d_head
        query, key = projected[first:], projected[d_model + first :]
        prepare_head(query[:d_head], cosines, sines, norms_heads, rotates, epsilon)
        prepare_head(key[:d_head], cosines, sines, norms_heads, rotates, epsilon)
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
def _decode(tokens, n_before, weights, choices, cache, memory, logits, first, end):
    """What ``decode`` does, for the sequences from ``first`` to ``end``."""
    embedding, positions, cosines, sines, vectors = weights[:_N_NARROW]
    bias_of_qkv, bias_of_hidden, qkv, mix, expand, contract, head = weights[_N_NARROW:]
    is_rms, activation, _, _, _, epsilon, bound = choices
    x, normed, added, wide, scores = memory
    rotation = cosines[n_before], sines[n_before]
    for r in range(first, end):
        for i in range(x.shape[1]):
            x[r, i] = embedding[tokens[r], i] + positions[n_before, i]
        _normed(x[r], vectors[0, _NORM], vectors[0, _NORM_BIAS], epsilon, is_rms, normed[r])
    for layer in range(len(qkv)):
        own, following = vectors[layer], vectors[layer + 1]
        multiply(normed[first:end], qkv[layer], wide[first:end])
        for r in range(first, end):
            keys, values = cache[layer, 0, r], cache[layer, 1, r]
            own_bias, memory_of_scores = bias_of_qkv[layer], scores[r]
            _attend(
                wide[r],
                own_bias,
                rotation,
                choices,
                keys,
                values,
                n_before,
                memory_of_scores,
                normed[r],
            )
        multiply(normed[first:end], mix[layer], added[first:end])
        for r in range(first, end):
            _add(x[r], added[r], own[_MIX_BIAS])
            _normed(x[r], own[_MLP_NORM], own[_MLP_NORM_BIAS], epsilon, is_rms, normed[r])
        multiply(normed[first:end], expand[layer], wide[first:end])
        for r in range(first, end):
            _activate(wide[r], bias_of_hidden[layer], activation)
        multiply(wide[first:end], contract[layer], added[first:end])
        for r in range(first, end):
            _add(x[r], added[r], own[_CONTRACT_BIAS])
            _normed(x[r], following[_NORM], following[_NORM_BIAS], epsilon, is_rms, normed[r])
    multiply(normed[first:end], head, logits[first:end])
    for r in range(first, end):
        _cap(logits[r], bound)


_ROWS, _PANELS, _STACKS = "float32[:,::1]", "float32[:,:,::1]", "float32[:,:,:,::1]"
_EMBEDDINGS = f"{_ROWS}, {_ROWS}, {_ROWS}, {_ROWS}"
_MATRICES = f"{_STACKS}, {_STACKS}, {_STACKS}, {_STACKS}, {_PANELS}"
_WEIGHTS = f"Tuple(({_EMBEDDINGS}, {_PANELS}, {_ROWS}, {_ROWS}, {_MATRICES}))"
_CHOICES = "Tuple((boolean, int64, boolean, boolean, float32, float32, float32))"
_MEMORY = f"Tuple(({_ROWS}, {_ROWS}, {_ROWS}, {_ROWS}, {_ROWS}))"
_DECODE = f"int64[::1], int64, {_WEIGHTS}, {_CHOICES}, float32[:,:,:,:,:,::1], {_MEMORY}, {_ROWS}"


@kernel(f"void({_DECODE})")
def decode(tokens, n_before, weights, choices, cache, memory, logits):
    """The logits for the tokens after these.

    Args:
        tokens: The newest token of each sequence, ``(batch,)``, each within the vocabulary.
        n_before: Tokens before it, fewer than the cache and the positions have room for.
        weights: Of the model, where a bias that there is not is zero:
            the embedding, ``(vocab_size, d_model)``, the positions, ``(max_seq_len, d_model)``, and
            cosines and sines of each position's angles, ``(max_seq_len, d_head / 2)``;
            weight and bias of the first norm, bias of the attention's projection, weight and bias
            of the second norm, bias of the MLP's projection, for each block, and weight and bias of
            the final norm as those of a block's first, ``(n_layers + 1, 6, d_model)``;
            the biases of queries, keys and values, ``(n_layers, 3 * d_model)``, and of what comes
            into the MLP's hidden layer, ``(n_layers, d_ff)``, twice as wide for SwiGLU;
            queries, keys and values, the attention's projection, what leads to the MLP's hidden
            layer, and its projection, each ``packed`` for all blocks, and the head, ``packed``.
        choices: Whether norms are RMSNorm; the activation, a number of ``ACTIVATIONS``; whether
            queries and keys are normed, and whether they are rotated; what is added to their mean
            of squares; what is added to that of the norms, or to their variance; and the bound of
            the logits, 0 where there is none.
        cache: ``(n_layers, 2, batch, n_heads, most_tokens, d_head)``: keys and values of the tokens
            before, behind which those of the newest are written.
        memory: To work in, of a row for each sequence: twice ``d_model`` numbers; as many,
            ``padded``; the larger of ``3 * d_model`` and what comes into the MLP's hidden layer,
            ``padded``; and ``most_tokens``.
        logits: Become the logits, ``(batch, vocab_size)``, ``padded``.
    """
    _decode(tokens, n_before, weights, choices, cache, memory, logits, 0, len(tokens))


@kernel(f"void({_DECODE}, int64)", parallel=True)
def decode_in_threads(tokens, n_before, weights, choices, cache, memory, logits, n_threads):
    """As ``decode``, with the sequences divided among threads."""
    n = len(tokens)
    for thread in numba.prange(n_threads):
        first, end = thread * n // n_threads, (thread + 1) * n // n_threads
        _decode(tokens, n_before, weights, choices, cache, memory, logits, first, end)
