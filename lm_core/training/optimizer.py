"""AdamW, and its state as named tensors."""

from collections.abc import Mapping

import torch
from torch import nn

from lm_core.errors import MachineError

# Parameters of at least this many dimensions are matrices.
_MATRIX_DIMENSIONS = 2
# PyTorch's default, and the value of Kingma and Ba, "Adam" (2015): keeps the division by a mean of
# zero finite.
_EPSILON = 1e-8
# Norms, biases and embeddings are not pulled towards zero: there, size means something, and the
# embedding of a rare token would shrink in all the steps that do not see it.
_NO_DECAY = 0.0
# Under this name AdamW keeps how often a parameter was updated.
_STEP = "step"
# What AdamW keeps for a parameter.
_KINDS_OF_STATE = {_STEP, "exp_avg", "exp_avg_sq"}


def build_adamw(
    model: nn.Module, learning_rate: float, weight_decay: float, beta1: float, beta2: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) with decay on matrices only.

    Norms, biases and embeddings are not decayed. The numerical epsilon is 1e-8.

    Args:
        model: Its parameters are updated.
        learning_rate: Step size.
        weight_decay: Decoupled weight decay of the matrices.
        beta1: Decay of the mean of the gradient.
        beta2: Decay of the mean of the squared gradient.
    """
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() >= _MATRIX_DIMENSIONS and "embedding" not in name
        (decayed if is_matrix else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": _NO_DECAY},
    ]
    return torch.optim.AdamW(
        groups, lr=learning_rate, betas=(beta1, beta2), eps=_EPSILON, fused=True
    )


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module
) -> dict[str, torch.Tensor]:
    """The optimizer's state by parameter and kind, such as ``final_norm.bias/exp_avg``."""
    return {
        f"{name}/{kind}": tensor
        for name, parameter in model.named_parameters()
        for kind, tensor in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Gives the optimizer the state that ``optimizer_tensors`` took from it.

    Raises:
        MachineError: The tensors do not belong to this model's parameters, or a parameter has
            only a part of its state. One that was never updated has none.
    """
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for path, tensor in tensors.items():
        name, _, kind = path.rpartition("/")
        parameter = parameters.get(name)
        # The step is a plain number, everything else stands beside the weights one by one.
        shape = () if kind == _STEP or parameter is None else parameter.shape
        if parameter is None or tensor.shape != shape or tensor.dtype != torch.float32:
            raise MachineError(f"the checkpoint's optimizer state {path!r} fits no parameter")
        if kind == _STEP and not (float(tensor) >= 0 and float(tensor).is_integer()):
            raise MachineError(f"the checkpoint's optimizer state {path!r} is {float(tensor)}")
        state = optimizer.state[parameter]
        state[kind] = tensor.to(parameter.device).clone()
    for name, parameter in parameters.items():
        if (state := optimizer.state.get(parameter)) and set(state) != _KINDS_OF_STATE:
            has = ", ".join(sorted(state))
            raise MachineError(f"the checkpoint's optimizer state of {name} is not whole: {has}")
