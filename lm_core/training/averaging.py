"""The average of a model's weights over the steps of a run."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from lm_core.parallel.shards import own_share, shared_like


class WeightAverage:
    """An exponential average of the weights after each step.

    After step ``t`` the weights of step ``s`` have the share ``decay**(t - s) (1 - decay) / (1 -
    decay**t)``: the initial weights have none, as the means of Adam are corrected (Kingma and Ba
    2015, section 7.2, "Temporal averaging").

    Args:
        model: Its parameters are averaged, each in its own dtype.
        decay: What a step leaves of the share of those before, above 0 and below 1.

    Attributes:
        weights: The averages by the names of the parameters.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._parameters = dict(model.named_parameters())
        self._decay = decay
        self.weights = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def take(self, step: int, is_off: torch.Tensor | None = None) -> None:
        """Takes the weights after a step into the average.

        Args:
            step: The step, counted from 1.
            is_off: A scalar on the weights' device; where it is true, nothing changes. Nobody
                waits for it. None: false.
        """
        share = (1 - self._decay) / (1 - self._decay**step)
        parameters = [own_share(p.detach()) for p in self._parameters.values()]
        averages = [own_share(average) for average in self.weights.values()]
        if is_off is None:
            torch._foreach_lerp_(averages, parameters, share)
            return
        weight = torch.where(is_off, 0.0, share)
        for average, parameter in zip(averages, parameters, strict=True):
            average.lerp_(parameter, weight)

    @contextlib.contextmanager
    def in_place_of_weights(self) -> Iterator[None]:
        """Gives the model its averages, and afterwards, whatever happens, its weights again."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        # Number by number: engines that train in several processes know parameters by their memory.
        for name, parameter in self._parameters.items():
            weight = parameter.clone()
            parameter.copy_(self.weights[name])
            self.weights[name].copy_(weight)

    @torch.no_grad()
    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Takes averages by the names of the parameters, all of them, in their shapes."""
        for name, average in self.weights.items():
            average.copy_(shared_like(weights[name], average))
