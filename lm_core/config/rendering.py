"""A resolved configuration as text: the record of a run, and what gin is given."""

import json
from typing import Any

from lm_core.config.hyperparameters import CATEGORIES, KEYS, category, gin_parameter
from lm_core.config.resolution import ResolvedConfig


def yaml_text(config: ResolvedConfig, header: str) -> str:
    """Every value as a flat YAML file that gives the same configuration again.

    Args:
        config: What to write.
        header: A first line for people, without the comment sign.
    """
    lines = [f"# {_in_one_line(header)}"]
    for section in CATEGORIES:
        lines += ["", f"# {section}"]
        for key in KEYS:
            if category(key) == section:
                lines.append(f"{key}: {_yaml_value(getattr(config.values, key))}")
    return "\n".join(lines) + "\n"


def gin_text(config: ResolvedConfig) -> str:
    """Every value as a literal gin binding, each with a comment saying where it was set."""
    lines = []
    for section in CATEGORIES:
        lines += ["", f"# {section}"] if lines else [f"# {section}"]
        for key in KEYS:
            if category(key) == section:
                binding = f"{gin_parameter(key)} = {getattr(config.values, key)!r}"
                lines.append(f"{binding}  # {_in_one_line(str(config.sources[key]))}")
    return "\n".join(lines) + "\n"


def _in_one_line(text: str) -> str:
    """A name from outside, made unable to end the comment it stands in."""
    return text.encode("unicode_escape").decode("ascii")


def _yaml_value(value: Any) -> str:
    """A value in YAML's flow style on one line."""
    if isinstance(value, dict):
        items = [f"{_yaml_value(key)}: {_yaml_value(item)}" for key, item in value.items()]
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_yaml_value(item) for item in value) + "]"
    if isinstance(value, str):
        return '"' + "".join(_yaml_character(character) for character in value) + '"'
    return json.dumps(value)


def _yaml_character(character: str) -> str:
    """A character inside double quotes; YAML's escapes are whole code points, unlike JSON's."""
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return f"\\U{ord(character):08x}"
