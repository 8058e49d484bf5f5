"""A resolved configuration as text: the record of a run, what gin is given, what people see."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from lm_core.config.resolution import ResolvedConfig
from lm_core.config.table import default, entry, gin_parameter, keys_by_section
from lm_core.errors import one_line


def yaml_text(config: ResolvedConfig, header: str) -> str:
    """Every value as a flat YAML file that gives the same configuration again.

    Args:
        config: What to write.
        header: A first line for people, without the comment sign.
    """
    lines = [f"# {one_line(header)}"]
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
            lines.append(f"{binding}  # {one_line(str(config.sources[key]))}")
    return "\n".join(lines) + "\n"


def json_text(config: ResolvedConfig) -> str:
    """Every value with its default, source, category and gin parameter, for programs."""
    table = {
        key: {
            "value": value,
            "default": default(key),
            "differs": canonical(value) != canonical(default(key)),
            "source": str(config.sources[key]),
            "gin_parameter": gin_parameter(key),
            "category": entry(key).category,
        }
        for key, value in config.values.to_dict().items()
    }
    return json.dumps({"hyperparameters": table}, indent=2) + "\n"


class Row(NamedTuple):
    """A hyperparameter as a table for people shows it.

    Attributes:
        key: Its key.
        value: The value as YAML has it.
        default: The default as YAML has it.
        differs: Whether the two differ.
        source: Where the value was set.
    """

    key: str
    value: str
    default: str
    differs: bool
    source: str


def rows(config: ResolvedConfig) -> dict[str, list[Row]]:
    """Every hyperparameter as people are shown it, by section."""
    return {
        section: [_row(config, key) for key in keys] for section, keys in keys_by_section().items()
    }


def _row(config: ResolvedConfig, key: str) -> Row:
    value, usual = getattr(config.values, key), default(key)
    source = one_line(str(config.sources[key]))
    differs = canonical(value) != canonical(usual)
    return Row(key, yaml_value(value), yaml_value(usual), differs, source)


def config_hash(
    table: Mapping[str, Any],
    corpus_sha256: str,
    tokenizer_sha256: str | None = None,
    weights_sha256: str | None = None,
) -> str:
    """SHA-256 that names a configuration, wherever the files that it names lie.

    Args:
        table: Every hyperparameter with its value.
        corpus_sha256: SHA-256 of the text, which stands for the path of the corpus.
        tokenizer_sha256: SHA-256 of the ``tokenizer.json``, which stands for the path of a
            ``tokenizer_file``; None: there is none.
        weights_sha256: SHA-256 of the weights that the run begins with, which stands for where they
            are from; None: they are random.
    """
    named = {**table, "corpus": corpus_sha256}
    if table.get("tokenizer_file") is not None:
        named["tokenizer_file"] = tokenizer_sha256
    if table.get("init_from") is not None:
        named["init_from"] = weights_sha256
    return hashlib.sha256(canonical(named).encode()).hexdigest()


def canonical(value: Any) -> str:
    """A value as JSON that is the same for equal values only, unlike Python's own equality.

    To Python, ``True`` and ``1`` are equal. Minus zero is zero.

    Args:
        value: A plain value that has been checked.
    """
    return json.dumps(_without_minus_zero(value), sort_keys=True, allow_nan=False)


def _without_minus_zero(value: Any) -> Any:
    if isinstance(value, float):
        return value + 0.0
    if isinstance(value, dict):
        return {name: _without_minus_zero(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_minus_zero(item) for item in value]
    return value


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


_SHORT_ESCAPES = {'"': '"', "\\": "\\", "\n": "n", "\t": "t", "\r": "r"}


def _yaml_character(character: str) -> str:
    """A character inside double quotes; YAML's escapes are whole code points, unlike JSON's."""
    if character in _SHORT_ESCAPES:
        return "\\" + _SHORT_ESCAPES[character]
    if character.isprintable():
        return character
    return f"\\U{ord(character):08x}"
