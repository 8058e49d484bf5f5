"""The syntax of gin: a text as statements, and what is no statement, told without losing the rest.

Gin's own parser reads a statement and tells its line. It ends at the first mistake; here, reading
goes on at the next line that begins a statement.
"""

import io
import itertools
import re
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gin import config_parser

from lm_core.errors import shown

# Whoever makes more mistakes than this in one file has not written a gin file.
_MOST_MISTAKES = 100
# Gin's parser reads all pieces of a text anew for each further one: thousands take minutes.
_MOST_PIECES = 100
# Where a statement begins: at the left, unlike the lines inside brackets and blocks.
_BEGINNING = re.compile(r"(?P<name>[A-Za-z_][\w./]*)\s*[=:]|(include|import|from)\b", re.ASCII)
_INDENTED = re.compile(r"\s+[A-Za-z_][\w./]*\s*=", re.ASCII)
_MACRO = re.compile(r"%([\w./]+)", re.ASCII)
# What YAML calls by a word that gin calls by another.
WORDS_OF_YAML = {"null": "None", "true": "True", "false": "False"}
_NOT_CLOSED = "a bracket or a quotation mark that is not closed"
# What gin's parser says, its beginning, and what that means here.
_SENTENCES = {
    "Couldn't parse statement": "a line is NAME = VALUE, as in `Transformer.n_layers = 4`",
    "Expected newline": "more follows after the value; a text needs quotes, a fraction a point, "
    "a further statement its own line or flag",
    "Malformatted scope or selector": "the name holds a space, or a sign that no name has",
    "Unable to parse value": "there is no value after the =, or its quotation mark is not closed",
    "Unexpected token": "a line begins with a name, as in `Transformer.n_layers = 4`",
    "Expected indentation": "a block, NAME: with indented lines below it, has none",
    "unhashable type": "a list or a mapping is no name, as the key of a mapping must be",
    "EOF in multi-line": _NOT_CLOSED,
    "unterminated": _NOT_CLOSED,
    "maximum recursion": "lists and mappings are nested too deep",
}
_PADDING = {tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT}
_BAD_TOKEN = re.compile(r".*\n +Failed to parse token '(.*)'", re.DOTALL)
_BAD_ESCAPE = re.compile(r"\(unicode error\)")
_SYNTAX_ERRORS = (SyntaxError, tokenize.TokenError, TypeError, ValueError, RecursionError)


class Macro(NamedTuple):
    """A use of a macro, ``%name``, until it is resolved."""

    name: str


class Reference(NamedTuple):
    """A use of a configurable as a value, ``@name`` or ``@name()``."""

    text: str


class Mistake(NamedTuple):
    """A piece of a gin text that is no gin.

    Attributes:
        line: Its line, counted from 1.
        message: What is wrong with it.
        names: The names that it sets to what cannot be read.
        macros: The macros that it uses.
        hides_more: Whether it may set further names, which cannot be told.
    """

    line: int
    message: str
    names: list[str]
    macros: list[str]
    hides_more: bool


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(f"@{scoped_configurable_name}{'()' if evaluate else ''}")

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


class _Lines:
    """Lines of a text from one on, as gin's parser reads a file."""

    def __init__(self, lines: Sequence[str], start: int) -> None:
        self._rest = itertools.islice(lines, start, None)

    def readline(self) -> str:
        return next(self._rest, "")


def parse(text: str) -> list[tuple[int, Any] | Mistake]:
    """The statements of a gin text with their lines, and what is none, in their order.

    Args:
        text: Gin bindings.

    Returns:
        For each a line, counted from 1, and one of gin's statements; or a mistake.
    """
    with warnings.catch_warnings():
        # To Python, a \ that begins no escape is itself, and worth a warning to a programmer.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", SyntaxWarning)
        return list(_pieces(text))


def _pieces(text: str) -> Iterator[tuple[int, Any] | Mistake]:
    line = _line_of_many_pieces(text)
    if line is not None:
        message = f"a text of more than {_MOST_PIECES} pieces; write it in one"
        yield Mistake(line, message, [], [], hides_more=True)
        return
    lines = list(io.StringIO(text))
    start, n_mistakes = 0, 0
    while start < len(lines) and n_mistakes < _MOST_MISTAKES:
        unread = start
        try:
            for statement in config_parser.ConfigParser(_Lines(lines, start), _Delegate()):
                unread = start + statement.location.line_num
                yield unread, statement
            return
        except _SYNTAX_ERRORS as error:
            line = _line_of(error)
            stopped = None if line is None else max(unread, min(start + line, len(lines)) - 1)
            mistake, start = _mistake(lines, unread, stopped, error)
        n_mistakes += 1
        is_last = n_mistakes == _MOST_MISTAKES
        yield mistake._replace(hides_more=mistake.hides_more or is_last)


def _line_of_many_pieces(text: str) -> int | None:
    n_pieces = 0
    for token in tokens(text):
        n_pieces = n_pieces + 1 if token.type == tokenize.STRING else 0
        if n_pieces > _MOST_PIECES:
            return token.start[0]
    return None


def tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    """The tokens of a gin text, without line ends and comments, as far as it has any."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type not in _PADDING:
                yield token
    except (SyntaxError, tokenize.TokenError):
        return


def _mistake(
    lines: Sequence[str], unread: int, stopped: int | None, error: Exception
) -> tuple[Mistake, int]:
    """What is wrong, and the index of the line where reading goes on.

    Args:
        lines: All lines.
        unread: The index of the line from which on nothing has been read.
        stopped: The index of the line where the parser stopped; None where it does not tell.
        error: What it raised.
    """
    if stopped is None:
        rest = range(unread, len(lines))
        stopped = next((i for i in rest if _BEGINNING.match(lines[i])), len(lines) - 1)
    beginnings = [i for i in range(unread, stopped + 1) if _BEGINNING.match(lines[i])]
    begin = beginnings[0] if beginnings else stopped
    message = _in_words(error)
    if len(beginnings) > 1:  # It took the next statement for a part of the one before.
        message = _NOT_CLOSED
    if message == _NOT_CLOSED:
        stopped = begin
    later = range(stopped + 1, len(lines))
    end = next((i for i in later if _BEGINNING.match(lines[i])), len(lines))
    skipped = lines[begin:end]
    matches = [match for match in map(_BEGINNING.match, skipped) if match]
    mistake = Mistake(
        line=stopped + 1,
        message=message,
        names=[match["name"] for match in matches if match["name"]],
        macros=_MACRO.findall("".join(skipped)),
        hides_more=not matches or any(_INDENTED.match(line) for line in skipped),
    )
    return mistake, end


def _in_words(error: Exception) -> str:
    message = str(error.args[0] if error.args else error)
    if _BAD_ESCAPE.search(message):
        return "a \\ in a text begins an escape; write \\\\ for the sign itself, / in a path"
    token = _BAD_TOKEN.search(message)
    if token:
        # Python's own words in front of it hold an address in memory, or a line of their own.
        if token[1] in WORDS_OF_YAML:
            return f"{token[1]} is YAML; gin has {WORDS_OF_YAML[token[1]]}"
        return f"{shown(token[1])} is no value; a text needs quotes"
    for beginning, sentence in _SENTENCES.items():
        if message.startswith(beginning):
            return sentence
    return message.splitlines()[0].strip()


def _line_of(error: Exception) -> int | None:
    location = error.args[1] if len(error.args) > 1 else None
    if isinstance(location, config_parser.Location):
        return location.line_num
    # tokenize gives (file, line, ...) with a SyntaxError and (line, column) with a TokenError.
    numbers = [part for part in location or () if isinstance(part, int)]
    return numbers[0] if numbers else None
