"""The YAML shim: flat YAML files as statements about hyperparameters.

YAML is read by ruamel.yaml as YAML 1.2, where ``3e-4`` is a number, ``off`` is a text, and every
key knows its line. Nothing but plain values is ever constructed.
"""

import glob
import os
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from lm_core.config.hyperparameters import KEYS
from lm_core.config.names import unknown_key
from lm_core.config.statements import (
    DEEPEST,
    MOST_VALUES,
    Reading,
    Source,
    Statement,
    chain,
    display_name,
    find_config,
)
from lm_core.errors import InputError, shown

# The key that is no hyperparameter: the file whose statements come before this one's.
EXTENDS = "extends"


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
    root = _root(reading.open(path), display_name(path), reading)
    if root is not None:
        _read_mapping(root, path, reading, (*above, path))


def _root(text: str, place: str, reading: Reading) -> MappingNode | None:
    """The mapping that a text is, or None and a problem where it is something else."""
    if line := _line_of_directive(text):
        # %YAML 1.1 would bring back what 1.2 put right: off as false, 010 as 8.
        reading.problem(Source(place, line), "a directive with % has no place here; leave it out")
        return None
    try:
        root = _yaml().compose(text)
    except MarkedYAMLError as error:
        line, message = _in_words(error, text)
        reading.problem(Source(place, line), f"not valid YAML: {message}")
        return None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reading.problem(Source(place, line), f"not valid YAML: {str(error).splitlines()[0]}")
        return None
    except RecursionError:
        reading.problem(Source(place), "not valid YAML: lists and mappings are nested too deep")
        return None
    except (YAMLError, ValueError, OverflowError) as error:
        reading.problem(Source(place), f"not valid YAML: {str(error).splitlines()[0]}")
        return None
    if root is None or (isinstance(root, ScalarNode) and root.value == ""):
        return None
    if not isinstance(root, MappingNode) or str(root.tag) not in _NESTED_TAGS:
        message = "a configuration is a mapping, with lines such as `n_layers: 4`"
        reading.problem(Source(place, root.start_mark.line + 1), message)
        return None
    return root


_NEEDS_COLON = "this line needs a colon and a space, as in `n_layers: 4`"
# What the parser says, a part of it, and what that means in a flat list of hyperparameters.
_SENTENCES = {
    "'\\t'": "a tab, where only spaces may stand",
    "found another document": "a second document begins; a file is one",
    "mapping values are not allowed": "a colon too many; a text with a colon needs quotes",
    "<block end>": "this line begins further right or left than the others",
    "<document start>": "this line begins further right or left than the others",
}
# The same for what is noticed only later, where the line is that in which it begins.
_SENTENCES_OF_CONTEXT = {
    # Noticed where the next line begins, or the file ends.
    "while scanning a simple key": _NEEDS_COLON,
    "while scanning a quoted scalar": "a quotation mark that is not closed",
    "while parsing a flow": "a bracket that is not closed, or without a comma between two values",
}


def _in_words(error: MarkedYAMLError, text: str) -> tuple[int | None, str]:
    """The line that is to be mended, and what is wrong with it."""
    mark, message = error.problem_mark or error.context_mark, error.problem or error.context
    for part, sentence in _SENTENCES_OF_CONTEXT.items():
        if part in (error.context or "") and error.context_mark:
            return error.context_mark.line + 1, sentence
    line = mark.line if mark else None
    for part, sentence in _SENTENCES.items():
        if part in message:
            message = sentence
    if line and message == _SENTENCES["mapping values are not allowed"]:
        above = text.splitlines()[line - 1].partition("#")[0].strip()
        if above and ": " not in f"{above} ":
            return line, _NEEDS_COLON  # Without it, YAML takes both lines for one long text.
    return None if line is None else line + 1, message


def _line_of_directive(text: str) -> int | None:
    """The line of a directive before the document; None where there is none."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("%"):
            return number
        if line.strip() and not line.lstrip().startswith("#"):
            return None
    return None


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 2)
    return yaml


def _read_mapping(root: MappingNode, path: Path, reading: Reading, files: tuple[Path, ...]) -> None:
    place = display_name(path)
    own = Reading()
    seen: dict[str, Source] = {}
    for key_node, value_node in root.value:
        source = Source(place, key_node.start_mark.line + 1)
        name = key_node.value if isinstance(key_node, ScalarNode) else "?"
        if name not in (*KEYS, EXTENDS):
            own.problem(source, f"{name}: {unknown_key(name, [EXTENDS], _names_in(value_node))}")
            continue
        plain = _Plain()
        plain.lines[name] = source.line
        try:
            value = plain.value(value_node, name)
        except _NestedError as error:
            own.problem(Source(place, error.line), f"{error.path}: {error.message}")
            continue
        own.add(Statement(name, name, value, source, plain.lines), seen)
    for statement in own.statements:
        if statement.key == EXTENDS:  # What it extends stands below it, wherever the key stands.
            _extend(statement, files, reading)
    reading.statements += [s for s in own.statements if s.key != EXTENDS]
    reading.findings += own.findings


def _names_in(node: Node) -> list[str]:
    if not isinstance(node, MappingNode):
        return []
    return [key.value for key, _ in node.value if isinstance(key, ScalarNode)]


def _extend(statement: Statement, files: tuple[Path, ...], reading: Reading) -> None:
    name, who = statement.value, f"{statement.source}: {EXTENDS}"
    if not isinstance(name, str) or not name:
        message = f"{EXTENDS}: {shown(name)} is no path of a YAML file, relative to this one"
        reading.problem(statement.source, message)
        return
    try:
        folder = files[-1].parent
        path = find_config(name, [folder], who, lambda: _elsewhere(name, folder))
        if path.suffix == ".gin":
            raise InputError(f"{who}: {name!r} is a gin file; only YAML can be extended")
        if path.resolve() in [file.resolve() for file in files]:
            raise InputError(
                f"{who}: the files extend each other in a circle: {chain((*files, path))}"
            )
        read_yaml(path, reading, files)
    except InputError as error:
        reading.failure(error, statement.source)


def _elsewhere(name: str, folder: Path) -> list[str]:
    """Files of a name in folders near by, as a file in this folder has to call them."""
    if Path(name).name != name:
        return []
    pattern = f"*/{glob.escape(name)}"
    near = [*sorted(folder.glob(pattern)), *sorted(folder.glob(f"../{pattern}"))]
    return [os.path.relpath(path, folder) for path in near]


class _NestedError(InputError):
    """Something wrong at a path inside a value, and its line."""

    def __init__(self, path: str, node: Node, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.line = node.start_mark.line + 1


class _Plain:
    """Turns nodes into plain values and keeps the line of every path on the way."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self._n_values = 0

    def value(self, node: Node, path: str, depth: int = 0) -> Any:
        self._n_values += 1
        if self._n_values > MOST_VALUES or depth > DEEPEST:
            message = "is far too large or deep once its aliases are expanded"
            raise _NestedError(path.replace("[", ".").split(".")[0], node, message)
        # A path that a key names has the key's line; its value may start further down.
        self.lines.setdefault(path, node.start_mark.line + 1)
        if not isinstance(node, ScalarNode) and str(node.tag) not in _NESTED_TAGS:
            message = f"has the YAML type {node.tag}, which has no place here"
            raise _NestedError(path, node, message)
        if isinstance(node, SequenceNode):
            items = enumerate(node.value)
            return [self.value(item, f"{path}[{i}]", depth + 1) for i, item in items]
        if isinstance(node, MappingNode):
            return self._mapping(node, path, depth)
        return _scalar(node, path)

    def _mapping(self, node: MappingNode, path: str, depth: int) -> dict[Any, Any]:
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                raise _NestedError(path, key_node, "has a key that is a list or a mapping")
            self._n_values += 1
            key = _scalar(key_node, path)
            if key in mapping:
                first = self.lines[f"{path}.{key}"]
                message = f"set twice in one mapping, first in line {first}"
                raise _NestedError(f"{path}.{key}", key_node, message)
            self.lines[f"{path}.{key}"] = key_node.start_mark.line + 1
            mapping[key] = self.value(value_node, f"{path}.{key}", depth + 1)
        return mapping


_NESTED_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq")}
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str")}


def _scalar(node: ScalarNode, path: str) -> Any:
    tag = str(node.tag)
    if tag not in _PLAIN_TAGS:
        message = f"{shown(node.value)} has the YAML type {tag}; quote it if a text is meant"
        raise _NestedError(path, node, message)
    if "_" in node.value and tag.endswith((":int", ":float")):
        # Numbers of YAML 1.1, which the library still takes; editors and others do not.
        message = f"{shown(node.value)} is no number in YAML 1.2; leave out the _"
        raise _NestedError(path, node, message)
    try:
        return YAML(typ="safe", pure=True).constructor.construct_object(node)
    except (YAMLError, ValueError, OverflowError, LookupError) as error:
        message = f"{shown(node.value)} cannot be read as {tag}"
        raise _NestedError(path, node, message) from error
