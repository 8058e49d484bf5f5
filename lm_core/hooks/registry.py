"""What a hook is, and how a person adds one."""

import inspect
import json
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, get_type_hints

import torch
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)

from lm_core.errors import InputError, Problem, shown, unknown
from lm_core.model.sites import ForwardContext, Site
from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey
from lm_core.record import COLUMNS


def _compiles(pattern: str) -> str:
    try:
        with warnings.catch_warnings():
            # What a later Python may read otherwise is read as this one does.
            warnings.simplefilter("ignore", FutureWarning)
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
"""The type of an option that is a regular expression; it must match a whole name."""

Cadence = Annotated[int, Field(ge=1)]
"""The type of an option that says every how many steps something happens."""


class Hook:
    """What forward and update hooks have in common.

    A subclass states its options as the keyword arguments of its ``__init__``, with types and
    defaults: they are checked before the run starts. It may keep tensors as state, which
    checkpoints then hold.

    Attributes:
        index: Its place in its list of the table, counted from 0. As part of the key of random
            numbers it gives two entries of the same hook different ones.
    """

    index: int = 0

    def prepare(self, model: Transformer) -> None:
        """Called once, before the first step, with the model.

        Raises:
            InputError: The hook's options do not fit this model.
        """

    def report(self, name: str, value: torch.Tensor | float) -> None:
        """Adds a number to this step's line in ``metrics.jsonl``.

        A later report of the same name in the same step takes its place. What is reported in an
        evaluation or while sampling stands there as ``evaluation/NAME`` and ``sampling/NAME``. What
        is reported while a run is built or resumed belongs to no step, and is not recorded.

        Args:
            name: Its key there.
            value: A number or a scalar tensor, which may stay on its device.

        Raises:
            InputError: The name is one of the lab's own, or the value is no number.
        """
        call = f"report({shown(name)}, ...)"
        if name in COLUMNS:
            raise InputError(f"{call}: the lab itself reports {name}; take another name")
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            # A copy, for it is fetched when the hook, or training, may have changed it in place.
            value = value.detach().reshape(()).clone()
        else:
            try:
                value = float(value)
            except (TypeError, ValueError, RuntimeError) as error:
                raise InputError(f"{call}: {shown(value)} is no number") from error
        vars(self).setdefault("_reported", {})[name] = value

    def drain_report(self) -> dict[str, torch.Tensor | float]:
        """The numbers reported since the last call."""
        return vars(self).pop("_reported", {})

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors that the hook needs to go on exactly after a resume."""
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes back what ``state`` gave."""


class ForwardHook(Hook):
    """Sees the activations of the sites it is attached to, and may replace them.

    Every forward hook has the option ``sites``, a regular expression that must match the whole
    name of a site; by default all that the hook works on.

    Attributes:
        works_on: A regular expression for the names of the sites that the hook works on.
        in_evaluation: Whether it works in evaluation and sampling too, not only in training.
    """

    works_on: ClassVar[str] = ".*"
    in_evaluation: ClassVar[bool] = False

    def on_activations(
        self, site: Site, activations: torch.Tensor, context: ForwardContext
    ) -> torch.Tensor | None:
        """Called at each site in each forward pass.

        Args:
            site: Where; ``site.name`` and ``site.shape`` describe it.
            activations: What passes there, batch first. Not to be changed in place.
            context: The pass: its key (seed, step, first sequence) and whether it trains.

        Returns:
            A tensor of the same shape and dtype to take the place of the activations, or None.
        """


class UpdateHook(Hook):
    """Transforms gradients, or proposed parameter updates, between backward and parameters.

    A subclass overrides one of the two methods, or both. Each gets all parameters by name and
    returns the entries it changes; it must not change anything in place.
    """

    def on_gradients(
        self, gradients: Mapping[str, torch.Tensor], key: StepKey
    ) -> Mapping[str, torch.Tensor | None] | None:
        """Called after backward, before the optimizer.

        Returns:
            New gradients by name. None in the place of a gradient leaves that parameter out of
            this step altogether, weight decay included.
        """

    def on_updates(
        self, updates: Mapping[str, torch.Tensor], key: StepKey
    ) -> Mapping[str, torch.Tensor] | None:
        """Called with what the optimizer is about to add to each parameter.

        Returns:
            New updates by name.
        """


_FORWARD_HOOKS: dict[str, type[ForwardHook]] = {}
_UPDATE_HOOKS: dict[str, type[UpdateHook]] = {}
# The two lists of the table.
_KINDS: dict[str, Mapping[str, type[Hook]]] = {"forward": _FORWARD_HOOKS, "update": _UPDATE_HOOKS}
# What an entry of the table says beside the options of its hook.
_TABLE_KEYS = ("name", "enabled", "sites")
_Class = TypeVar("_Class", bound=type[Hook])


def forward_hook(name: str) -> Callable[[_Class], _Class]:
    """Class decorator that makes a ``ForwardHook`` known to configurations under a name."""
    return _register(name, _FORWARD_HOOKS, ForwardHook)


def update_hook(name: str) -> Callable[[_Class], _Class]:
    """Class decorator that makes an ``UpdateHook`` known to configurations under a name."""
    return _register(name, _UPDATE_HOOKS, UpdateHook)


def _register(name: str, registry: dict[str, Any], base: type) -> Callable[[_Class], _Class]:
    def register(cls: _Class) -> _Class:
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise InputError(f"hook {name!r}: {cls!r} is not a subclass of {base.__name__}")
        if not (isinstance(name, str) and name):
            raise InputError(f"hook {cls.__name__}: {shown(name)} is no name")
        if issubclass(cls, ForwardHook):
            _check_forward_hook(name, cls)
        own = [option for option in _TABLE_KEYS if option in options_of(cls)]
        if own:
            message = f"hook {name!r}: {own[0]!r} has a meaning of its own in the table of hooks"
            raise InputError(f"{message}; give the option another name")
        taken = registry.get(name)
        if taken is not None and taken.__qualname__ != cls.__qualname__:
            raise InputError(f"hook {name!r} exists already: {taken.__qualname__}")
        registry[name] = cls
        return cls

    return register


def _check_forward_hook(name: str, cls: type[ForwardHook]) -> None:
    if cls.on_activations is ForwardHook.on_activations:
        raise InputError(f"hook {name!r}: {cls.__name__} has no method on_activations")
    try:
        _compiles(cls.works_on)
    except (ValueError, TypeError) as error:
        raise InputError(f"hook {name!r}: works_on {shown(cls.works_on)} {error}") from error


class HookEntry(NamedTuple):
    """One entry of the ``hooks`` table.

    Attributes:
        path: Where it stands, such as ``hooks.forward[0]``.
        index: Its place in its list, counted from 0.
        hook_class: The class registered under its name.
        options: The arguments for it.
        sites: The pattern of sites; only forward hooks use it.
    """

    path: str
    index: int
    hook_class: type[Hook]
    options: dict[str, Any]
    sites: str
    is_enabled: bool


def read_entries(table: Mapping[str, Any] | None) -> tuple[list[HookEntry], list[Problem]]:
    """The entries of a ``hooks`` table in which nothing is wrong, and all that is wrong with any.

    Args:
        table: ``{"forward": [...], "update": [...]}``. What is wrong with its outer form is told
            by the table of hyperparameters; it is passed over here.
    """
    entries: list[HookEntry] = []
    problems: list[Problem] = []
    for kind, registry in _KINDS.items():
        listed = (table or {}).get(kind)
        for index, given in enumerate(listed if isinstance(listed, list) else ()):
            path = f"hooks.{kind}[{index}]"
            name = given.get("name") if isinstance(given, Mapping) else None
            if not isinstance(name, str):
                continue
            if name not in registry:
                sentence = f"{shown(name)} is an {unknown(name, registry, f'{kind} hook')}"
                known = f"there are {', '.join(sorted(registry))}"
                own = "those of a module of yours come with --allow_gin_import=MODULE"
                elsewhere = [other for other, names in _KINDS.items() if name in names]
                if elsewhere:
                    sentence = f"{name} is no {kind} hook; write it under {elsewhere[0]}"
                problems.append(Problem(f"{path}.name", f"{sentence} ({known}; {own})"))
                continue
            named = {k: v for k, v in given.items() if isinstance(k, str)}
            options = {k: v for k, v in named.items() if k not in ("name", "enabled")}
            options, wrong = _checked_options(path, registry[name], options, kind)
            problems += wrong
            sites = options.pop("sites", ".*") if kind == "forward" else ""
            is_enabled = given.get("enabled", True)
            if not wrong:
                entry = HookEntry(path, index, registry[name], options, sites, is_enabled)
                entries.append(entry)
    return entries, problems


def check_hooks(table: Mapping[str, Any]) -> list[Problem]:
    """Everything wrong with a ``hooks`` table that can be told without a model."""
    return read_entries(table)[1]


def _checked_options(
    path: str, hook_class: type[Hook], options: Mapping[str, Any], kind: str
) -> tuple[dict[str, Any], list[Problem]]:
    """The options as their hook takes them, and what is wrong with them."""
    parameters = options_of(hook_class)
    try:
        hints = get_type_hints(hook_class.__init__, include_extras=True)
    except (NameError, TypeError, SyntaxError) as error:
        message = f"the types of the options of {hook_class.__name__} cannot be read: {error}"
        return {}, [Problem(f"{path}.name", message)]
    types = {name: hints.get(name, Any) for name in parameters}
    if kind == "forward":
        types["sites"] = Pattern
    taken, problems = {}, []
    for name, value in options.items():
        if name not in types:
            sentence = unknown(name, [*types, *_TABLE_KEYS], "option")
            known = f"it has {', '.join(sorted(types))}" if types else "it has none"
            problems.append(Problem(f"{path}.{name}", f"{sentence} ({known})"))
            continue
        try:
            taken[name] = _option(types[name], value)
        except ValueError as error:
            problems.append(Problem(f"{path}.{name}", str(error)))
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in options:
            problems.append(Problem(f"{path}.{name}", "is missing, and has no default"))
    return taken, problems


def known_hooks() -> dict[str, type[Hook]]:
    """The class of every hook by its name in the table."""
    return {**_FORWARD_HOOKS, **_UPDATE_HOOKS}


def options_of(hook_class: type[Hook]) -> dict[str, inspect.Parameter]:
    """The options of a hook: the keyword arguments of its ``__init__``."""
    _, *parameters = inspect.signature(hook_class.__init__).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name: p for p in parameters if p.kind not in variable}


def _option(annotation: Any, value: Any) -> Any:
    """An option as its hook takes it: a number for a whole one, a tuple for a list.

    Raises:
        ValueError: Its type does not take the value; or is none that can be checked.
    """
    try:
        # What JSON has no word for, such as a tuple, it writes in one of its own.
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{shown(value)} is no plain value") from error
    try:
        return _adapter(annotation).validate_json(text, strict=True)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        raise ValueError(f"{shown(value)}: {message}") from error
    except PydanticUserError as error:
        message = f"its type in the hook's __init__, {annotation!r}, is none that can be checked"
        raise ValueError(f"{message}; take one that pydantic knows") from error


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)  # A class with a configuration of its own.
