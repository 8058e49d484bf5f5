"""What a configuration costs: parameters, arithmetic, memory and disk, told without training.

Sums follow from the shapes of the model; what autograd keeps for backward is counted in a forward
pass on tensors without content, so that it stays right whatever the blocks do.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from lm_core.compute import DTYPES
from lm_core.config.hyperparameters import KEYS
from lm_core.config.table import gin_parameter
from lm_core.config.training_config import TrainingConfig
from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey
from lm_core.training.muon import NUMBERS_AT_ONCE

# Weights, gradients and the optimizer are in float32.
FLOAT32_BYTES = 4
# AdamW keeps two means for each parameter, Muon one.
_MEANS_OF_ADAMW, _MEANS_OF_MUON = 2, 1
# A mean with the gradient, the iterate and its products: copies of the matrices that Muon moves.
_COPIES_OF_MUON = 5
# A multiplication and an addition for each weight and token.
_FLOPS_A_WEIGHT = 2
# Backward makes two products of the size of each of forward's: for its weights and its inputs.
_PASSES = 3
# Attention multiplies queries by keys, and weights by values.
_PRODUCTS_OF_ATTENTION = 2
# The query, key, value and output matrices.
_MATRICES_OF_ATTENTION = 4
# The first step starts PyTorch's threads, and loads its kernels, Numba, and what that compiled.
_RUNTIME_BYTES = 120 * 2**20
# glibc's allocator keeps freed blocks and cannot always use them again: in
# benchmarks/memory_estimate.py mostly 0.1 to 0.5 of the activations.
_SHARE_OF_FRAGMENTS = 0.3


def parameters_by_part(config: TrainingConfig, vocab_size: int) -> dict[str, int]:
    """How many numbers each part of the model learns; told without building it.

    Args:
        config: The configuration.
        vocab_size: Number of different tokens.
    """
    d_model, d_ff, n_layers = config.d_model, config.d_ff, config.n_layers
    n_expansions = _expansions(config)
    bias = int(config.bias)
    # A scale for each place, and a shift only where there are biases.
    norm = d_model * (1 + (bias if config.norm == "layernorm" else 0))
    parts = {
        "token embedding, also the output head": vocab_size * d_model,
        "position embedding": config.max_seq_len * d_model,
        "attention": n_layers * _MATRICES_OF_ATTENTION * (d_model + bias) * d_model,
        "MLPs": n_layers
        * ((n_expansions + 1) * d_model * d_ff + bias * (n_expansions * d_ff + d_model)),
        "norms": (2 * n_layers + 1) * norm,
    }
    if config.position != "learned":
        del parts["position embedding"]
    if not config.tie_embeddings:
        n_values = parts.pop("token embedding, also the output head")
        parts = {"token embedding": n_values, **parts, "output head": n_values}
    return parts


def _expansions(config: TrainingConfig) -> int:
    """Matrices that lead to the hidden layer of an MLP."""
    return 2 if config.activation == "swiglu" else 1


def count_parameters(config: TrainingConfig, vocab_size: int) -> int:
    """How many numbers the model of a configuration learns; told without building it.

    Args:
        config: The configuration.
        vocab_size: Number of different tokens.
    """
    return sum(parameters_by_part(config, vocab_size).values())


def flops_a_step(config: TrainingConfig, vocab_size: int) -> int:
    """Floating-point operations of the matrix products of a training step, forward and backward.

    The counting of Chowdhery et al., "PaLM" (2022), appendix B: 6 for each weight of a matrix and
    token, and 12 x layers x width x length for each token in attention, with nothing taken off
    for the half that the causal mask leaves out.

    Args:
        config: The configuration.
        vocab_size: Number of different tokens.
    """
    d_model, n_layers = config.d_model, config.n_layers
    weights = n_layers * _weights_a_block(config) + vocab_size * d_model
    attention = n_layers * _PRODUCTS_OF_ATTENTION * d_model * config.max_seq_len
    n_tokens = config.batch_size * config.max_seq_len
    return _PASSES * _FLOPS_A_WEIGHT * n_tokens * (weights + attention)


def _values_of_a_move(config: TrainingConfig) -> int:
    """Numbers that the optimizer holds while it moves the weights."""
    if config.optimizer != "muon":
        return 0
    largest = config.d_model * max(config.d_model, config.d_ff)
    all_of_them = config.n_layers * _weights_a_block(config)
    return _COPIES_OF_MUON * max(largest, min(all_of_them, NUMBERS_AT_ONCE))


def _weights_a_block(config: TrainingConfig) -> int:
    """Numbers in the matrices of a block."""
    n_matrices = _expansions(config) + 1
    attention = _MATRICES_OF_ATTENTION * config.d_model**2
    return attention + n_matrices * config.d_model * config.d_ff


def activation_bytes(config: TrainingConfig, vocab_size: int) -> int:
    """Bytes that autograd keeps from forward to backward in a training step.

    A batch that is cut into parts keeps those of one part at a time. Blocks are alike and so are
    sequences, so a count for a few of each gives all. A batch of one is
    a case of its own: there, PyTorch takes views where it copies the parts of a larger one.

    Args:
        config: The configuration.
        vocab_size: Number of different tokens.
    """
    batch_size = config.batch_size // config.accumulation_steps
    few = min(batch_size, 2)
    count = {
        (layers, sequences): _count_activations(
            config.model_copy(update={"n_layers": 1 + layers, "batch_size": few + sequences}),
            vocab_size,
        )
        for layers, sequences in itertools.product((0, 1), repeat=2)
    }
    layers, sequences = config.n_layers - 1, batch_size - few
    a_layer = count[1, 0] - count[0, 0]
    a_sequence = count[0, 1] - count[0, 0]
    both = count[1, 1] - count[0, 0] - a_layer - a_sequence
    return count[0, 0] + layers * a_layer + sequences * a_sequence + layers * sequences * both


def _count_activations(config: TrainingConfig, vocab_size: int) -> int:
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True):
        model = _model_of(config, vocab_size)
        tokens = torch.zeros(config.batch_size, config.max_seq_len, dtype=torch.long)
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            # The loss holds what is kept, so that no two tensors in turn have one address.
            _loss = model(tokens, tokens, key=StepKey(0, 1), dtype=DTYPES.get(config.precision))
        parameters = {p.untyped_storage()._cdata for p in model.parameters()}
    return sum(n_bytes for address, n_bytes in kept.items() if address not in parameters)


def model_arguments(config: TrainingConfig) -> dict[str, Any]:
    """What ``Transformer`` takes of a configuration."""
    return {
        gin_parameter(key).partition(".")[2]: getattr(config, key)
        for key in KEYS
        if gin_parameter(key).startswith("Transformer.")
    }


def _model_of(config: TrainingConfig, vocab_size: int) -> Transformer:
    return Transformer(vocab_size, **model_arguments(config), seed=None)


def shapes_only(config: TrainingConfig, vocab_size: int) -> Transformer:
    """A model without content: its parts, names and shapes are those of the real one.

    Args:
        config: The configuration.
        vocab_size: Number of different tokens.
    """
    with without_content():
        return _model_of(config, vocab_size)


@contextlib.contextmanager
def without_content() -> Iterator[None]:
    """Lets the models that are built under it have parts, names and shapes, and no content."""
    # Fake tensors load PyTorch's compiler, and so do random numbers on the device without content;
    # that takes as long as importing PyTorch did.
    with torch.device("meta"), _Uninitialised():
        yield


class _Uninitialised(TorchFunctionMode):
    """Leaves out PyTorch's own initialisation of the modules that are built under it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Calls a function, unless it is one of ``torch.nn.init``."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class MemoryEstimate(NamedTuple):
    """Bytes that training holds at the moment when it holds most.

    Attributes:
        program: Python, PyTorch and the text, and what the first step loads.
        weights: The model.
        gradients: As many again.
        optimizer: The means that it keeps of gradients, what it computes with, and the average of
            the weights.
        activations: What autograd keeps from forward to backward.
        fragments: What the C library's allocator holds and cannot use.
    """

    program: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    fragments: int

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return sum(self)


def estimate_memory(config: TrainingConfig, vocab_size: int, program: int) -> MemoryEstimate:
    """The peak of the memory of a training run on a CPU.

    Args:
        config: The configuration.
        vocab_size: Number of different tokens.
        program: Bytes that the process holds before the model is built.
    """
    weights = FLOAT32_BYTES * count_parameters(config, vocab_size)
    n_optimizer_values = optimizer_values(config, vocab_size) + _values_of_a_move(config)
    activations = activation_bytes(config, vocab_size)
    return MemoryEstimate(
        program=program + _RUNTIME_BYTES,
        weights=weights,
        gradients=weights,
        optimizer=FLOAT32_BYTES * n_optimizer_values,
        activations=activations,
        fragments=round(_SHARE_OF_FRAGMENTS * activations),
    )


def checkpoint_bytes(config: TrainingConfig, vocab_size: int) -> int:
    """Bytes of a checkpoint on disk: weights, means and averages, without a few kilobytes of names.

    Args:
        config: The configuration.
        vocab_size: Number of different tokens.
    """
    n_values = count_parameters(config, vocab_size) + optimizer_values(config, vocab_size)
    return FLOAT32_BYTES * n_values


def optimizer_values(config: TrainingConfig, vocab_size: int) -> int:
    """Numbers that are kept beside the weights: means of gradients, and averages of weights.

    Args:
        config: The configuration.
        vocab_size: Number of different tokens.
    """
    n_values = _MEANS_OF_ADAMW * count_parameters(config, vocab_size)
    if config.optimizer == "muon":
        n_hidden = config.n_layers * _weights_a_block(config)
        n_values -= (_MEANS_OF_ADAMW - _MEANS_OF_MUON) * n_hidden
    if config.ema_decay is not None:
        n_values += count_parameters(config, vocab_size)
    return n_values
