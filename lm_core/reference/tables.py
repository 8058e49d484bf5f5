"""The table of hyperparameters as documentation and as a schema for editors."""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from lm_core.config.checks import allowed
from lm_core.config.fields import Entry
from lm_core.config.hyperparameters import KEYS, Hyperparameters
from lm_core.config.rendering import yaml_value
from lm_core.config.table import default, entry, gin_parameter, keys_by_section, meaning
from lm_core.config.yaml_files import EXTENDS
from lm_core.data.corpus import load_corpus
from lm_core.data.splitting import split_corpus
from lm_core.data.tokenizer import build_tokenizer
from lm_core.hooks.registry import Pattern, known_hooks, options_of
from lm_core.initial_weights import load_initial_weights
from lm_core.model.transformer import Transformer
from lm_core.reference.constants import named_constants, source_files
from lm_core.sampling import Sampler
from lm_core.search.space import CHOICE, KINDS
from lm_core.search.study_file import NOT_SEARCHED, PRUNERS, SAMPLERS
from lm_core.training.trainer import Trainer

PROJECT = Path(__file__).resolve().parents[2]
# Who takes the values, by the name that gin has for them.
CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    "load_corpus": load_corpus,
    "split_corpus": split_corpus,
    "Tokenizer": build_tokenizer,
    "load_initial_weights": load_initial_weights,
    "Transformer": Transformer,
    "Trainer": Trainer,
    "Sampler": Sampler,
}
# Wide enough for a sentence, narrow enough for two windows side by side.
_COMMENT_WIDTH = 98
# Where the gin parameter stands behind a value in a configuration file.
_COMMENT_COLUMN = 28
_COLUMNS_OF_AUDIT = (
    "current value",
    "defined in",
    "category",
    "configurable",
    "suggested default",
    "constraints",
    "notes",
)
_SCHEMA_DRAFT = "http://json-schema.org/draft-07/schema#"


def reference_table() -> str:
    """Every hyperparameter for the README: what it does, its default, its range, and notes."""
    sections = []
    for section, keys in keys_by_section().items():
        rows = [
            (
                f"`{key}`",
                f"`{yaml_value(default(key))}`",
                allowed(key),
                f"{meaning(key)} {_advice(key)} Mind: {entry(key).interactions}.",
                f"`{gin_parameter(key)}`",
            )
            for key in keys
        ]
        head = ("key", "default", "range", "what it does, and notes", "gin parameter")
        sections.append(f"**{section}**\n\n{_markdown(head, rows)}")
    return "\n\n".join(sections)


def _advice(key: str) -> str:
    return f"Usual: {entry(key).usual}. When to change it: {entry(key).change}."


def key_table() -> str:
    """Every key with its default, usual values and gin parameter, in short."""
    rows = [
        (f"`{key}`", f"`{yaml_value(default(key))}`", entry(key).usual, f"`{gin_parameter(key)}`")
        for keys in keys_by_section().values()
        for key in keys
    ]
    return _markdown(("key", "default", "usual", "gin parameter"), rows)


def audit_table() -> str:
    """Every hyperparameter with its place in the code."""
    return _markdown(("hyperparameter", *_COLUMNS_OF_AUDIT), [_audit_row(key) for key in KEYS])


def _audit_row(key: str) -> tuple[str, ...]:
    name, argument = gin_parameter(key).split(".")
    constructor = CONSTRUCTORS[name]
    current = inspect.signature(constructor).parameters[argument].default
    return (
        f"`{key}`",
        f"`{yaml_value(current)}`",
        f"`{_file_of(constructor)}`, `{constructor.__name__}({argument})`",
        entry(key).category,
        f"yes, `{gin_parameter(key)}`",
        f"`{yaml_value(default(key))}`",
        allowed(key),
        entry(key).interactions,
    )


def option_table() -> str:
    """Every option of the hooks that the lab brings, with its place in the code."""
    return _markdown(("option", *_COLUMNS_OF_AUDIT), [*_OPTIONS_OF_ALL_HOOKS, *_option_rows()])


def _option_row(name: str, default: str, place: str, constraints: str, notes: str) -> list[str]:
    configurable = "yes, in the table of `hooks`"
    return [f"`{name}`", default, place, "Training", configurable, default, constraints, notes]


_OPTIONS_OF_ALL_HOOKS = [
    _option_row(
        "enabled",
        "`true`",
        "`lm_core/config/fields.py`, `HookEntry(enabled)`",
        "true or false",
        "of every hook; one that is off is checked all the same",
    ),
    _option_row(
        "sites",
        '`".*"`',
        "`lm_core/hooks/registry.py`, `ForwardHook`",
        "a regular expression",
        "of every forward hook; has to match the whole name of a site",
    ),
]


def _option_rows() -> Iterator[list[str]]:
    for name, hook_class in known_hooks().items():
        if not hook_class.__module__.startswith("lm_core."):
            continue
        hints = get_type_hints(hook_class.__init__, include_extras=True)
        for option, parameter in options_of(hook_class).items():
            is_needed = parameter.default is inspect.Parameter.empty
            yield _option_row(
                f"{name}.{option}",
                "must be given" if is_needed else f"`{yaml_value(parameter.default)}`",
                f"`{_file_of(hook_class)}`, `{hook_class.__name__}({option})`",
                constraints(hints[option]),
                _said_of_argument(hook_class, option),
            )


def constraints(annotation: Any) -> str:
    """The values that a type of an option takes, in words.

    Args:
        annotation: A number, text or regular expression, or a list of such, with limits.
    """
    if annotation == Pattern:
        return "a regular expression"
    return _constraints(TypeAdapter(annotation).json_schema())


def _constraints(schema: Mapping[str, Any]) -> str:
    if schema["type"] == "array":
        least = ", not empty" if schema.get("minItems") else ""
        return f"a list{least}, of items each {_constraints(schema['items'])}"
    noun = {"integer": "an integer", "number": "a number", "string": "a text"}[schema["type"]]
    if "minimum" in schema:
        return f"{noun} of at least {schema['minimum']}"
    if "exclusiveMinimum" in schema:
        return f"{noun} greater than {schema['exclusiveMinimum']}"
    return noun


def _said_of_argument(documented: type, argument: str) -> str:
    """What a docstring says of an argument, in its part ``Args``."""
    found = re.search(rf"^    {argument}: (.*?)\.?$", inspect.getdoc(documented) or "", re.M)
    return found[1] if found else ""


def constant_table() -> str:
    """Every number that has a name in the code and stays there, with the reason."""
    constants = [
        constant
        for path in source_files(PROJECT)
        for constant in named_constants(path.read_text(), str(path.relative_to(PROJECT)))
    ]
    rows = [(f"`{c.file}`", f"`{c.name}`", f"`{c.value}`", c.reason) for c in constants]
    return _markdown(("file", "constant", "value", "reason"), rows)


def counts() -> dict[str, int]:
    """How many rows the tables of the audit have."""
    return {
        "hyperparameters": len(KEYS),
        "options of hooks": option_table().count("\n") - 1,
        "named constants": constant_table().count("\n") - 1,
    }


def _file_of(thing: Callable[..., Any]) -> str:
    path = inspect.getsourcefile(inspect.unwrap(thing)) or ""
    return str(Path(path).relative_to(PROJECT))


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def comment_lines(key: str) -> list[str]:
    """What stands above a key in a configuration file: meaning, default, usual values, advice."""
    texts = [
        meaning(key),
        f"Default: {yaml_value(default(key))}. {_advice(key)}",
        f"Mind: {entry(key).interactions}.",
    ]
    return [
        line
        for text in texts
        for line in textwrap.wrap(
            text, _COMMENT_WIDTH, initial_indent="# ", subsequent_indent="#   "
        )
    ]


def value_line(key: str, value: str) -> str:
    """A key and its value in a configuration file, with the gin parameter behind them."""
    return f"{key}: {value}".ljust(_COMMENT_COLUMN - 1) + f" # {gin_parameter(key)}"


def schema() -> dict[str, Any]:
    """A JSON Schema (draft 07) of configuration files, for editors."""
    generated = Hyperparameters.model_json_schema(ref_template="#/definitions/{model}")
    properties = {
        key: {**_without_extras(generated["properties"][key]), "description": _description(key)}
        for key in KEYS
    }
    extends = {
        "type": "string",
        "minLength": 1,
        "description": "The YAML file that this one inherits from, relative to this one.",
    }
    definitions = generated["$defs"]
    return {
        "$schema": _SCHEMA_DRAFT,
        "title": "A configuration of lm_core",
        "type": "object",
        "additionalProperties": False,
        "properties": {EXTENDS: extends, **properties},
        "definitions": {name: _untitled(definitions[name]) for name in sorted(definitions)},
    }


def study_schema() -> dict[str, Any]:
    """A JSON Schema (draft 07) of studies: configurations with a few keys more."""
    whole = schema()
    searched = {
        key: {"$ref": "#/definitions/Distribution", "description": meaning(key)}
        for key in KEYS
        if key not in NOT_SEARCHED
    }
    ends = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    options = {"type": "array", "minItems": 1, "uniqueItems": True}
    whole["definitions"]["Distribution"] = {
        "type": "object",
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
        "properties": {kind: options if kind == CHOICE else ends for kind in KINDS},
    }
    said = "What is searched: for each hyperparameter the values that are tried."
    number = {"type": "integer", "minimum": 1}
    return whole | {
        "title": "A study of lm_core",
        "properties": {
            **whole["properties"],
            "search": {
                "type": "object",
                "additionalProperties": False,
                "minProperties": 1,
                "properties": searched,
                "description": said,
            },
            "trials": {**number, "description": "How many runs are tried."},
            "sampler": {"enum": [*SAMPLERS], "description": "How their values are chosen."},
            "pruner": {"enum": [*PRUNERS], "description": "How unpromising runs are ended."},
            "seeds_for_best": {
                "type": "integer",
                "minimum": 0,
                "description": "On how many fresh seeds the winner is run again.",
            },
        },
    }


def _description(key: str) -> str:
    said = entry(key)
    return f"{meaning(key)} Usual: {said.usual}. Mind: {said.interactions}. ({said.gin_parameter})"


def _without_extras(field: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in _untitled(field).items() if name not in Entry._fields}


def _untitled(part: Any) -> Any:
    """A part of a schema without the titles that pydantic makes of names."""
    if isinstance(part, dict):
        is_title = {"title"} if isinstance(part.get("title"), str) else set()
        return {name: _untitled(value) for name, value in part.items() if name not in is_title}
    if isinstance(part, list):
        return [_untitled(item) for item in part]
    return part
