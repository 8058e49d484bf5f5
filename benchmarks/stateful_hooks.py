"""Hooks that keep a state and change what is learned: what a resume must not lose."""

from collections.abc import Mapping

import torch

from lm_core.hooks import (
    ForwardContext,
    ForwardHook,
    Site,
    StepKey,
    UpdateHook,
    forward_hook,
    update_hook,
)


@update_hook("faults_running_mean")
class RunningMean(UpdateHook):
    """Learns from a running mean of updates."""

    def __init__(self) -> None:
        self.mean: dict[str, torch.Tensor] = {}

    def on_updates(
        self, updates: Mapping[str, torch.Tensor], key: StepKey
    ) -> dict[str, torch.Tensor]:
        """Half of each update, and half of the mean of it and those before."""
        for name, update in updates.items():
            self.mean[name] = 0.5 * self.mean.get(name, torch.zeros_like(update)) + 0.5 * update
        return {name: 0.5 * updates[name] + 0.5 * self.mean[name] for name in updates}

    def state(self) -> dict[str, torch.Tensor]:
        """The means."""
        return dict(self.mean)

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes the means back."""
        self.mean = {name: tensor.clone() for name, tensor in state.items()}


@forward_hook("faults_counts_looks")
class CountsLooks(ForwardHook):
    """Lets every batch that is evaluated, and every token that is sampled, change training."""

    in_evaluation = True

    def __init__(self) -> None:
        self.n_looks = torch.zeros(())

    def on_activations(
        self, site: Site, activations: torch.Tensor, context: ForwardContext
    ) -> torch.Tensor | None:
        """Counts outside training, and adds a little for each count in training."""
        if context.training:
            return activations + 1e-4 * self.n_looks
        self.n_looks = self.n_looks + 1
        return None

    def state(self) -> dict[str, torch.Tensor]:
        """The count."""
        return {"n_looks": self.n_looks}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes the count back."""
        self.n_looks = state["n_looks"].clone()
