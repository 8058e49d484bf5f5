"""The hooks of a run, built from the ``hooks`` table and attached to a model."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from lm_core.errors import InputError
from lm_core.hooks import builtin  # noqa: F401 -- makes the ready hooks known
from lm_core.hooks.registry import ForwardHook, Hook, HookEntry, UpdateHook, read_entries
from lm_core.model.sites import ForwardContext, Site, SiteHook
from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey


class Hooks:
    """All hooks of a run, attached to its model.

    Args:
        table: The ``hooks`` hyperparameter.
        model: The model whose sites and parameters the hooks see.

    Raises:
        InputError: Something is wrong with the table or does not fit the model; each line of the
            message starts with the path of the culprit.
    """

    def __init__(self, table: Mapping[str, Any] | None, model: Transformer) -> None:
        entries, problems = read_entries(table)
        if problems:
            raise InputError("\n".join(f"{path}: {message}" for path, message in problems))
        self._parameters = dict(model.named_parameters())
        self._all = [(entry.path, _built(entry, model)) for entry in entries]
        updates = [hook for _, hook in self._all if isinstance(hook, UpdateHook)]
        self._on_gradients = [hook for hook in updates if _overrides(hook, "on_gradients")]
        self._on_updates = [hook for hook in updates if _overrides(hook, "on_updates")]

    @property
    def transforms_updates(self) -> bool:
        """Whether any hook wants to see proposed updates, which costs a copy of the weights."""
        return bool(self._on_updates)

    def transform_gradients(self, key: StepKey) -> None:
        """Lets each hook in turn change the gradients of the parameters."""
        for hook in self._on_gradients:
            gradients = {
                name: parameter.grad
                for name, parameter in self._parameters.items()
                if parameter.grad is not None
            }
            for name, gradient in (hook.on_gradients(gradients, key) or {}).items():
                self._parameters[name].grad = gradient

    @torch.no_grad()
    def transform_updates(self, before: Mapping[str, torch.Tensor], key: StepKey) -> None:
        """Lets each hook in turn change what the optimizer has just added.

        Args:
            before: The parameters before the optimizer's step, by name. Parameters whose update
                no hook changes keep the optimizer's bits.
            key: The step.
        """
        changed: dict[str, torch.Tensor] = {}
        updates = {name: p - before[name] for name, p in self._parameters.items()}
        for hook in self._on_updates:
            new = hook.on_updates(updates, key) or {}
            updates |= new
            changed |= new
        for name, update in changed.items():
            self._parameters[name].copy_(before[name] + update)

    def drain_reports(self) -> dict[str, torch.Tensor | float]:
        """What all hooks reported since the last call, for this step's metrics."""
        reports: dict[str, torch.Tensor | float] = {}
        for _, hook in self._all:
            reports |= hook.drain_report()
        return reports

    def state(self) -> dict[str, torch.Tensor]:
        """The tensors of all hooks that keep any, by path and name."""
        return {
            f"{path}/{name}": tensor
            for path, hook in self._all
            for name, tensor in hook.state().items()
        }

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Gives each hook its tensors back."""
        for path, hook in self._all:
            prefix = f"{path}/"
            hook.load_state(
                {
                    name.removeprefix(prefix): tensor
                    for name, tensor in state.items()
                    if name.startswith(prefix)
                }
            )


def _overrides(hook: UpdateHook, method: str) -> bool:
    return getattr(type(hook), method) is not getattr(UpdateHook, method)


def _built(entry: HookEntry, model: Transformer) -> Hook:
    try:
        hook = entry.hook_class(**entry.options)
        hook.prepare(model)
    except InputError as error:
        raise InputError(f"{entry.path}: {error.message}") from error
    if isinstance(hook, ForwardHook):
        for name in _site_names(entry, hook, model):
            model.sites[name].hooks.append(_site_hook(hook))
    return hook


def _site_names(entry: HookEntry, hook: ForwardHook, model: Transformer) -> list[str]:
    possible = [name for name in model.sites.names() if re.fullmatch(hook.works_on, name)]
    names = [name for name in possible if re.fullmatch(entry.sites, name)]
    if not names:
        message = f"{entry.sites!r} matches no site (there are {', '.join(possible)})"
        raise InputError(f"{entry.path}.sites: {message}")
    return names


def _site_hook(hook: ForwardHook) -> SiteHook:
    if hook.in_evaluation:
        return hook.on_activations

    def only_in_training(
        site: Site, activations: torch.Tensor, context: ForwardContext
    ) -> torch.Tensor | None:
        return hook.on_activations(site, activations, context) if context.training else None

    return only_in_training
