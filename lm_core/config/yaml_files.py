"""The YAML shim: flat YAML files as statements about hyperparameters."""

import functools
import glob
import os
from collections.abc import Iterable
from pathlib import Path

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from lm_core.config.files import FLAGS, chain, display_name, find_config, is_yaml
from lm_core.config.hyperparameters import KEYS
from lm_core.config.names import unknown_key
from lm_core.config.statements import Reading, Source, Statement
from lm_core.config.yaml_syntax import Entry, entries
from lm_core.config.yaml_values import NestedError, PlainValue, require_plain_name
from lm_core.errors import InputError, nearest, shown

# The key that is no hyperparameter: the file whose statements come before this one's.
EXTENDS = "extends"
# The keys that make a configuration a study; what each means is for ``lm_core/search``.
STUDY_KEYS = ("search", "trials", "sampler", "pruner", "seeds_for_best")


def read_yaml(path: Path, reading: Reading, above: tuple[Path, ...] = ()) -> None:
    """Adds the statements of a YAML file to a reading, after those of the file that it extends.

    An empty file makes no statement: it is a configuration of defaults.

    Args:
        path: The file.
        reading: Takes the statements and what is wrong with the file.
        above: The files that led here by extending this one.

    Raises:
        InputError: The file cannot be read as text.
    """
    place = display_name(path)
    found, mistakes = entries(reading.open(path))
    for mistake in mistakes:
        if mistake.message:
            reading.problem(Source(place, mistake.line), mistake.message)
        reading.unread.add(mistake.name or "")
        reading.is_complete &= mistake.name in KEYS
    _read_entries(found, path, reading, (*above, path))


def _read_entries(
    entries: list[Entry], path: Path, reading: Reading, files: tuple[Path, ...]
) -> None:
    place = display_name(path)
    own = Reading()
    others = [EXTENDS, *(STUDY_KEYS if reading.takes_study else ())]
    is_told_of_study = False
    seen: dict[str, Source] = {}
    for key_node, value_node in entries:
        source = Source(place, key_node.start_mark.line + 1)
        name = key_node.value if isinstance(key_node, ScalarNode) else "?"
        if name in STUDY_KEYS and not reading.takes_study:
            if not is_told_of_study:
                own.problem(source, f"{name}: makes this a study, which --mode=search runs")
            is_told_of_study = True
            continue
        if name not in (*KEYS, *others):
            is_near = reading.takes_study and nearest(name, STUDY_KEYS)
            sentence = unknown_key(name, others, [] if is_near else _names_in(value_node))
            own.problem(source, f"{name}: {sentence}")
            # What it would have brought along, nobody knows.
            reading.is_complete &= not sentence.endswith(f"{EXTENDS}?")
            continue
        plain = PlainValue()
        plain.lines[name] = source.line
        try:
            require_plain_name(key_node)
            value = plain.value(value_node, name)
        except NestedError as error:
            own.problem(Source(place, error.line), f"{error.path or name}: {error.message}")
            own.unread.add(name)
            continue
        own.add(Statement(name, name, value, source, plain.lines), seen)
    for statement in own.statements:
        if statement.key == EXTENDS:  # What it extends stands below it, wherever the key stands.
            _extend(statement, files, reading)
    reading.statements += [s for s in own.statements if s.key in KEYS]
    reading.study += [s for s in own.statements if s.key in STUDY_KEYS]
    reading.findings += own.findings
    reading.unread |= own.unread
    reading.is_complete &= EXTENDS not in own.unread


def _names_in(node: Node) -> list[str]:
    if not isinstance(node, MappingNode):
        return []
    return [key.value for key, _ in node.value if isinstance(key, ScalarNode)]


def _extend(statement: Statement, files: tuple[Path, ...], reading: Reading) -> None:
    name, who = statement.value, f"{statement.source}: {EXTENDS}"
    if not isinstance(name, str) or not name:
        message = f"{EXTENDS}: {shown(name)} is no path of a YAML file, relative to this one"
        reading.failure(InputError(f"{statement.source}: {message}"), statement.source)
        return
    try:
        folder = files[-1].parent
        where = f"the folder of {display_name(files[-1])}"
        near = functools.partial(_elsewhere, name, folder, reading.folders)
        path = find_config(name, [folder], who, near, where)
        reading.require_own(path, name, who)
        if path.suffix in FLAGS and not is_yaml(path):
            raise InputError(f"{who}: {name!r} is a gin file; only YAML can be extended")
        if path.resolve() in [file.resolve() for file in files]:
            raise InputError(
                f"{who}: the files extend each other in a circle: {chain((*files, path))}"
            )
        read_yaml(path, reading, files)
    except InputError as error:
        reading.failure(error, statement.source)


def _elsewhere(name: str, folder: Path, own: Iterable[Path]) -> list[str]:
    """Files of a name near by, or in the folders of the configuration, as seen from this one."""
    name = Path(name).name
    pattern = f"*/{glob.escape(name)}"
    near = [*sorted(folder.glob(pattern)), *sorted(folder.glob(f"../{pattern}"))]
    known = [path for path in (other / name for other in sorted(own)) if path.is_file()]
    return [os.path.relpath(path, folder) for path in (*near, *known) if name]
