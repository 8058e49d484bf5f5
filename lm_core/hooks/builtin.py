"""Hooks that are ready to use."""

import re
from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field

from lm_core.errors import InputError
from lm_core.hooks.registry import (
    Cadence,
    ForwardHook,
    Pattern,
    UpdateHook,
    forward_hook,
    update_hook,
)
from lm_core.model.sites import ForwardContext, Site
from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey, keyed_generator

Index = Annotated[int, Field(ge=0)]


# Sites and parameters are fewer than two to this power.
_INDEX_BITS = 32


def _place(entry: int, index: int) -> int:
    """One number for a site or parameter and the entry of the table that works on it."""
    return entry << _INDEX_BITS | index


def _due(key: StepKey | None, every: int) -> bool:
    return key is not None and key.step % every == 0


@forward_hook("activation_stats")
class ActivationStats(ForwardHook):
    """Reports mean, standard deviation, largest magnitude and share of zeros at each site.

    Args:
        every: Steps from one report to the next.
    """

    def __init__(self, every: Cadence = 100) -> None:
        self.every = every

    @torch.no_grad()
    def on_activations(
        self, site: Site, activations: torch.Tensor, context: ForwardContext
    ) -> None:
        """Reports ``activation/SITE/mean``, ``.../std``, ``.../largest`` and ``.../zeros``."""
        if not _due(context.key, self.every):
            return
        values = activations.float()
        self.report(f"activation/{site.name}/mean", values.mean())
        self.report(f"activation/{site.name}/std", values.std(correction=0))
        self.report(f"activation/{site.name}/largest", values.abs().max())
        self.report(f"activation/{site.name}/zeros", (values == 0).float().mean())


@forward_hook("activation_noise")
class ActivationNoise(ForwardHook):
    """Adds independent normal noise in training.

    Args:
        std: Standard deviation of the noise.
    """

    def __init__(self, std: Annotated[float, Field(ge=0)]) -> None:
        self.std = std

    def on_activations(
        self, site: Site, activations: torch.Tensor, context: ForwardContext
    ) -> torch.Tensor:
        """Noise keyed by seed, step, entry of the table, site and sequence."""
        if context.key is None:
            raise InputError("activation_noise needs a key: model(tokens, key=StepKey(seed, step))")
        seed, step, first = context.key
        noise = torch.empty(activations.shape)
        place = _place(self.index, site.index)
        for i in range(len(activations)):
            generator = keyed_generator(seed, "activation_noise", step, place, first + i)
            normal = generator.standard_normal(tuple(activations.shape[1:]), dtype="float32")
            noise[i] = torch.from_numpy(normal)
        return activations + (noise * self.std).to(activations)


@forward_hook("ablate_heads")
class AblateHeads(ForwardHook):
    """Sets the output of attention heads to zero, in training, evaluation and sampling.

    It works on the sites ``blocks.N.attention.heads``; choose layers with ``sites``.

    Args:
        heads: Indices of the heads, counted from 0.
    """

    works_on = r"blocks\.\d+\.attention\.heads"
    in_evaluation = True

    def __init__(self, heads: Annotated[list[Index], Field(min_length=1)]) -> None:
        self.heads = heads

    def prepare(self, model: Transformer) -> None:
        """Checks that the heads exist."""
        if max(self.heads) >= model.n_heads:
            known = f"there are heads 0 to {model.n_heads - 1}"
            raise InputError(f"heads: the model has no head {max(self.heads)} ({known})")

    def on_activations(
        self, site: Site, activations: torch.Tensor, context: ForwardContext
    ) -> torch.Tensor:
        """Zeroes heads in ``(batch, time, n_heads, d_head)``."""
        kept = activations.new_ones(activations.shape[2])
        kept[self.heads] = 0
        return activations * kept[:, None]


@update_hook("identity")
class Identity(UpdateHook):
    """Changes nothing; the smallest example, and a measure of what a hook costs."""

    def on_gradients(self, gradients: Mapping[str, torch.Tensor], key: StepKey) -> None:
        """Returns nothing, so that nothing changes."""

    def on_updates(self, updates: Mapping[str, torch.Tensor], key: StepKey) -> None:
        """Returns nothing, so that nothing changes."""


@update_hook("gradient_stats")
class GradientStats(UpdateHook):
    """Reports the norm and the largest magnitude of each parameter's gradient.

    Args:
        every: Steps from one report to the next.
        parameters: Names of parameters to report.
    """

    def __init__(self, every: Cadence = 100, parameters: Pattern = ".*") -> None:
        self.every = every
        self.parameters = parameters

    def prepare(self, model: Transformer) -> None:
        """Finds the parameters."""
        self.names = _matching(self.parameters, model)

    def on_gradients(self, gradients: Mapping[str, torch.Tensor], key: StepKey) -> None:
        """Reports ``gradient/PARAMETER/norm`` and ``gradient/PARAMETER/largest``."""
        if _due(key, self.every):
            for name in filter(gradients.__contains__, self.names):
                self.report(f"gradient/{name}/norm", gradients[name].norm())
                self.report(f"gradient/{name}/largest", gradients[name].abs().max())


@update_hook("clip_gradient_value")
class ClipGradientValue(UpdateHook):
    """Limits every element of every gradient to the range from -limit to limit.

    Args:
        limit: The largest magnitude that passes.
    """

    def __init__(self, limit: Annotated[float, Field(gt=0)]) -> None:
        self.limit = limit

    def on_gradients(
        self, gradients: Mapping[str, torch.Tensor], key: StepKey
    ) -> dict[str, torch.Tensor]:
        """Clamps."""
        return {name: g.clamp(-self.limit, self.limit) for name, g in gradients.items()}


@update_hook("gradient_noise")
class GradientNoise(UpdateHook):
    """Adds independent normal noise to every gradient (Neelakantan et al. 2015).

    Args:
        std: Standard deviation of the noise.
    """

    def __init__(self, std: Annotated[float, Field(ge=0)]) -> None:
        self.std = std

    def prepare(self, model: Transformer) -> None:
        """Numbers the parameters, so that each has its own noise."""
        names = (name for name, _ in model.named_parameters())
        self.indices = {name: index for index, name in enumerate(names)}

    def on_gradients(
        self, gradients: Mapping[str, torch.Tensor], key: StepKey
    ) -> dict[str, torch.Tensor]:
        """Noise keyed by seed, step, entry of the table and parameter."""
        noisy = {}
        for name, gradient in gradients.items():
            place = _place(self.index, self.indices[name])
            generator = keyed_generator(key.seed, "gradient_noise", key.step, place)
            normal = generator.standard_normal(tuple(gradient.shape), dtype="float32")
            noisy[name] = gradient + (torch.from_numpy(normal) * self.std).to(gradient)
        return noisy


@update_hook("freeze")
class Freeze(UpdateHook):
    """Keeps parameters exactly as they are: no update and no weight decay.

    Args:
        parameters: Names of the parameters. The output head is ``token_embedding.weight``.
    """

    def __init__(self, parameters: Pattern) -> None:
        self.parameters = parameters

    def prepare(self, model: Transformer) -> None:
        """Finds the parameters."""
        self.names = _matching(self.parameters, model)

    def on_gradients(
        self, gradients: Mapping[str, torch.Tensor], key: StepKey
    ) -> dict[str, torch.Tensor | None]:
        """Takes the gradients away, so that the optimizer passes the parameters over."""
        return dict.fromkeys(filter(gradients.__contains__, self.names))


def _matching(pattern: str, model: Transformer) -> list[str]:
    known = [name for name, _ in model.named_parameters()]
    names = [name for name in known if re.fullmatch(pattern, name)]
    if not names:
        message = f"{pattern!r} matches no parameter (there are {', '.join(known)})"
        raise InputError(f"parameters: {message}")
    return names
