"""AdamW, and its state as named tensors."""

from collections import defaultdict
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
# By how much a step moves the count of a parameter's updates.
_ONE_UPDATE = 1
# Under these names AdamW keeps how often a parameter was updated, and its two means.
_STEP, _MEAN, _MEAN_OF_SQUARES = "step", "exp_avg", "exp_avg_sq"
# What AdamW keeps for a parameter.
_KINDS_OF_STATE = {_STEP, _MEAN, _MEAN_OF_SQUARES}


class AdamW:
    """AdamW (Loshchilov and Hutter 2019) by PyTorch's fused kernel.

    ``torch.optim.AdamW`` with ``fused=True`` leaves the same bits, by the same kernel. But to build
    it loads PyTorch's compiler, used or not, and that takes as long as importing PyTorch did.

    Args:
        decays: The parameters in groups, each with its decoupled weight decay. They are float32,
            on one device.
        learning_rate: Step size.
        beta1: Decay of the mean of the gradient.
        beta2: Decay of the mean of the squared gradient.

    Attributes:
        state: What is kept for each parameter that was ever updated, by kind.
    """

    def __init__(
        self,
        decays: list[tuple[list[nn.Parameter], float]],
        learning_rate: float,
        beta1: float,
        beta2: float,
    ) -> None:
        self._decays = decays
        self._learning_rate, self._beta1, self._beta2 = learning_rate, beta1, beta2
        self.state: dict[nn.Parameter, dict[str, torch.Tensor]] = defaultdict(dict)

    @torch.no_grad()
    def step(self, is_off: torch.Tensor | None = None) -> None:
        """Updates the parameters that have a gradient.

        Args:
            is_off: A scalar on their device; where it is true, nothing changes. Nobody waits for
                it. None: false.
        """
        off = None if is_off is None else is_off.float()
        for parameters, weight_decay in self._decays:
            updated = [p for p in parameters if p.grad is not None]
            if not updated:
                continue
            states = [self._state_of(parameter) for parameter in updated]
            steps = [state[_STEP] for state in states]
            torch._foreach_add_(steps, _ONE_UPDATE)
            torch._fused_adamw_(
                updated,
                [parameter.grad for parameter in updated],
                [state[_MEAN] for state in states],
                [state[_MEAN_OF_SQUARES] for state in states],
                [],
                steps,
                lr=self._learning_rate,
                beta1=self._beta1,
                beta2=self._beta2,
                weight_decay=weight_decay,
                eps=_EPSILON,
                amsgrad=False,
                maximize=False,
                found_inf=off,
            )
            if off is not None:
                torch._foreach_sub_(steps, [off] * len(steps))

    def _state_of(self, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
        state = self.state[parameter]
        if not state:
            state[_STEP] = torch.zeros((), device=parameter.device)
            state[_MEAN] = torch.zeros_like(parameter)
            state[_MEAN_OF_SQUARES] = torch.zeros_like(parameter)
        return state

    def forget_gradients(self) -> None:
        """Takes the gradients of all parameters away."""
        for parameters, _ in self._decays:
            for parameter in parameters:
                parameter.grad = None


def build_adamw(
    model: nn.Module, learning_rate: float, weight_decay: float, beta1: float, beta2: float
) -> AdamW:
    """AdamW with decay on matrices only.

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
    decays = [(decayed, weight_decay), (plain, _NO_DECAY)]
    return AdamW(decays, learning_rate, beta1, beta2)


def optimizer_tensors(optimizer: AdamW, model: nn.Module) -> dict[str, torch.Tensor]:
    """The optimizer's state by parameter and kind, such as ``final_norm.bias/exp_avg``."""
    return {
        f"{name}/{kind}": tensor
        for name, parameter in model.named_parameters()
        for kind, tensor in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    optimizer: AdamW, model: nn.Module, tensors: Mapping[str, torch.Tensor]
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
