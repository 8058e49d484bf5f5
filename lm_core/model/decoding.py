"""One more token for each sequence of a batch, in as few operations as that can take.

A step with one token a sequence computes little, and most of its time would go into the modules:
their calls, contexts and sites. ``Decoder`` does what ``Transformer`` does with a cache, where no
hook wants to see it (``tests/test_decoding.py`` compares them).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from lm_core.model.attention import KeyValueCache
from lm_core.model.linear import Linear
from lm_core.model.transformer import Block, Transformer

# Sequences from which oneDNN's kernels, for weights in an order of their own, are the quickest.
_SMALLEST_PACKED_BATCH = 2
# What GELU scales by within the error function.
_ROOT_OF_A_HALF = math.sqrt(0.5)


class _Plain:
    """A linear layer, with what comes before or after it in the block."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """``(batch, in_features)`` to ``(batch, out_features)``."""
        return F.linear(x, self._weight, self._bias)

    def then_gelu(self, x: torch.Tensor) -> torch.Tensor:
        """The exact GELU of ``of``."""
        return F.gelu(self.of(x))

    def added(self, x: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        """``to`` and ``of`` in one sum."""
        return self.of(x).add_(to)


class _OfOneRow(_Plain):
    """The same for one sequence on a CPU, without the dimension of the batch, by numpy's BLAS.

    It multiplies a matrix by a vector in about half the time of PyTorch's. GELU is put together
    from operations that are done at once for so few numbers: PyTorch's own wakes up a thread for
    them, which takes ten times as long.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(weight, bias)
        self._matrix = weight.numpy()
        self._offset = None if bias is None else bias.numpy()

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """``(in_features,)`` to ``(out_features,)``."""
        product = self._matrix @ x.numpy()
        if self._offset is not None:
            product += self._offset
        return torch.from_numpy(product)

    def then_gelu(self, x: torch.Tensor) -> torch.Tensor:
        """As of ``_Plain``."""
        x = self.of(x)
        return torch.erf(x * _ROOT_OF_A_HALF).add_(1).mul_(x).div_(2)


class _Packed(_Plain):
    """The same by oneDNN, on a CPU in float32, with a copy of the weights."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(torch.ops.mkldnn._reorder_linear_weight(weight), bias)
        # Looking an operation up takes a while.
        self._product = torch.ops.mkldnn._linear_pointwise.default
        self._sum = torch.ops.mkldnn._linear_pointwise.binary

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """As of ``_Plain``."""
        return self._product(x, self._weight, self._bias, "none", [], "")

    def then_gelu(self, x: torch.Tensor) -> torch.Tensor:
        """As of ``_Plain``."""
        return self._product(x, self._weight, self._bias, "gelu", [], "none")

    def added(self, x: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        """As of ``_Plain``."""
        return self._sum(x, to, self._weight, self._bias, "add")


class _Norm:
    """A LayerNorm."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        weight, bias = norm.weight.detach(), norm.bias.detach()
        self._arguments = (norm.normalized_shape, weight, bias, norm.eps)

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """The norm of each row."""
        return torch.layer_norm(x, *self._arguments)


class _Layers:
    """What a block computes with."""

    def __init__(self, block: Block, product: type[_Plain]) -> None:
        def of(layer: Linear) -> _Plain:
            return product(layer.weight.detach(), layer.bias.detach())

        self.attention_norm = _Norm(block.attention_norm)
        self.query_key_value = of(block.attention.query_key_value)
        self.attention_projection = of(block.attention.projection)
        self.mlp_norm = _Norm(block.mlp_norm)
        self.expansion = of(block.mlp.expansion)
        self.mlp_projection = of(block.mlp.projection)


class Decoder:
    """Continues sequences whose keys and values are cached; calls no hooks.

    The weights are those of the moment it is made: it is for one generation.

    Args:
        model: The model, in evaluation mode.
        cache: Of all sequences; it is extended in place.
        batch_size: Sequences in the cache.
    """

    def __init__(self, model: Transformer, cache: KeyValueCache, batch_size: int) -> None:
        self._cache = cache
        self._shape = (batch_size, 3, model.n_heads, 1, model.d_head)
        self._embedding = model.token_embedding.weight.detach()
        self._positions = model.position_embedding.weight.detach()
        product = _product_for(self._embedding, batch_size)
        # Activations of all sequences; of one, as a vector.
        self._activations = (-1,) if product is _OfOneRow else (batch_size, -1)
        self._attend = _attention_of_one if product is _OfOneRow else F.scaled_dot_product_attention
        self._blocks = [_Layers(block, product) for block in model.blocks]
        self._head = product(self._embedding, None)
        self._final_norm = _Norm(model.final_norm)

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """The logits for the tokens after these.

        Args:
            tokens: The newest token of each sequence, ``(batch,)``.

        Returns:
            ``(batch, vocab_size)``.

        Raises:
            IndexError: The sequences are as long as the model's context already.
        """
        cache = self._cache
        x = F.embedding(tokens, self._embedding).add_(self._positions[cache.n_tokens])
        x = x.view(self._activations)
        for layer, block in enumerate(self._blocks):
            projected = block.query_key_value.of(block.attention_norm.of(x))
            parts = projected.view(self._shape).transpose(0, 1)
            keys, values = cache.extend(layer, parts[1:])
            # The newest token may look at all keys.
            heads = self._attend(parts[0], keys, values).view(x.shape)
            x = block.attention_projection.added(heads, x)
            hidden = block.expansion.then_gelu(block.mlp_norm.of(x))
            x = block.mlp_projection.added(hidden, x)
        cache.n_tokens += 1
        return self._head.of(self._final_norm.of(x)).view(len(tokens), -1)


def _attention_of_one(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attention of the newest token of one sequence, by numpy's BLAS, in one thread.

    Args:
        q: Its queries, ``(1, n_heads, 1, d_head)``.
        keys: Of all tokens, ``(1, n_heads, n_tokens, d_head)``.
        values: The same shape.
    """
    query = q[0].numpy() * (1 / math.sqrt(q.shape[-1]))
    scores = torch.from_numpy(query @ keys[0].numpy().transpose(0, 2, 1))
    return torch.from_numpy(torch.softmax(scores, -1).numpy() @ values[0].numpy())


def _product_for(weight: torch.Tensor, batch_size: int) -> type[_Plain]:
    """The quickest way to multiply so many rows with weights like this."""
    if weight.device.type == "cpu" and batch_size == 1:
        return _OfOneRow
    return _Packed if can_pack(weight, batch_size) else _Plain


def can_pack(weight: torch.Tensor, batch_size: int) -> bool:
    """Whether products of so many sequences with weights like this are quicker by oneDNN.

    Args:
        weight: Of the model.
        batch_size: Sequences.
    """
    return (
        batch_size >= _SMALLEST_PACKED_BATCH
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        # Not a public operation: a later PyTorch may lack it.
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
