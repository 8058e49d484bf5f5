"""The optimizer of a run: which parameters are updated how, and its state as named tensors."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from lm_core.errors import MachineError
from lm_core.model.linear import Linear
from lm_core.parallel.shards import shared_like
from lm_core.training.adamw import STEP, AdamW
from lm_core.training.muon import Matrix, Muon

# Parameters of at least this many dimensions are matrices.
_MATRIX_DIMENSIONS = 2
# Norms, biases and embeddings are not pulled towards zero: there, size means something, and the
# embedding of a rare token would shrink in all the steps that do not see it.
_NO_DECAY = 0.0
# The factor of learning rates that no schedule lowers.
_WHOLE = 1.0
# The matrices between embedding and head, by the names of their parameters.
_HIDDEN = "blocks."


class OptimizerSettings(NamedTuple):
    """What the optimizer does with gradients.

    Attributes:
        name: ``adamw`` for all parameters, or ``muon`` for the matrices of the blocks and AdamW for
            all others.
        learning_rate: Step size of AdamW.
        weight_decay: Decoupled weight decay of the matrices.
        beta1: AdamW's decay of the mean of the gradient.
        beta2: AdamW's decay of the mean of the squared gradient.
        muon_learning_rate: Step size of Muon.
        muon_momentum: Muon's decay of the mean of the gradient.
    """

    name: str
    learning_rate: float
    weight_decay: float
    beta1: float
    beta2: float
    muon_learning_rate: float
    muon_momentum: float


class Optimizer:
    """Updates every parameter of a model by one of its parts.

    Args:
        adamw: Updates some parameters, or all.
        muon: Updates the others, if there are any.
    """

    def __init__(self, adamw: AdamW, muon: Muon | None = None) -> None:
        self._parts = (adamw,) if muon is None else (adamw, muon)

    def learning_rates(self, factor: float = _WHOLE) -> dict[str, float]:
        """The step sizes, times a factor, by the names of their hyperparameters."""
        names = ("learning_rate", "muon_learning_rate")
        pairs = zip(names, self._parts, strict=False)
        return {name: part.learning_rate * factor for name, part in pairs}

    def step(self, factor: float = _WHOLE, is_off: torch.Tensor | None = None) -> None:
        """Updates the parameters that have a gradient.

        Args:
            factor: Learning rates are multiplied by it.
            is_off: A scalar on their device; where it is true, nothing changes. Nobody waits for
                it. None: false.
        """
        for part in self._parts:
            part.step(factor, is_off)

    def forget_gradients(self) -> None:
        """Takes the gradients of all parameters away."""
        for part in self._parts:
            for parameter in part.parameters:
                parameter.grad = None

    def part_of(self, parameter: nn.Parameter) -> AdamW | Muon:
        """The part that updates a parameter."""
        (part,) = (part for part in self._parts if any(p is parameter for p in part.parameters))
        return part

    def state_of(self, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
        """What is kept for a parameter, by kind: nothing, if it was never updated."""
        return self.part_of(parameter).state.get(parameter, {})


def build_optimizer(model: nn.Module, settings: OptimizerSettings, dtype: torch.dtype) -> Optimizer:
    """The optimizer of a model's parameters.

    Matrices are decayed; norms, biases and embeddings are not. AdamW's numerical epsilon is 1e-8.

    Args:
        model: Its parameters are updated.
        settings: How.
        dtype: Of products that Muon makes.
    """
    n_parts = {
        module.weight: module.n_parts for module in model.modules() if isinstance(module, Linear)
    }
    hidden, decayed, plain = [], [], []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() >= _MATRIX_DIMENSIONS and "embedding" not in name
        if is_matrix and settings.name == "muon" and name.startswith(_HIDDEN):
            hidden.append(Matrix(parameter, n_parts[parameter]))
        else:
            (decayed if is_matrix else plain).append(parameter)
    decays = [(decayed, settings.weight_decay), (plain, _NO_DECAY)]
    adamw = AdamW(decays, settings.learning_rate, settings.beta1, settings.beta2)
    if not hidden:
        return Optimizer(adamw)
    rate, momentum = settings.muon_learning_rate, settings.muon_momentum
    return Optimizer(adamw, Muon(hidden, rate, momentum, settings.weight_decay, dtype))


def optimizer_tensors(optimizer: Optimizer, model: nn.Module) -> dict[str, torch.Tensor]:
    """The optimizer's state by parameter and kind, such as ``final_norm.bias/exp_avg``."""
    return {
        f"{name}/{kind}": tensor
        for name, parameter in model.named_parameters()
        for kind, tensor in optimizer.state_of(parameter).items()
    }


def load_optimizer_tensors(
    optimizer: Optimizer, model: nn.Module, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Gives the optimizer the state that ``optimizer_tensors`` took from it.

    Raises:
        MachineError: The tensors do not belong to this model's parameters, or a parameter has
            only a part of its state. One that was never updated has none.
    """
    parameters = dict(model.named_parameters())
    for parameter in parameters.values():
        optimizer.part_of(parameter).state.pop(parameter, None)
    for path, tensor in tensors.items():
        name, _, kind = path.rpartition("/")
        parameter = parameters.get(name)
        # The step is a plain number, everything else stands beside the weights one by one.
        shape = () if kind == STEP or parameter is None else parameter.shape
        if parameter is None or tensor.shape != shape or tensor.dtype != torch.float32:
            raise MachineError(f"the checkpoint's optimizer state {path!r} fits no parameter")
        if kind == STEP and not (float(tensor) >= 0 and float(tensor).is_integer()):
            raise MachineError(f"the checkpoint's optimizer state {path!r} is {float(tensor)}")
        state = optimizer.part_of(parameter).state[parameter]
        like = torch.empty((), device=parameter.device) if kind == STEP else parameter.detach()
        state[kind] = shared_like(tensor, like).clone()
    for name, parameter in parameters.items():
        state, part = optimizer.state_of(parameter), optimizer.part_of(parameter)
        if state and set(state) != part.kinds_of_state:
            has = ", ".join(sorted(state))
            raise MachineError(f"the checkpoint's optimizer state of {name} is not whole: {has}")
