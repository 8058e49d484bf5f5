"""The syntax of YAML: a text as the mapping that it is, or what it is instead.

YAML is read by ruamel.yaml as YAML 1.2, where ``3e-4`` is a number, ``off`` is a text, and every
key knows its line.
"""

import copy
import re
import warnings
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from lm_core.errors import InputError

MAPPING = "tag:yaml.org,2002:map"
# A key and its value.
Entry = tuple[Node, Node]
# Whoever makes more mistakes than this in one file has not written a configuration.
_MOST_MISTAKES = 100
# What is read anew, key by key, takes a second for so many characters.
_MOST_CHARACTERS = 100_000
# Keys that a bracket or text may take for its own until it is closed.
_MOST_JOINED = 20
# Where a key may begin: at the left, unlike values, items and brackets that close.
_BEGINNING = re.compile(r"[^\s#\-\[\]{},:]")
# What ends a line to YAML 1.2.
_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_COMMENT = re.compile(r"(?:^|(?<=\s))#[^\r\n]*", re.MULTILINE)
_UNDEFINED_ALIAS = re.compile(r"found undefined alias '([^']*)'")
# The parser takes seconds for thousands of brackets inside each other.
_MANY_BRACKETS = re.compile(r"(?:[\[{]\s*){100}")
_KEY = re.compile(r"['\"]?(\w+)['\"]?\s*:(?:\s|$)")
_NOT_VALID = "not valid YAML: "
_NO_MAPPING = "a configuration is a mapping, with lines such as `n_layers: 4`"
# Ends of lines to YAML 1.1, and to this parser, but neither to YAML 1.2 nor to editors.
_OLD_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
_NEEDS_COLON = "this line needs a colon and a space, as in `n_layers: 4`"
# What the parser says, a part of it, and what that means in a flat list of hyperparameters.
_SENTENCES = {
    "'\\t'": "a tab, where only spaces may stand",
    "found another document": "a second document begins; a file is one",
    "mapping values are not allowed": "a colon too many; a text with a colon needs quotes",
    "<block end>": "this line begins further right or left than the others",
    "escape": "a \\ in double quotes begins an escape; write \\\\ for the sign itself, / in a path",
    "cannot start any token": "a text that begins with a sign such as % or @ needs quotes",
    "<document start>": "this line begins further right or left than the others",
}
# The same for what is noticed only later, where the line is that in which it begins.
_SENTENCES_OF_CONTEXT = {
    # Noticed where the next line begins, or the file ends.
    "while scanning a simple key": _NEEDS_COLON,
    "while scanning a quoted scalar": "a quotation mark that is not closed",
    "while parsing a flow": "a bracket that is not closed, or without a comma between two values",
}


class YamlMistake(InputError):  # noqa: N818 -- a part of a configuration, not of the program
    """A text that is no flat mapping of YAML.

    Args:
        message: What it is.
        line: Where, counted from 1; None where nobody can tell.
        name: The key whose value it is about, if it is about one and no other.

    An empty message is about what could not be read for another mistake, and is told there.

    Attributes:
        is_local: Whether other keys may be read all the same.
    """

    def __init__(self, message: str, line: int | None = None, name: str | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.name = name
        self.is_local = message.startswith(_NOT_VALID)


def entries(text: str) -> tuple[list[Entry], list[YamlMistake]]:
    """The keys of the mapping that a text is, each with its value, and what is wrong with it.

    The parser ends at the first mistake. Then each key is read by itself, so that one that cannot
    be read hides no other.

    Args:
        text: What is to be one flat mapping; empty for none.
    """
    try:
        root = compose(text)
    except YamlMistake as error:
        found, mistakes = _entries_one_by_one(text) if error.is_local else ([], [])
        return (found, mistakes) if mistakes else ([], [error])
    return (root.value if root else []), []


def compose(text: str) -> MappingNode | None:
    """The mapping that a text is; None for a text that says nothing.

    Raises:
        YamlMistake: It is something else.
    """
    if line := _line_of_directive(text):
        # %YAML 1.1 would bring back what 1.2 put right: off as false, 010 as 8.
        raise YamlMistake("a directive with % has no place here; leave it out", line)
    if match := _OLD_LINE_ENDS.search(text):
        line = text.count("\n", 0, match.start()) + 1
        code = f"{ord(match[0]):04X}"
        message = f'U+{code} ends a line to some programs only; write "\\u{code}"'
        raise YamlMistake(message, line)
    if match := _MANY_BRACKETS.search(text):
        line = text.count("\n", 0, match.start()) + 1
        raise YamlMistake(f"{_NOT_VALID}lists and mappings are nested too deep", line)
    root = _composed(text)
    if root is None:
        return None
    if not isinstance(root, MappingNode) or str(root.tag) != MAPPING:
        raise YamlMistake(_NO_MAPPING, root.start_mark.line + 1)
    return root


def _entries_one_by_one(text: str) -> tuple[list[Entry], list[YamlMistake]]:
    lines = _LINES.findall(text)
    cuts = [i for i, line in enumerate(lines) if _BEGINNING.match(line)]
    cuts = [*sorted({0, *cuts}), len(lines)]
    found: list[Entry] = []
    mistakes: list[YamlMistake] = []
    k, n_characters = 0, 0
    while k < len(cuts) - 1:
        if len(mistakes) == _MOST_MISTAKES or n_characters > _MOST_CHARACTERS:
            mistakes.append(YamlMistake("", cuts[k] + 1))
            break
        entry, mistake, k, n_read = _entry(lines, cuts, k)
        n_characters += n_read
        found += entry
        mistakes += mistake
    for mistake in mistakes:
        alias = _UNDEFINED_ALIAS.search(mistake.message)
        if alias and f"&{alias[1]}" in text:  # Another key defines it, which is no mistake.
            mistake.message = ""
    return found, mistakes


def _entry(
    lines: list[str], cuts: list[int], k: int
) -> tuple[list[Entry], list[YamlMistake], int, int]:
    """What stands between the cuts from one on, or what is wrong there.

    Returns:
        Entries, mistakes, the number of the next cut, and how many characters were read.
    """
    first, n_read = cuts[k], 0
    opened: YamlMistake | None = None
    for end in range(k + 1, min(k + 1 + _MOST_JOINED, len(cuts))):
        part = "".join(lines[first : cuts[end]])
        n_read += len(part)
        try:
            return _moved_down(compose(part), first), [], end, n_read
        except YamlMistake as error:
            if error.message not in _OPEN:
                if any(_KEY.match(lines[cut]) for cut in cuts[k + 1 : end]):
                    break  # It took another key for a part of itself.
                # What was open is closed by now, and something else is wrong.
                return [], [_placed(error, lines, first)], end, n_read
            opened = opened or error
        if n_read > _MOST_CHARACTERS:
            break
    told = [_placed(opened, lines, first)] if opened else []
    return [], told, k + 1, n_read


def _placed(mistake: YamlMistake, lines: list[str], first: int) -> YamlMistake:
    """A mistake in a part of a text, with its line in the whole and the key that it is about."""
    key = _KEY.match(lines[first])
    line = None if mistake.line is None else mistake.line + first
    message = _NOT_VALID + _NEEDS_COLON if mistake.message == _NO_MAPPING else mistake.message
    return YamlMistake(message, line, key[1] if key else None)


def _moved_down(root: MappingNode | None, n_lines: int) -> list[Entry]:
    """The entries of a mapping that was read from a part of a text, with the lines of the whole."""
    waiting: list[Node] = [node for entry in (root.value if root else []) for node in entry]
    moved: dict[int, Any] = {}
    while waiting:
        node = waiting.pop()
        if id(node) not in moved:
            moved[id(node)] = node
            mark = copy.copy(node.start_mark)
            mark.line += n_lines
            node.start_mark = mark
            if isinstance(node, MappingNode):
                waiting += [part for entry in node.value for part in entry]
            elif isinstance(node, SequenceNode):
                waiting += node.value
    return root.value if root else []


def _composed(text: str) -> Node | None:
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 2)
    try:
        with warnings.catch_warnings():
            # An anchor may be used again; what it stands for is then another value.
            warnings.simplefilter("ignore", ReusedAnchorWarning)
            root = yaml.compose(text)
    except MarkedYAMLError as error:
        line, message = _in_words(error, text)
        raise YamlMistake(f"{_NOT_VALID}{message}", line) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlMistake(f"{_NOT_VALID}{str(error).splitlines()[0]}", line) from error
    except RecursionError as error:
        message = f"{_NOT_VALID}lists and mappings are nested too deep"
        raise YamlMistake(message) from error
    except (YAMLError, ValueError, OverflowError) as error:
        raise YamlMistake(f"{_NOT_VALID}{str(error).splitlines()[0]}") from error
    # A file of comments, and one with `---` alone, has a plain scalar of no letters.
    is_empty = isinstance(root, ScalarNode) and root.value == "" and not root.style
    return None if is_empty else root


# What more lines may put right.
_OPEN = {
    _NOT_VALID + sentence
    for context, sentence in _SENTENCES_OF_CONTEXT.items()
    if context != "while scanning a simple key"
}


def _in_words(error: MarkedYAMLError, text: str) -> tuple[int | None, str]:
    """The line that is to be mended, and what is wrong with it."""
    mark, message = error.problem_mark or error.context_mark, error.problem or error.context
    for part, sentence in _SENTENCES_OF_CONTEXT.items():
        if part in (error.context or "") and error.context_mark:
            if (
                "<stream end>" in message
            ):  # Of a bracket with nothing in it, the parser tells the end.
                text = _COMMENT.sub(lambda match: " " * len(match[0]), text)
                opened = max(text.rfind("["), text.rfind("{"))
                return min(error.context_mark.line, text.count("\n", 0, opened)) + 1, sentence
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
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith("%"):
            return number
        if line.strip() and not line.lstrip().startswith("#"):
            return None
    return None
