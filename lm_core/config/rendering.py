"""A resolved configuration as text: the record of a run, and what gin is given."""

import json
from typing import Any

from lm_core.config.resolution import ResolvedConfig
from lm_core.config.table import gin_parameter, keys_by_section


def yaml_text(config: ResolvedConfig, header: str) -> str:
    """Every value as a flat YAML file that gives the same configuration again.

    Args:
        config: What to write.
        header: A first line for people, without the comment sign.
    """
    lines = [f"# {in_one_line(header)}"]
    for section, keys in keys_by_section().items():
        lines += ["", f"# {section}"]
        lines += [f"{key}: {yaml_value(getattr(config.values, key))}" for key in keys]
    return "\n".join(lines) + "\n"


def gin_text(config: ResolvedConfig) -> str:
    """Every value as a literal gin binding, each with a comment saying where it was set."""
    lines = []
    for section, keys in keys_by_section().items():
        lines += ["", f"# {section}"] if lines else [f"# {section}"]
        for key in keys:
            binding = f"{gin_parameter(key)} = {getattr(config.values, key)!r}"
            lines.append(f"{binding}  # {in_one_line(str(config.sources[key]))}")
    return "\n".join(lines) + "\n"


def in_one_line(text: str) -> str:
    """A name from outside, made unable to end the comment it stands in."""
    return text.encode("unicode_escape").decode("ascii")


def yaml_value(value: Any) -> str:
    """A value in YAML's flow style on one line, as a configuration file may state it."""
    if isinstance(value, dict):
        items = [f"{yaml_value(key)}: {yaml_value(item)}" for key, item in value.items()]
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(yaml_value(item) for item in value) + "]"
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
