"""The syntax of YAML: a text as the mapping that it is, or what it is instead.

YAML is read by ruamel.yaml as YAML 1.2, where ``3e-4`` is a number, ``off`` is a text, and every
key knows its line.
"""

import re
import warnings

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode
from ruamel.yaml.reader import ReaderError

from lm_core.errors import InputError

MAPPING = "tag:yaml.org,2002:map"
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
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


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
        code = f"U+{ord(match[0]):04X}"
        raise YamlMistake(f'{code} ends a line to some programs only; write "\\u{code[2:]}"', line)
    root = _composed(text)
    if root is None:
        return None
    if not isinstance(root, MappingNode) or str(root.tag) != MAPPING:
        message = "a configuration is a mapping, with lines such as `n_layers: 4`"
        raise YamlMistake(message, root.start_mark.line + 1)
    return root


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
        raise YamlMistake(f"not valid YAML: {message}", line) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlMistake(f"not valid YAML: {str(error).splitlines()[0]}", line) from error
    except RecursionError as error:
        message = "not valid YAML: lists and mappings are nested too deep"
        raise YamlMistake(message) from error
    except (YAMLError, ValueError, OverflowError) as error:
        raise YamlMistake(f"not valid YAML: {str(error).splitlines()[0]}") from error
    # A file of comments, and one with `---` alone, has a plain scalar of no letters.
    is_empty = isinstance(root, ScalarNode) and root.value == "" and not root.style
    return None if is_empty else root


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
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith("%"):
            return number
        if line.strip() and not line.lstrip().startswith("#"):
            return None
    return None
