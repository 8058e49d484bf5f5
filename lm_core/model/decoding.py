"""One more token for each sequence of a batch, on a CPU, in one call of a compiled loop.

A step with one token a sequence computes little, and most of its time would go into modules and
PyTorch's operations: their calls, their memory, and the threads that they wake. ``Decoder`` does
what ``Transformer`` does with a cache, where no hook wants to see it (``tests/test_decoding.py``
compares them).
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from lm_core.kernels.decoding import ACTIVATIONS, decode, decode_in_threads
from lm_core.kernels.tiles import packed, padded
from lm_core.model.attention import KeyValueCache
from lm_core.model.rotary import HEAD_NORM_EPSILON, rotations
from lm_core.model.transformer import Transformer

# A block's vectors that are as wide as the residual stream, in the order of the kernel.
_VECTORS = (
    "attention_norm.weight",
    "attention_norm.bias",
    "attention.projection.bias",
    "mlp_norm.weight",
    "mlp_norm.bias",
    "mlp.projection.bias",
)
# Its matrices, likewise.
_MATRICES = (
    "attention.query_key_value.weight",
    "attention.projection.weight",
    "mlp.expansion.weight",
    "mlp.projection.weight",
)
# The layers whose biases are wider than it, likewise.
_WIDE_LAYERS = ("attention.query_key_value", "mlp.expansion")


class Decoder:
    """Continues sequences whose keys and values are cached; calls no hooks.

    It is for one generation: the weights must stay as they are.

    Args:
        model: The model, one that it ``is_for``, in evaluation mode.
        cache: Of all sequences; it is extended in place.
        batch_size: Sequences in the cache.
    """

    def __init__(self, model: Transformer, cache: KeyValueCache, batch_size: int) -> None:
        self._cache, self._stored = cache, cache.stored.numpy()
        self._weights = _weights(model)
        self._choices = _choices(model)
        d_model = model.architecture.d_model
        product = max(model.blocks[0].get_submodule(name).out_features for name in _WIDE_LAYERS)
        sizes = d_model, d_model, padded(d_model), padded(product), cache.most_tokens
        self._memory = tuple(np.empty((batch_size, size), np.float32) for size in sizes)
        self._vocab_size = model.vocab_size
        self._n_threads = min(batch_size, torch.get_num_threads())

    @staticmethod
    def is_for(model: Transformer) -> bool:
        """Whether it can stand for a model: in float32, on a CPU, and no hook looks into it."""
        weight = model.token_embedding.weight
        is_plain = weight.device.type == "cpu" and weight.dtype == torch.float32
        return is_plain and not model.sites.have_hooks

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """The logits for the tokens after these.

        Args:
            tokens: The newest token of each sequence, ``(batch,)``.

        Returns:
            ``(batch, vocab_size)`` float32.

        Raises:
            IndexError: The cache is full, a token is none, or there is not one for each sequence.
        """
        n_before = self._cache.n_tokens
        if n_before == self._cache.most_tokens:
            raise IndexError(f"the cache has room for {n_before} tokens")
        if tokens.shape != (len(self._memory[0]),):
            raise IndexError(f"{tokens.shape} tokens for {len(self._memory[0])} sequences")
        tokens = np.ascontiguousarray(tokens, np.int64)
        if not ((tokens >= 0) & (tokens < self._vocab_size)).all():
            raise IndexError(f"{tokens} are no tokens below {self._vocab_size}")
        logits = np.empty((len(tokens), padded(self._vocab_size)), np.float32)
        arguments = tokens, n_before, self._weights, self._choices, self._stored, self._memory
        if self._n_threads == 1:
            decode(*arguments, logits)
        else:
            decode_in_threads(*arguments, logits, self._n_threads)
        self._cache.n_tokens += 1
        return logits[:, : self._vocab_size]


def _weights(model: Transformer) -> tuple[Any, ...]:
    """What the kernel takes as weights."""
    d_model = model.architecture.d_model
    blocks = [_Numbers(block) for block in model.blocks]
    # Places without a parameter stay zero.
    vectors = np.zeros((len(blocks) + 1, len(_VECTORS), d_model), np.float32)
    for row, block in zip(vectors, blocks, strict=False):
        row[:] = [block.vector(name, d_model) for name in _VECTORS]
    final = _Numbers(model.final_norm)
    vectors[-1, 0], vectors[-1, 1] = (final.vector(name, d_model) for name in ("weight", "bias"))
    biases = tuple(
        np.stack([block.vector(f"{name}.bias", block.n_outputs(name)) for block in blocks])
        for name in _WIDE_LAYERS
    )
    matrices = [packed([block.get_parameter(name) for block in model.blocks]) for name in _MATRICES]
    (head,) = packed([model.head_weight])
    return *_embeddings(model), vectors, *biases, *matrices, head


class _Numbers:
    """The parameters of a module as numbers."""

    def __init__(self, module: nn.Module) -> None:
        self._parameters = {name: _seen(p) for name, p in module.named_parameters()}

    def vector(self, name: str, size: int) -> np.ndarray:
        """A vector, or zeros where there is no such parameter."""
        return self._parameters.get(name, np.zeros(size, np.float32))

    def n_outputs(self, layer: str) -> int:
        """How many numbers a linear layer makes."""
        return len(self._parameters[f"{layer}.weight"])


def _seen(parameter: nn.Parameter) -> np.ndarray:
    """The memory of a parameter, which can still be given back afterwards, as FSDP does.

    What ``Tensor.numpy`` has shown stays where it is.
    """
    return np.from_dlpack(parameter.detach())


def _embeddings(model: Transformer) -> tuple[np.ndarray, ...]:
    """The vectors of tokens and places, and the rotations of places."""
    n_places, d_head = model.max_seq_len, model.d_head
    embedding = _seen(model.token_embedding.weight)
    if model.position_embedding is not None:
        none = np.zeros((n_places, 0), np.float32)
        return embedding, _seen(model.position_embedding.weight), none, none
    places = np.zeros((n_places, embedding.shape[1]), np.float32)
    return embedding, places, *rotations(0, n_places, d_head, torch.float32)


def _choices(model: Transformer) -> tuple[Any, ...]:
    """What the kernel takes as choices."""
    architecture = model.architecture
    return (
        architecture.norm == "rmsnorm",
        ACTIVATIONS[architecture.activation],
        architecture.qk_norm,
        architecture.position == "rope",
        np.float32(HEAD_NORM_EPSILON),
        np.float32(model.final_norm.eps),
        np.float32(model.logit_softcap or 0),
    )
