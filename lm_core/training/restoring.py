"""From a checkpoint back to what can be trained, evaluated and sampled from."""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError

from lm_core.config.training_config import TrainingConfig
from lm_core.costs import count_parameters, model_arguments, without_content
from lm_core.data.tokenizer import Tokenizer, tokenizer_from_dict
from lm_core.errors import InputError, LabError, MachineError, shown
from lm_core.model.transformer import Transformer
from lm_core.training.checkpoint import Checkpoint
from lm_core.training.run_state import RunState
from lm_core.training.trained import Trained

# All blocks of a model have the same weights, under names that begin with their own.
_FIRST_BLOCK = "blocks.0."
# A model with a single block shows the shapes of all.
_ONE_BLOCK = 1


def restore_training(
    checkpoint: Checkpoint, trained: Trained, max_steps: int, **parts: Any
) -> RunState:
    """Gives everything that is trained the state that a checkpoint has of it.

    Args:
        checkpoint: The checkpoint.
        trained: Takes it.
        max_steps: The last step that is to be done.
        **parts: What else has to be as it was, by its name in the checkpoint's state; the model's
            arguments are looked at in any case.

    Returns:
        What the run knew beside its tensors.

    Raises:
        InputError: The checkpoint is past the last step, or of another seed, model or tokenizer;
            tells what differs.
        MachineError: Its tensors do not fit, or it holds what cannot be.
    """
    if checkpoint.step > max_steps:
        raise InputError(
            f"the run is at step {checkpoint.step} already, past max_steps {max_steps}; "
            "a larger --max_steps goes on with it"
        )
    model = trained.model
    where = checkpoint.path or f"the checkpoint of step {checkpoint.step}"
    differences = [
        line
        for name, value in {**parts, "model": model.arguments}.items()
        for line in _differences(name, _stored(name, checkpoint), value)
    ]
    if differences:
        lines = "\n  ".join(differences)
        raise InputError(f"{where} is of another experiment:\n  {lines}")
    try:
        state = RunState.from_json(checkpoint.state, checkpoint.step)
        trained.load(checkpoint.model, checkpoint.optimizer)
    except MachineError as error:
        raise MachineError(f"{where}: {error.message}; move it away to do without it") from error
    if checkpoint.step:
        # Before the first step, hooks are as they are made, and nothing of them was saved.
        trained.hooks.load_state(checkpoint.hooks)
    return state


def _stored(name: str, checkpoint: Checkpoint) -> Any:
    """A part of a checkpoint's state; a model's arguments that it lacks have their defaults."""
    stored = checkpoint.state.get(name)
    if name == "model" and isinstance(stored, Mapping):
        return {**model_arguments(TrainingConfig()), **stored}
    return stored


def _differences(name: str, then: Any, now: Any) -> list[str]:
    """A line for each part of a value that is another one."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*now, *then])
        return [
            line
            for key in keys
            for line in _differences(f"{name}.{key}", then.get(key), now.get(key))
        ]
    if then == now:
        return []
    return [f"{name}: {shown(then)} in the checkpoint, {shown(now)} now"]


def restored_model(checkpoint: Checkpoint) -> tuple[Transformer, Tokenizer]:
    """The model and tokenizer of a checkpoint, as they are stored there and nowhere else.

    Raises:
        MachineError: It holds no such thing. A model that is larger than its weights is not built.
    """
    try:
        arguments = dict(checkpoint.state["model"])
        sizes = {name: value for name, value in arguments.items() if name != "vocab_size"}
        if type(arguments["vocab_size"]) is not int:
            raise ValueError("its vocab_size is no integer")
        n_stored = sum(tensor.numel() for tensor in checkpoint.model.values())
        n_needed = count_parameters(TrainingConfig(**sizes), arguments["vocab_size"])
        if n_needed != n_stored:
            raise ValueError(f"{n_stored:,} weights for a model of {n_needed:,}")
        _require_weights(checkpoint.model, arguments)
        model = Transformer(**arguments, seed=None)
        model.load(checkpoint.model)
        tokenizer = tokenizer_from_dict(checkpoint.state["tokenizer"])
        if tokenizer.vocab_size != model.vocab_size:
            raise ValueError(f"its {tokenizer.kind} tokenizer does not fit its model")
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        words = _words(error)
        lacks = "it lacks " if isinstance(error, KeyError) else ""
        where = checkpoint.path or f"step {checkpoint.step}"
        raise MachineError(f"{where} is no checkpoint of this lab: {lacks}{words}") from error
    return model, tokenizer


def _words(error: Exception) -> str:
    """The sentence of an error, whoever raised it."""
    if isinstance(error, LabError):
        return error.message
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return " ".join(str(error).split())


def _require_weights(weights: Mapping[str, torch.Tensor], arguments: Mapping[str, Any]) -> None:
    """Refuses weights that are not those of a model before it is built, which takes memory.

    Raises:
        ValueError: A tensor is missing, too many, or of another shape or type.
    """
    with without_content():
        model = Transformer(**{**arguments, "n_layers": _ONE_BLOCK}, seed=None)
    needed = model.state_dict()
    block = {name: needed.pop(name) for name in list(needed) if name.startswith(_FIRST_BLOCK)}
    n_needed = len(needed) + arguments["n_layers"] * len(block)
    if len(weights) != n_needed:
        raise ValueError(f"{len(weights):,} tensors of weights for a model of {n_needed:,}")
    for layer in range(arguments["n_layers"]):
        for name, tensor in block.items():
            needed[f"blocks.{layer}.{name.removeprefix(_FIRST_BLOCK)}"] = tensor
    for name, tensor in needed.items():
        stored = weights.get(name)
        if stored is None or (stored.shape, stored.dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(f"{name} is not what the model has under that name")
