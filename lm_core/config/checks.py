"""The check of one value against the table, with its verdict in words."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lm_core.config.hyperparameters import KEYS, Hyperparameters, broken_rules
from lm_core.config.names import unknown_key
from lm_core.config.statements import DEEPEST
from lm_core.config.table import default, gin_parameter, value_types, words
from lm_core.errors import InputError, Problem, shown, unknown


def check_value(key: str, value: Any) -> list[Problem]:
    """Everything that is wrong with one value, whatever the others are.

    Args:
        key: A key of the table.
        value: A plain value, as YAML or gin gave it.

    Returns:
        Problems in words, an empty list for a good value.
    """
    unwritable = list(_unwritable(key, value))
    if unwritable and isinstance(value, str):
        return unwritable
    problems = []
    try:
        Hyperparameters.model_validate({key: value})
    except ValidationError as error:
        # An error without a place is about values that do not fit each other.
        placed = [details for details in error.errors() if details["loc"]]
        problems = [Problem(_place(details), _in_words(details)) for details in placed]
    told = {problem.path for problem in problems}
    return problems + [problem for problem in unwritable if problem.path not in told]


def check_table(values: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong with some values of the table: names, values, and how they fit.

    Args:
        values: Keys with plain values; those that are left out have their defaults.
    """
    problems = [
        Problem(shown(key) if not isinstance(key, str) else key, unknown_key(str(key)))
        for key in values
        if key not in KEYS
    ]
    wrong = {key: check_value(key, value) for key, value in values.items() if key in KEYS}
    problems += [problem for found in wrong.values() for problem in found]
    # What a wrong value was meant to be is unknown, and so is whether it fits.
    sound = {key: value for key, value in values.items() if key in KEYS and not wrong[key]}
    table = {key: sound.get(key, default(key)) for key in KEYS}
    for key, relation, other in broken_rules(table):
        if not wrong.get(key) and not wrong.get(other):
            mine, theirs = shown(table[key]), shown(table[other])
            problems.append(Problem(key, f"{mine} {relation} {other} {theirs}"))
    return problems


# Python prints integers of at least 640 digits whatever its settings are, which is 2,126 bits.
_MOST_BITS = 2_000
# YAML's parsers take names of up to 1,024 letters, of which a character may take ten.
_LONGEST_NAME = 100


def _unwritable(path: str, value: Any, depth: int = 0) -> Iterator[Problem]:
    """What a run's record could not give back, because YAML or gin has no way to write it."""
    if depth > DEEPEST:
        yield Problem(path, "is nested too deep")
    elif type(value) is dict:
        for name, item in value.items():
            yield from _unwritable_name(path, name)
            yield from _unwritable(f"{path}.{name}", item, depth + 1)
    elif type(value) is list:
        for index, item in enumerate(value):
            yield from _unwritable(f"{path}[{index}]", item, depth + 1)
    elif type(value) is str:
        if any("\ud800" <= character <= "\udfff" for character in value):
            yield Problem(path, "holds half of a surrogate pair, which is no character")
    elif type(value) is float:
        if not math.isfinite(value):
            yield Problem(path, f"{shown(value)} is not finite")
    elif type(value) is int:
        if value.bit_length() > _MOST_BITS:
            yield Problem(path, f"{shown(value)} is too large to be written down")
    elif not isinstance(value, (bool, type(None))):
        yield Problem(path, f"{shown(value)} is a {type(value).__name__}, which is no plain value")


def _unwritable_name(path: str, name: Any) -> Iterator[Problem]:
    if not isinstance(name, str):  # JSON, and with it the hash of a configuration, knows no others.
        yield Problem(path, f"{shown(name)} is not a text, as the name of an option must be")
    elif len(name) > _LONGEST_NAME:
        yield Problem(path, f"{shown(name)} is longer than a name can be")
    else:
        yield from _unwritable(path, name)


def require_valid(values: Mapping[str, Any]) -> None:
    """The check that a constructor makes of its own arguments, for callers without gin.

    Args:
        values: Some keys of the table with their values.

    Raises:
        InputError: At least one is wrong, or two do not fit; has a line for each, named by its gin
            parameter.
    """
    lines = [
        f"{gin_parameter(key)}: {problem.message}"
        for key, value in values.items()
        for problem in check_value(key, value)
    ]
    if not lines:
        table = {key: values.get(key, default(key)) for key in KEYS}
        lines = [
            f"{gin_parameter(key)}: {shown(table[key])} {relation} {other} {shown(table[other])}"
            for key, relation, other in broken_rules(table)
            if key in values and other in values
        ]
    if lines:
        raise InputError("\n".join(lines))


def allowed(key: str) -> str:
    """The values a hyperparameter takes, in words: ``an integer of at least 1, or null``.

    Args:
        key: A key of the table.
    """
    types = value_types(key)
    or_null = ", or null" if type(None) in types else ""
    if words(key):
        *most, last = words(key)
        return (f"{', '.join(most)} or {last}" if most else last) + or_null
    noun = _NOUNS.get(types[0], "a mapping with the keys forward and update")
    if _limits(key).get("min_length"):
        noun += ", not empty"
    return f"{noun} {_range(key)}".rstrip() + or_null


def _range(key: str) -> str:
    limits = _limits(key)
    low = limits.get("ge", limits.get("gt"))
    high = limits.get("le", limits.get("lt"))
    if low is None:
        return ""
    if high is None:
        return f"of at least {low}" if "ge" in limits else f"greater than {low}"
    if "gt" in limits:
        return f"greater than {low} and {'at most' if 'le' in limits else 'below'} {high}"
    return f"from {low} to {'' if 'le' in limits else 'below '}{high}"


def _limits(key: str) -> dict[str, Any]:
    return {
        name: getattr(limit, name)
        for limit in Hyperparameters.model_fields[key].metadata
        for name in ("ge", "gt", "le", "lt", "min_length")
        if hasattr(limit, name)
    }


def _place(details: ErrorDetails) -> str:
    """The path of the culprit; of a name that is none, the path of the mapping it stands in."""
    location = details["loc"]
    return _path(location[:-1] if details["type"] == "invalid_key" else location)


def _path(location: tuple[int | str, ...]) -> str:
    """``("hooks", "forward", 0, "name")`` as ``hooks.forward[0].name``."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")


_COMPARISONS = {
    "greater_than": ("gt", "is not greater than"),
    "greater_than_equal": ("ge", "is less than"),
    "less_than": ("lt", "is not less than"),
    "less_than_equal": ("le", "is greater than"),
}

_WRONG_FORMS = {
    "missing": "is missing",
    "bool_type": "{value} is not true or false",
    "string_type": "{value} is not a text",
    "list_type": "{value} is not a list",
    "dict_type": "{value} is not a mapping",
    "invalid_key": "{value} is not a text, as the name of an option must be",
}


def _in_words(details: ErrorDetails) -> str:
    location, kind, value = details["loc"], details["type"], details["input"]
    key = str(location[0])
    if kind == "extra_forbidden":
        kinds = ("forward", "update")
        sentence = unknown(str(location[-1]), kinds, "kind of hook")
        return f"{sentence} (there are {' and '.join(kinds)})"
    if len(location) > 1:
        return _WRONG_FORMS.get(kind, "{value} is not allowed").format(value=shown(value))
    return f"{shown(value)} {_verdict(key, kind, value)} (allowed: {allowed(key)})"


def _verdict(key: str, kind: str, value: Any) -> str:
    if kind in _COMPARISONS:
        limit, comparison = _COMPARISONS[kind]
        return f"{comparison} {_limits(key)[limit]}"
    if kind == "literal_error":
        return "is an " + unknown(str(value), words(key), key)
    if kind == "string_too_short":
        return "is empty"
    if kind == "finite_number":
        return "is not finite"
    types = value_types(key)
    if isinstance(value, float) and int in types:
        return f"is no integer, write {int(value)}" if value.is_integer() else "is no integer"
    if type(value) is int and float in types:
        return "is an integer out of range"
    return "is " + _KINDS.get(type(value), f"a {type(value).__name__}")


_NOUNS = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
_KINDS = {
    bool: "a truth value",
    int: "an integer",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a mapping",
    type(None): "no value",
}
