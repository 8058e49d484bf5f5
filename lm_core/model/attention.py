"""Self-attention, and the keys and values that generation keeps."""

import torch
import torch.nn.functional as F
from torch import nn

from lm_core.model.architecture import Architecture
from lm_core.model.causal_attention import causal_attention, n_attention_weights
from lm_core.model.dropout import Dropout
from lm_core.model.linear import Linear
from lm_core.model.rotary import prepared
from lm_core.model.sites import ForwardContext, Sites


class KeyValueCache:
    """Keys and values of the tokens a model has seen, so that generation computes only new ones.

    Args:
        n_layers: Blocks.
        shape: ``(batch, n_heads, tokens, d_head)``, what the keys and the values of a block take
            at the most.
        like: A tensor of the dtype and on the device to use.

    Attributes:
        stored: Keys and values of each block, ``(n_layers, 2, batch, n_heads, most_tokens,
            d_head)``.
        most_tokens: Tokens of a sequence that there is room for.
        n_tokens: Tokens of a sequence that are there.
    """

    def __init__(self, n_layers: int, shape: tuple[int, int, int, int], like: torch.Tensor) -> None:
        self.stored = like.new_empty((n_layers, 2, *shape))
        self.most_tokens = shape[2]
        self.n_tokens = 0

    def extend(self, layer: int, pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores new keys and values of a block behind the ``n_tokens`` that are there.

        Args:
            layer: Index of the block.
            pair: New keys and new values, ``(2, batch, n_heads, new, d_head)``.

        Returns:
            All keys and all values so far, each ``(batch, n_heads, n_tokens + new, d_head)``.
        """
        end = self.n_tokens + pair.shape[3]
        stored = self.stored[layer]
        stored[:, :, :, self.n_tokens : end] = pair
        keys, values = stored[:, :, :, :end].unbind(0)
        return keys, values

    def repeated(self, n: int) -> "KeyValueCache":
        """A cache of ``n`` sequences that all begin like the one in this."""
        n_layers, _, _, n_heads, most_tokens, d_head = self.stored.shape
        cache = KeyValueCache(n_layers, (n, n_heads, most_tokens, d_head), self.stored)
        cache.n_tokens = self.n_tokens
        cache.stored[..., : self.n_tokens, :] = self.stored[..., : self.n_tokens, :]
        return cache


class Attention(nn.Module):
    """Causal self-attention with several heads (Vaswani et al. 2017).

    Args:
        layer: Index of the block.
        architecture: Tells widths, heads, and what happens to queries and keys.
        weight_dropout: Dropout of the attention weights.
        output_dropout: Dropout of what is added to the residual stream.
        sites: Gets the named places of this layer.
    """

    def __init__(
        self,
        layer: int,
        architecture: Architecture,
        weight_dropout: Dropout,
        output_dropout: Dropout,
        sites: Sites,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.n_heads = architecture.n_heads
        self._rotates = architecture.position == "rope"
        self._norms = architecture.qk_norm
        d_model, bias = architecture.d_model, architecture.bias
        self.query_key_value = Linear(d_model, 3 * d_model, bias, n_parts=3)
        self.projection = Linear(d_model, d_model, bias)
        self.weight_dropout = weight_dropout
        self.output_dropout = output_dropout
        name = f"blocks.{layer}.attention"
        self.heads_site = sites.add(f"{name}.heads", "(batch, time, n_heads, d_head)")
        self.output_site = sites.add(name, "(batch, time, d_model)")

    def forward(
        self,
        residual: torch.Tensor,
        x: torch.Tensor,
        context: ForwardContext,
        cache: KeyValueCache | None,
    ) -> torch.Tensor:
        """Mixes each position with those before it, and adds what it finds.

        Args:
            residual: The residual stream, ``(batch, time, d_model)``.
            x: What is mixed, of that shape.
            context: The pass.
            cache: Keys and values of the tokens before these.

        Returns:
            The residual stream with what was added.
        """
        batch, time, d_model = x.shape
        projected = self.query_key_value(x, context.dtype)
        n_before = 0 if cache is None else cache.n_tokens
        projected = prepared(projected, self.n_heads, n_before, self._rotates, self._norms)
        if cache is None and x.device.type == "cpu":
            heads = self._on_cpu(projected, context)
        else:
            heads = self._elsewhere(projected, context, cache)
        heads = self.heads_site(heads.view(batch, time, self.n_heads, -1), context)
        output = self.projection(heads.reshape(batch, time, d_model), context.dtype)
        return self.output_dropout.add(residual, output, self.output_site, context)

    def _on_cpu(self, projected: torch.Tensor, context: ForwardContext) -> torch.Tensor:
        dropout = self.weight_dropout
        if not dropout.is_active(context):
            return causal_attention(projected, self.n_heads)
        batch, time, _ = projected.shape
        mask = dropout.keep_mask(context, (batch, n_attention_weights(time, self.n_heads)))
        return causal_attention(projected, self.n_heads, mask, dropout.scale)

    def _elsewhere(
        self, projected: torch.Tensor, context: ForwardContext, cache: KeyValueCache | None
    ) -> torch.Tensor:
        """PyTorch's own kernels: on a GPU, and where a cache holds earlier keys and values."""
        batch, time, _ = projected.shape
        parts = projected.view(batch, time, 3, self.n_heads, -1).transpose(1, 3).movedim(2, 0)
        q, k, v = parts
        if cache is not None:
            k, v = cache.extend(self.layer, parts[1:])
        dropout = self.weight_dropout
        rate = dropout.rate if dropout.is_active(context) else 0.0
        if k.shape[2] == time:
            heads = F.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=True)
        else:
            # A lone query, the newest token, may look at all keys.
            mask = None if time == 1 else _causal_mask(time, k.shape[2], q.device)
            heads = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)
        return heads.transpose(1, 2).reshape(batch, time, -1)


def _causal_mask(n_queries: int, n_keys: int, device: torch.device) -> torch.Tensor:
    """True where a query may look: at keys up to its own place. The queries are the last keys."""
    ones = torch.ones(n_queries, n_keys, dtype=torch.bool, device=device)
    return ones.tril(diagonal=n_keys - n_queries)
