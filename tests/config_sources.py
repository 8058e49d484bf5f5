"""Configurations from files, bindings and flags in a line, and what is wrong with them."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lm_core.config.hyperparameters import KEYS
from lm_core.config.resolution import (
    Binding,
    ConfigSources,
    FileArgument,
    ResolvedConfig,
    resolve,
)
from lm_core.config.statements import Source
from lm_core.errors import InputError

PROJECT = Path(__file__).parents[1]


def sources(files=(), bindings=(), base=None, check_hooks=None, **overrides):
    def flag(name):
        return "--config" if name.endswith(".yaml") else "--gin_file"

    given = ConfigSources(
        base=base,
        files=[FileArgument(flag(name), name) for name in files],
        bindings=[Binding("--gin_bindings", text) for text in bindings],
        overrides=overrides,
        yaml_folders=[PROJECT / "configs"],
        gin_folders=[PROJECT / "gin_configs"],
    )
    return resolve(given, check_hooks)


def problems(**given):
    with pytest.raises(InputError) as error:
        sources(**given)
    return error.value.message.splitlines()


def plain_yaml(text):
    """What a YAML text says, as an editor reads it."""
    return YAML(typ="safe", pure=True).load(text) or {}


def resolved(values, place="somewhere"):
    sources, names = {key: Source(place) for key in KEYS}, {key: key for key in KEYS}
    return ResolvedConfig(values, sources, names, lines={})


def read_back(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode())
    flag = "--config" if name.endswith(".yaml") else "--gin_file"
    return resolve(ConfigSources(files=[FileArgument(flag, str(path))])).values
