"""The hooks of a run, built from the ``hooks`` table and attached to a model."""

import contextlib
import re
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import torch

from lm_core.errors import InputError, MachineError, Problem, shown, unknown
from lm_core.hooks import builtin  # noqa: F401 -- makes the ready hooks known
from lm_core.hooks.registry import ForwardHook, Hook, HookEntry, UpdateHook, read_entries
from lm_core.model.sites import ForwardContext, Site, SiteHook
from lm_core.model.transformer import Transformer
from lm_core.parallel.shards import own_share, shared_like, whole
from lm_core.randomness import StepKey
from lm_core.training.tensor_files import require_storable


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
        self._model = model
        self._all: list[tuple[str, Hook]] = []
        wrong = []
        for entry in entries:
            if entry.is_enabled:
                try:
                    hook = _made(entry)
                    _attach(entry, hook, model)
                    self._all.append((entry.path, hook))
                except InputError as error:
                    wrong.append(error.message)
        if wrong:
            raise InputError("\n".join(wrong))
        updates = [(path, hook) for path, hook in self._all if isinstance(hook, UpdateHook)]
        self._on_gradients = [pair for pair in updates if _overrides(pair[1], "on_gradients")]
        self._on_updates = [pair for pair in updates if _overrides(pair[1], "on_updates")]
        # What is reported before there is a step would stand in the first after any start.
        self.drain_reports()

    @property
    def _parameters(self) -> dict[str, torch.nn.Parameter]:
        """By name; training in several processes may have put others in their places."""
        return dict(self._model.named_parameters())

    @property
    def are_any(self) -> bool:
        """Whether there is any hook at all."""
        return bool(self._all)

    @property
    def transforms_gradients(self) -> bool:
        """Whether any hook may change gradients."""
        return bool(self._on_gradients)

    @property
    def transforms_updates(self) -> bool:
        """Whether any hook wants to see proposed updates, which costs a copy of the weights."""
        return bool(self._on_updates)

    def step(self, update: Callable[[], None], key: StepKey) -> None:
        """Lets the optimizer make its step, and each hook in turn change what it adds.

        Args:
            update: Updates all parameters, as the optimizer proposes.
            key: The step.

        Raises:
            InputError: A hook returned what is no update of this model.
        """
        if not self.transforms_updates:
            update()
            return
        before = {name: whole(p.detach()).clone() for name, p in self._parameters.items()}
        update()
        self.transform_updates(before, key)

    def transform_gradients(self, key: StepKey) -> None:
        """Lets each hook in turn change the gradients of the parameters.

        Hooks see whole gradients, also of what is sharded, and the same in all processes.

        Raises:
            InputError: A hook returned what is no gradient of this model.
        """
        parameters = self._parameters
        for path, hook in self._on_gradients:
            gradients = {
                name: whole(parameter.grad)
                for name, parameter in parameters.items()
                if parameter.grad is not None
            }
            with _blaming(path):
                returned = hook.on_gradients(gradients, key)
                for name, gradient in self._changes("on_gradients", returned):
                    parameter = parameters[name]
                    if gradient is not None:
                        _require_like(gradient, parameter, f"on_gradients returned for {name}")
                        gradient = shared_like(gradient, parameter.detach())
                    parameter.grad = gradient

    @torch.no_grad()
    def transform_updates(self, before: Mapping[str, torch.Tensor], key: StepKey) -> None:
        """Lets each hook in turn change what the optimizer has just added.

        Args:
            before: The parameters before the optimizer's step, by name. Parameters whose update
                no hook changes keep the optimizer's bits.
            key: The step.

        Raises:
            InputError: A hook returned what is no update of this model.
        """
        changed: dict[str, torch.Tensor] = {}
        parameters = self._parameters
        updates = {name: whole(p.detach()) - before[name] for name, p in parameters.items()}
        for path, hook in self._on_updates:
            with _blaming(path):
                returned = hook.on_updates(updates, key)
                for name, update in self._changes("on_updates", returned):
                    _require_like(update, parameters[name], f"on_updates returned for {name}")
                    updates[name] = changed[name] = update
        for name, update in changed.items():
            parameter = parameters[name].detach()
            own_share(parameter).copy_(own_share(shared_like(before[name] + update, parameter)))

    def _changes(self, what: str, returned: Any) -> list[tuple[str, Any]]:
        """What a method of a hook returned, once it is sure that it names parameters."""
        if returned is None:
            return []
        if not isinstance(returned, Mapping):
            kind = type(returned).__name__
            raise InputError(f"{what} returned a {kind}; it returns a mapping by parameter name")
        known = self._parameters
        for name in returned:
            if name not in known:
                hint = unknown(str(name), known, "parameter")
                raise InputError(f"{what} returned {shown(name)}: {hint}")
        return list(returned.items())

    def drain_reports(self, prefix: str = "") -> dict[str, torch.Tensor | float]:
        """What all hooks reported since the last call, for this step's metrics.

        Where several report the same name, the latest in the table stands.

        Args:
            prefix: Goes in front of every name.
        """
        reports: dict[str, torch.Tensor | float] = {}
        for _, hook in self._all:
            reports |= hook.drain_report()
        return {f"{prefix}{name}": value for name, value in reports.items()}

    def state(self) -> dict[str, torch.Tensor]:
        """Copies of the tensors of all hooks that keep any, by path and name.

        Raises:
            InputError: A hook keeps something else, or what cannot be saved.
        """
        state = {}
        for path, hook in self._all:
            with _blaming(path):
                for name, tensor in hook.state().items():
                    if not isinstance(tensor, torch.Tensor):
                        message = f"state() has a {type(tensor).__name__} under {shown(name)}"
                        raise InputError(f"{message}; it holds tensors, such as torch.tensor(3)")
                    state[f"{path}/{name}"] = tensor.detach().clone()
        require_storable(state)
        return state

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Gives each hook its tensors back."""
        for path, hook in self._all:
            prefix = f"{path}/"
            # Of its own: a hook may do with it what it may do with any tensor.
            own = {
                name.removeprefix(prefix): tensor.clone()
                for name, tensor in state.items()
                if name.startswith(prefix)
            }
            with _blaming(path):
                hook.load_state(own)
        self.drain_reports()


def check_fit(table: Mapping[str, Any] | None, model: Transformer) -> list[Problem]:
    """Everything about a ``hooks`` table that does not fit a model, also where it is off.

    Args:
        table: The ``hooks`` hyperparameter.
        model: A model of the right shapes, which the hooks stay attached to. It may be without
            content: what a hook fails at when it looks at weights is passed over; training will
            tell.
    """
    problems = []
    for entry in read_entries(table)[0]:
        try:
            hook = _made(entry)
        except InputError as error:
            problems.append(_problem(error))
            continue
        except Exception as error:
            what = f"{type(error).__name__} in the __init__ of {entry.hook_class.__name__}"
            problems.append(Problem(entry.path, f"{what}: {error}"))
            continue
        # Whatever is raised by what is not there.
        with contextlib.suppress(Exception):
            try:
                _attach(entry, hook, model)
            except InputError as error:
                problems.append(_problem(error))
    return problems


def _problem(error: InputError) -> Problem:
    path, _, message = error.message.partition(": ")
    return Problem(path, message)


def _overrides(hook: UpdateHook, method: str) -> bool:
    return getattr(type(hook), method) is not getattr(UpdateHook, method)


@contextlib.contextmanager
def _blaming(path: str, options: Container[str] = ()) -> Iterator[None]:
    """Puts the place in the table in front of a message, and below the traceback of a defect.

    Args:
        path: The place of the hook.
        options: Those it has: a message that begins with one of them is about that one.
    """
    try:
        yield
    except InputError as error:
        joint = "." if error.message.partition(":")[0] in options else ": "
        raise InputError(f"{path}{joint}{error.message}") from error
    except OSError as error:
        # Without the culprit's name it would look like a failure of the run's own files.
        raise MachineError(f"{path}: {type(error).__name__}: {error}") from error
    except Exception as error:
        error.add_note(f"In the hook that {path} sets.")
        raise


def _require_like(value: Any, like: torch.Tensor, what: str) -> None:
    """Refuses what PyTorch would silently broadcast, or fail on far from the culprit."""
    if not isinstance(value, torch.Tensor):
        raise InputError(f"{what} a {type(value).__name__}, where a tensor belongs")
    if value.shape != like.shape:
        shapes = f"a tensor of shape {tuple(value.shape)}, where {tuple(like.shape)} belongs"
        raise InputError(f"{what} {shapes}")
    if value.dtype != like.dtype:
        raise InputError(f"{what} a tensor of {value.dtype}, where {like.dtype} belongs")


def _made(entry: HookEntry) -> Hook:
    with _blaming(entry.path, entry.options):
        hook = entry.hook_class(**entry.options)
        hook.index = entry.index
    return hook


def _attach(entry: HookEntry, hook: Hook, model: Transformer) -> None:
    with _blaming(entry.path, entry.options):
        hook.prepare(model)
    if isinstance(hook, ForwardHook):
        for name in _site_names(entry, hook, model):
            model.sites[name].hooks.append(_site_hook(entry.path, hook))


def _site_names(entry: HookEntry, hook: ForwardHook, model: Transformer) -> list[str]:
    possible = [name for name in model.sites.names() if re.fullmatch(hook.works_on, name)]
    names = [name for name in possible if re.fullmatch(entry.sites, name)]
    if not names:
        message = f"{entry.sites!r} matches no site (there are {', '.join(possible)})"
        raise InputError(f"{entry.path}.sites: {message}")
    return names


class _CutOff(torch.autograd.Function):
    """What a hook puts in the place of activations that it does not depend on.

    What is before it has a gradient of zero, instead of none: processes that compute other
    sequences, where nothing is cut off, add up the same gradients as this one.
    """

    @staticmethod
    def forward(ctx: Any, replacement: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
        return replacement.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, torch.zeros_like(gradient)


def _site_hook(path: str, hook: ForwardHook) -> SiteHook:
    def at_site(
        site: Site, activations: torch.Tensor, context: ForwardContext
    ) -> torch.Tensor | None:
        if not (context.training or hook.in_evaluation):
            return None
        with _blaming(path):
            replacement = hook.on_activations(site, activations, context)
            if replacement is not None:
                what = f"on_activations returned at the site {site.name}"
                _require_like(replacement, activations, what)
        if replacement is not None and activations.requires_grad and not replacement.requires_grad:
            return _CutOff.apply(replacement, activations)
        return replacement

    return at_site
