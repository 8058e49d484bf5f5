"""Hooks on activations and updates; what a person needs to write one is imported here."""

from lm_core.hooks.attachment import Hooks, check_fit
from lm_core.hooks.registry import (
    Cadence,
    ForwardHook,
    Pattern,
    UpdateHook,
    check_hooks,
    forward_hook,
    update_hook,
)
from lm_core.model.sites import ForwardContext, Site
from lm_core.randomness import StepKey, keyed_generator

__all__ = [
    "Cadence",
    "ForwardContext",
    "ForwardHook",
    "Hooks",
    "Pattern",
    "Site",
    "StepKey",
    "UpdateHook",
    "check_fit",
    "check_hooks",
    "forward_hook",
    "keyed_generator",
    "update_hook",
]
