"""The values of YAML: nodes as plain data, each path inside them with its line.

Nothing but plain values is ever constructed.
"""

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from lm_core.config.statements import DEEPEST, MOST_CHARACTERS, MOST_VALUES
from lm_core.errors import InputError, shown


class NestedError(InputError):
    """Something wrong at a path inside a value, and its line.

    Args:
        path: What leads to it; empty for the name of the hyperparameter itself.
        node: The culprit.
        message: What is wrong.
    """

    def __init__(self, path: str, node: Node, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.line = node.start_mark.line + 1


class PlainValue:
    """Turns nodes into plain values and keeps the line of every path on the way.

    Attributes:
        lines: The line of each path inside the value, counted from 1.
    """

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self._n_values = 0
        self._n_characters = 0

    def value(self, node: Node, path: str, depth: int = 0) -> Any:
        """The plain value of a node.

        Args:
            node: The node.
            path: What leads to it, such as ``hooks.forward[0]``.
            depth: How deep it lies.

        Raises:
            NestedError: It, or something in it, has no plain value.
        """
        self._n_values += 1
        self._n_characters += len(node.value) if isinstance(node, ScalarNode) else 0
        is_large = self._n_values > MOST_VALUES or self._n_characters > MOST_CHARACTERS
        if is_large or depth > DEEPEST:
            message = "is far too large or deep once its aliases are expanded"
            raise NestedError(path.replace("[", ".").split(".")[0], node, message)
        # A path that a key names has the key's line; its value may start further down.
        self.lines.setdefault(path, node.start_mark.line + 1)
        if not isinstance(node, ScalarNode) and str(node.tag) not in _NESTED_TAGS:
            message = f"has the YAML type {node.tag}, which has no place here"
            raise NestedError(path, node, message)
        if isinstance(node, SequenceNode):
            items = enumerate(node.value)
            return [self.value(item, f"{path}[{i}]", depth + 1) for i, item in items]
        if isinstance(node, MappingNode):
            return self._mapping(node, path, depth)
        return _scalar(node, path)

    def _mapping(self, node: MappingNode, path: str, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                raise NestedError(path, key_node, "has a key that is a list or a mapping")
            self._n_values += 1
            key = _scalar(key_node, path)
            if not isinstance(key, str):  # To Python, 1 and true are one key; JSON knows neither.
                message = f"{shown(key)} is not a text, as the name of an option must be"
                raise NestedError(path, key_node, message)
            if key in mapping:
                first = self.lines[f"{path}.{key}"]
                message = f"set twice in one mapping, first in line {first}"
                raise NestedError(f"{path}.{key}", key_node, message)
            self.lines[f"{path}.{key}"] = key_node.start_mark.line + 1
            mapping[key] = self.value(value_node, f"{path}.{key}", depth + 1)
        return mapping


_NESTED_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq")}
_TEXT, _NULL, _BOOL = (f"tag:yaml.org,2002:{name}" for name in ("str", "null", "bool"))
_NUMBERS = {f"tag:yaml.org,2002:{name}" for name in ("int", "float")}
_PLAIN_TAGS = {_TEXT, _NULL, _BOOL} | _NUMBERS
_NULLS = ("", "~", "null", "Null", "NULL")
# The numbers of YAML 1.2, https://yaml.org/spec/1.2.2/#1032-tag-resolution. The library takes
# more, which editors and other programs do not; and not those that begin with a point.
_NUMBER = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


def require_plain_name(node: Node) -> None:
    """Refuses the name of a hyperparameter that has a YAML type of its own.

    Raises:
        NestedError: It has.
    """
    if str(node.tag) != _TEXT:
        raise NestedError("", node, f"has the YAML type {node.tag}, which has no place here")


def _scalar(node: ScalarNode, path: str) -> Any:
    tag, text = str(node.tag), node.value
    if tag not in _PLAIN_TAGS or (tag == _NULL and text not in _NULLS):
        message = f"{shown(text)} has the YAML type {tag}; quote it if a text is meant"
        raise NestedError(path, node, message)
    if tag == _TEXT and not node.style and _NUMBER.fullmatch(text) and _is_untagged(text):
        return float(text)
    try:
        value = YAML(typ="safe", pure=True).constructor.construct_object(node)
    except (YAMLError, ValueError, OverflowError, LookupError) as error:
        raise NestedError(path, node, f"{shown(text)} cannot be read as {tag}") from error
    if isinstance(value, (int, float)) and tag in _NUMBERS and not _NUMBER.fullmatch(text):
        advice = "leave out the _" if "_" in text else "write it with the digits 0 to 9"
        raise NestedError(path, node, f"{shown(text)} is no number in YAML 1.2; {advice}")
    return value


def _is_untagged(text: str) -> bool:
    """Whether the library takes a plain scalar for a text by itself, not for a ``!!str``."""
    return (
        str(YAML(typ="safe", pure=True).resolver.resolve(ScalarNode, text, (True, False))) == _TEXT
    )
