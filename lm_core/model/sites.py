"""Named places in the model where forward hooks may look at activations or replace them."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from lm_core.randomness import StepKey


class ForwardContext(NamedTuple):
    """What a forward pass knows about itself, handed to dropout and to the hooks.

    Attributes:
        key: Where in the run's randomness the pass stands; None outside training.
        training: Whether the model is in training mode.
        dtype: What matrix products are computed in.
    """

    key: StepKey | None
    training: bool
    dtype: torch.dtype = torch.float32


SiteHook = Callable[["Site", torch.Tensor, ForwardContext], torch.Tensor | None]


class Site:
    """One named place in the model.

    Args:
        name: Its name, such as ``blocks.0.mlp``.
        index: Its number in the model; keys the random numbers that a hook draws here.
        shape: The shape of what passes here, in words, such as ``(batch, time, d_model)``.
    """

    def __init__(self, name: str, index: int, shape: str) -> None:
        self.name = name
        self.index = index
        self.shape = shape
        self.hooks: list[SiteHook] = []

    def __call__(self, activations: torch.Tensor, context: ForwardContext) -> torch.Tensor:
        """Shows the activations to each hook in turn; what a hook returns takes their place."""
        for hook in self.hooks:
            replacement = hook(self, activations, context)
            if replacement is not None:
                activations = replacement
        return activations


class Sites:
    """All sites of a model by name, in the order of the forward pass."""

    def __init__(self) -> None:
        self._by_name: dict[str, Site] = {}

    def add(self, name: str, shape: str) -> Site:
        """Makes the next site."""
        site = Site(name, len(self._by_name), shape)
        self._by_name[name] = site
        return site

    def __getitem__(self, name: str) -> Site:
        return self._by_name[name]

    @property
    def have_hooks(self) -> bool:
        """Whether there is a hook at any site."""
        return any(site.hooks for site in self._by_name.values())

    def names(self) -> list[str]:
        """The names of all sites."""
        return list(self._by_name)
