"""The Transformer: decoder-only, pre-norm, causal; by default, the block is GPT-2's.

Radford et al., "Language Models are Unsupervised Multitask Learners" (2019): learned positions,
LayerNorm before each sublayer and at the end, exact GELU, biases, and an output head that is the
token embedding. Each of these can be replaced alone.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gin
import torch
import torch.nn.functional as F
from torch import nn

from lm_core.config.checks import require_valid
from lm_core.errors import InputError, MachineError, one_line, shown
from lm_core.model.activations import gelu, gelu_tanh, relu_squared, swiglu
from lm_core.model.architecture import Architecture
from lm_core.model.attention import Attention, KeyValueCache
from lm_core.model.dropout import Dropout, seed_device
from lm_core.model.linear import Linear, linear
from lm_core.model.norm import Norm, RMSNorm
from lm_core.model.sites import ForwardContext, Sites
from lm_core.parallel.shards import shared_like
from lm_core.randomness import LARGEST_SEED, StepKey, keyed_generator
from lm_core.token_ids import no_batch, require_token_ids

# GPT-2's standard deviation for every matrix; those that write into the residual stream are
# divided by the square root of the number of such writes (section 2.3 of the paper).
_INITIAL_STD = 0.02
# Attention and the MLP each write into the residual stream once.
_WRITES_A_BLOCK = 2
# One on the attention weights, one on each sublayer's output.
_DROPOUTS_A_BLOCK = 3
# GPT-2's, and PyTorch's default: keeps the division by a variance of zero finite.
NORM_EPSILON = 1e-5
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu_squared": relu_squared,
    "swiglu": swiglu,
}


def _norm(architecture: Architecture) -> Norm | RMSNorm:
    if architecture.norm == "rmsnorm":
        return RMSNorm(architecture.d_model, eps=NORM_EPSILON)
    return Norm(architecture.d_model, eps=NORM_EPSILON, bias=architecture.bias)


class MLP(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, layer: int, architecture: Architecture, sites: Sites) -> None:
        super().__init__()
        d_model, d_ff, bias = architecture.d_model, architecture.d_ff, architecture.bias
        # The gate stands beside what it opens for.
        n_parts = 2 if architecture.activation == "swiglu" else 1
        self.expansion = Linear(d_model, n_parts * d_ff, bias, n_parts)
        self.activation = _ACTIVATIONS[architecture.activation]
        self.projection = Linear(d_ff, d_model, bias)
        self.output_dropout = Dropout(architecture.dropout, _DROPOUTS_A_BLOCK * (layer + 1))
        name = f"blocks.{layer}.mlp"
        self.hidden_site = sites.add(f"{name}.hidden", "(batch, time, d_ff)")
        self.output_site = sites.add(name, "(batch, time, d_model)")

    def forward(
        self, residual: torch.Tensor, x: torch.Tensor, context: ForwardContext
    ) -> torch.Tensor:
        """Works on each position alone, and adds what it finds to the residual stream.

        Both are ``(batch, time, d_model)``, as is their sum.
        """
        hidden = self.hidden_site(self.activation(self.expansion(x, context.dtype)), context)
        output = self.projection(hidden, context.dtype)
        return self.output_dropout.add(residual, output, self.output_site, context)


class Block(nn.Module):
    """Attention, then an MLP, each added to the residual stream after a norm of its input."""

    def __init__(self, layer: int, architecture: Architecture, sites: Sites) -> None:
        super().__init__()
        self.attention_norm = _norm(architecture)
        first = 1 + _DROPOUTS_A_BLOCK * layer
        dropouts = (Dropout(architecture.dropout, index) for index in (first, first + 1))
        self.attention = Attention(layer, architecture, *dropouts, sites)
        self.mlp_norm = _norm(architecture)
        self.mlp = MLP(layer, architecture, sites)
        self.output_site = sites.add(f"blocks.{layer}", "(batch, time, d_model)")

    def forward(
        self, x: torch.Tensor, context: ForwardContext, cache: KeyValueCache | None
    ) -> torch.Tensor:
        """The residual stream after this block; ``(batch, time, d_model)`` to the same."""
        normed, x = self.attention_norm(x, context.dtype)
        x = self.attention(x, normed, context, cache)
        normed, x = self.mlp_norm(x, context.dtype)
        x = self.mlp(x, normed, context)
        return self.output_site(x, context)


def _require_integer(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or not least <= value <= LARGEST_SEED:
        raise InputError(f"{name}: {shown(value)} is no integer from {least} on")


@gin.configurable(denylist=["vocab_size", "seed"])
class Transformer(nn.Module):
    """A decoder-only language model.

    Args:
        vocab_size: Symbols of the tokenizer.
        n_layers: Blocks.
        d_model: Width of the residual stream, a multiple of ``n_heads``.
        n_heads: Attention heads in each block.
        d_ff: Width of the hidden layer of each MLP.
        dropout: Share of activations zeroed in training.
        max_seq_len: Longest context in tokens.
        position: ``learned`` vectors that are added to the embedding, or ``rope``, a rotation of
            queries and keys.
        norm: ``layernorm`` or ``rmsnorm``.
        activation: Of the MLPs: ``gelu``, ``gelu_tanh``, ``relu_squared`` or ``swiglu``.
        qk_norm: Whether each head's queries and keys are normed.
        tie_embeddings: Whether the output head is the token embedding.
        bias: Whether linear layers and LayerNorms have biases; the head has none.
        logit_softcap: What logits come near and never pass, in either direction (Gemma Team 2024,
            "Gemma 2", section 2). None: there is no such bound.
        seed: The initial weights are a function of it. None: they stay as memory happens to be,
            for a model that is given its weights or only asked for its shapes.

    Attributes:
        arguments: All arguments but the seed, enough to build the same model again.
        architecture: What the blocks are made of.
        sites: The named places for forward hooks.

    Raises:
        InputError: The sizes do not fit each other or cannot work.
    """

    def __init__(
        self,
        vocab_size: int,
        n_layers: int = 4,
        d_model: int = 256,
        n_heads: int = 4,
        d_ff: int = 1024,
        dropout: float = 0.1,
        max_seq_len: int = 256,
        position: str = "learned",
        norm: str = "layernorm",
        activation: str = "gelu",
        qk_norm: bool = False,
        tie_embeddings: bool = True,
        bias: bool = True,
        logit_softcap: float | None = None,
        seed: int | None = 0,
    ) -> None:
        super().__init__()
        hyperparameters = {
            "n_layers": n_layers,
            "d_model": d_model,
            "n_heads": n_heads,
            "d_ff": d_ff,
            "dropout": dropout,
            "max_seq_len": max_seq_len,
            "position": position,
            "norm": norm,
            "activation": activation,
            "qk_norm": qk_norm,
            "tie_embeddings": tie_embeddings,
            "bias": bias,
            "logit_softcap": logit_softcap,
        }
        require_valid(hyperparameters)
        _require_integer("vocab_size", vocab_size, 1)
        if seed is not None:
            _require_integer("seed", seed, 0)
        self.arguments: dict[str, Any] = {"vocab_size": vocab_size, **hyperparameters}
        self.architecture = Architecture(
            d_model, n_heads, d_ff, dropout, position, norm, activation, qk_norm, bias
        )
        self.vocab_size, self.max_seq_len = vocab_size, max_seq_len
        self.n_heads, self.d_head = n_heads, self.architecture.d_head
        self.logit_softcap = logit_softcap
        self.sites = Sites()
        self._is_compiled = False
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = None
        if position == "learned":
            self.position_embedding = nn.Embedding(max_seq_len, d_model)
        self.embedding_dropout = Dropout(dropout, 0)
        self._embedding_site = self.sites.add("embedding", "(batch, time, d_model)")
        self.blocks = nn.ModuleList(
            Block(layer, self.architecture, self.sites) for layer in range(n_layers)
        )
        self.final_norm = _norm(self.architecture)
        self._final_norm_site = self.sites.add("final_norm", "(batch, time, d_model)")
        self.head = None if tie_embeddings else Linear(d_model, vocab_size, bias=False)
        self._logits_site = self.sites.add("logits", "(batch, time, vocab_size)")
        if seed is not None:
            self._initialise(seed)

    @torch.no_grad()
    def _initialise(self, seed: int) -> None:
        residual_std = _INITIAL_STD / math.sqrt(_WRITES_A_BLOCK * len(self.blocks))
        for index, (name, parameter) in enumerate(self.named_parameters()):
            if name.endswith(".bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1)
            else:
                std = residual_std if ".projection." in name else _INITIAL_STD
                generator = keyed_generator(seed, "initialisation", index)
                normal = generator.standard_normal(tuple(parameter.shape), dtype="float32")
                parameter.copy_(torch.from_numpy(normal).mul_(std))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.token_embedding.weight.device

    @property
    def head_weight(self) -> nn.Parameter:
        """The matrix of the output head, ``(vocab_size, d_model)``."""
        return (self.token_embedding if self.head is None else self.head).weight

    @property
    def n_parameters(self) -> int:
        """Number of trained values; a head that is the token embedding counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def compile_blocks(self, **options: Any) -> None:
        """Lets PyTorch compile each block before it is first used.

        Blocks are alike, so that this takes a fraction of the time that the whole model takes.

        Args:
            **options: Of ``torch.compile``.

        Raises:
            InputError: The model is on a CPU.
        """
        if self.device.type == "cpu":
            # Compiled loops of the lab work there, and products take the time anyway.
            raise InputError("compile: true is for a GPU; on a CPU, compile: false is as fast")
        for block in self.blocks:
            block.compile(**options)
        self._is_compiled = True

    def require_vocabulary(self, vocab_size: int) -> None:
        """Refuses a tokenizer that cannot be that of this model.

        Args:
            vocab_size: How many tokens the tokenizer has.

        Raises:
            InputError: The model has more, or fewer.
        """
        if vocab_size != self.vocab_size:
            sizes = f"the tokenizer has {vocab_size:,} tokens, and the model {self.vocab_size:,}"
            raise InputError(f"{sizes}: take the tokenizer that the model is made for")

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Takes weights by the names of the parameters, all of them, in their shapes and types.

        Raises:
            MachineError: They are not those of a model like this one.
        """
        own = self.state_dict()
        for name in sorted(own.keys() | weights.keys()):
            mine, theirs = own.get(name), weights.get(name)
            name = one_line(name)
            if mine is None or theirs is None:
                problem = "is missing" if theirs is None else "does not belong there"
                raise MachineError(f"the checkpoint does not fit the model: {name} {problem}")
            if (mine.shape, mine.dtype) != (theirs.shape, theirs.dtype):
                kinds = [f"{tuple(tensor.shape)} of {tensor.dtype}" for tensor in (theirs, mine)]
                message = f"{name} is {kinds[0]} instead of {kinds[1]}"
                raise MachineError(f"the checkpoint does not fit the model: {message}")
        self.load_state_dict({name: shared_like(weights[name], own[name]) for name in own})

    def new_cache(self, batch_size: int = 1, most_tokens: int | None = None) -> KeyValueCache:
        """An empty cache for generation with this model.

        Args:
            batch_size: Sequences.
            most_tokens: Tokens of each that it has room for; None: ``max_seq_len``, and never more.
        """
        n_tokens = min(most_tokens or self.max_seq_len, self.max_seq_len)
        shape = (batch_size, self.n_heads, n_tokens, self.d_head)
        return KeyValueCache(len(self.blocks), shape, self.token_embedding.weight.detach())

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode without gradients, and afterwards, whatever happens, the mode before."""
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            self.train(was_training)

    def forward(
        self,
        tokens: torch.Tensor,
        targets: torch.Tensor | None = None,
        *,
        key: StepKey | None = None,
        cache: KeyValueCache | None = None,
        dtype: torch.dtype | None = None,
        last_only: bool = False,
    ) -> torch.Tensor:
        """Logits, or the loss when given targets.

        Args:
            tokens: ``(batch, time)`` token ids.
            targets: ``(batch, time)`` token ids that should come next, or None.
            key: Where in the run's randomness this pass stands; needed in training mode.
            cache: Keys and values of the tokens before these. They are extended in place, and
                are of the weights' dtype.
            dtype: Of the matrix products and of what passes between them; the residual stream,
                norms and the loss keep that of the weights. None: that of the weights.
            last_only: Whether only the logits of the last token are wanted, ``time`` 1.

        Returns:
            Logits ``(batch, time, vocab_size)`` in that dtype, or the mean loss in nats per token,
            a scalar in the dtype of the weights.

        Raises:
            InputError: More tokens than ``max_seq_len``, ids that are none, or no key where one is
                needed.
        """
        n_before = 0 if cache is None else cache.n_tokens
        try:
            _, n_new = tokens.shape
        except (AttributeError, ValueError) as error:
            raise InputError(no_batch(tokens)) from error
        n_tokens = n_before + n_new
        if n_tokens > self.max_seq_len:
            raise InputError(f"{n_tokens} tokens are more than max_seq_len {self.max_seq_len}")
        own_dtype = self.token_embedding.weight.dtype
        context = ForwardContext(key, self.training, dtype or own_dtype)
        if key is not None and tokens.device.type != "cpu":
            seed_device(key, tokens.device)
            if self._is_compiled and not self.sites.have_hooks:
                # What is compiled would be compiled anew for each key.
                context = context._replace(key=None)
        try:
            x = self.token_embedding(tokens)
        except (IndexError, RuntimeError) as error:
            require_token_ids(tokens, self.vocab_size, error)
            raise
        if self.position_embedding is not None:
            positions = torch.arange(n_before, n_tokens, device=tokens.device)
            x = x + self.position_embedding(positions)
        x = self._embedding_site(self.embedding_dropout(x, context), context)
        for block in self.blocks:
            x = block(x, context, cache)
        if cache is not None:
            cache.n_tokens = n_tokens
        x = x[:, -1:] if last_only else x
        normed, _ = self.final_norm(x, own_dtype)
        x = self._final_norm_site(normed, context)
        logits = linear(x.to(context.dtype), self.head_weight)
        if self.logit_softcap is not None:
            ratio = logits.to(own_dtype) / self.logit_softcap
            logits = (self.logit_softcap * ratio.tanh()).to(context.dtype)
        logits = self._logits_site(logits, context)
        if targets is None:
            return logits
        try:
            return F.cross_entropy(logits.flatten(0, 1).to(own_dtype), targets.flatten())
        except IndexError as error:
            require_token_ids(targets, self.vocab_size, error)
            raise
