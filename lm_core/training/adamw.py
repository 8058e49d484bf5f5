"""AdamW by PyTorch's fused kernel."""

from collections import defaultdict

import torch
from torch import nn

from lm_core.parallel.shards import own_share

# PyTorch's default, and the value of Kingma and Ba, "Adam" (2015): keeps the division by a mean of
# zero finite.
_EPSILON = 1e-8
# By how much a step moves the count of a parameter's updates.
_ONE_UPDATE = 1
# Under these names AdamW keeps how often a parameter was updated, and its two means.
STEP, _MEAN, _MEAN_OF_SQUARES = "step", "exp_avg", "exp_avg_sq"


class AdamW:
    """AdamW (Loshchilov and Hutter 2019) by PyTorch's fused kernel.

    ``torch.optim.AdamW`` with ``fused=True`` leaves the same bits, by the same kernel. But to build
    it loads PyTorch's compiler, used or not, and that takes as long as importing PyTorch did.

    Args:
        decays: The parameters in groups, each with its decoupled weight decay. They are float32,
            on one device; of those that are sharded, each process updates its share.
        learning_rate: Step size.
        beta1: Decay of the mean of the gradient.
        beta2: Decay of the mean of the squared gradient.

    Attributes:
        learning_rate: As given.
        state: What is kept for each parameter that was ever updated, by kind.
    """

    kinds_of_state = frozenset({STEP, _MEAN, _MEAN_OF_SQUARES})

    def __init__(
        self,
        decays: list[tuple[list[nn.Parameter], float]],
        learning_rate: float,
        beta1: float,
        beta2: float,
    ) -> None:
        self._decays = decays
        self.learning_rate, self._beta1, self._beta2 = learning_rate, beta1, beta2
        self.state: dict[nn.Parameter, dict[str, torch.Tensor]] = defaultdict(dict)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What it updates."""
        return [parameter for parameters, _ in self._decays for parameter in parameters]

    @torch.no_grad()
    def step(self, factor: float, is_off: torch.Tensor | None = None) -> None:
        """Updates the parameters that have a gradient.

        Args:
            factor: The learning rate is multiplied by it.
            is_off: A scalar on their device; where it is true, nothing changes. Nobody waits for
                it. None: false.
        """
        off = None if is_off is None else is_off.float()
        for parameters, weight_decay in self._decays:
            updated = [p for p in parameters if p.grad is not None]
            if not updated:
                continue
            states = [self._state_of(parameter) for parameter in updated]
            steps = [state[STEP] for state in states]
            torch._foreach_add_(steps, _ONE_UPDATE)
            torch._fused_adamw_(
                [own_share(parameter.detach()) for parameter in updated],
                [own_share(parameter.grad) for parameter in updated],
                [own_share(state[_MEAN]) for state in states],
                [own_share(state[_MEAN_OF_SQUARES]) for state in states],
                [],
                steps,
                lr=self.learning_rate * factor,
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
            state[STEP] = torch.zeros((), device=parameter.device)
            state[_MEAN] = torch.zeros_like(parameter)
            state[_MEAN_OF_SQUARES] = torch.zeros_like(parameter)
        return state
