"""From a checkpoint back to what can be trained, evaluated and sampled from."""

from typing import Any

import torch

from lm_core.config.training_config import TrainingConfig
from lm_core.costs import count_parameters
from lm_core.data.tokenizer import Tokenizer, tokenizer_from_dict
from lm_core.errors import InputError, MachineError, shown
from lm_core.hooks import Hooks
from lm_core.model.transformer import Transformer
from lm_core.training.checkpoint import Checkpoint
from lm_core.training.optimizer import load_optimizer_tensors
from lm_core.training.run_state import RunState


def restore_training(
    checkpoint: Checkpoint,
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    hooks: Hooks,
    **parts: Any,
) -> RunState:
    """Gives everything that is trained the state that a checkpoint has of it.

    Args:
        checkpoint: The checkpoint.
        model: Takes its weights.
        optimizer: Takes its state.
        hooks: Take theirs.
        **parts: What else has to be as it was, by its name in the checkpoint's state; the model's
            arguments are looked at in any case.

    Returns:
        What the run knew beside its tensors.

    Raises:
        InputError: The checkpoint is of another seed, model or tokenizer; tells what differs.
        MachineError: Its tensors do not fit, or it holds what cannot be.
    """
    differences = [
        f"{name}: {shown(checkpoint.state.get(name))} in the checkpoint, {shown(value)} now"
        for name, value in {**parts, "model": model.arguments}.items()
        if checkpoint.state.get(name) != value
    ]
    if differences:
        lines = "\n  ".join(differences)
        message = f"the checkpoint of step {checkpoint.step} is of another experiment"
        raise InputError(f"{message}:\n  {lines}")
    state = RunState.from_json(checkpoint.state, checkpoint.step)
    model.load(checkpoint.model)
    load_optimizer_tensors(optimizer, model, checkpoint.optimizer)
    hooks.load_state(checkpoint.hooks)
    return state


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
        model = Transformer(**arguments, seed=None)
        model.load(checkpoint.model)
        tokenizer = tokenizer_from_dict(checkpoint.state["tokenizer"])
        if tokenizer.vocab_size != model.vocab_size:
            raise ValueError(f"its {tokenizer.kind} tokenizer does not fit its model")
    except MachineError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        words = " ".join(str(error).split())
        raise MachineError(f"step {checkpoint.step}: no checkpoint of this lab: {words}") from error
    return model, tokenizer
