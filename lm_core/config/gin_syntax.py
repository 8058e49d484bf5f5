"""The syntax of gin: a text as statements, and what is no statement, told without losing the rest.

Gin's own parser ends at the first mistake, so it is given one statement after the other.
"""

import io
import re
import tokenize
import warnings
from typing import Any, NamedTuple

from gin import config_parser

from lm_core.config.gin_lines import TOKEN_ERRORS, LogicalLine, logical_lines
from lm_core.config.gin_mappings import RepeatedName, repeated_names
from lm_core.errors import shown

# Whoever makes more mistakes than this in one file has not written a gin file.
_MOST_MISTAKES = 100
# Behind each bracket that is open, the text is read anew, which takes a second for so much of it.
_MOST_CHARACTERS = 600_000
# Gin's parser reads all pieces of a text anew for each further one: thousands take minutes.
_MOST_PIECES = 100
# Where a statement begins: at the left, unlike the lines inside brackets and blocks.
_BEGINNING = re.compile(r"(?P<name>[A-Za-z_][\w./]*)\s*[=:]|(include|import|from)\b", re.ASCII)
_NAME = re.compile(r"\s*(?P<name>[A-Za-z_][\w./]*)\s*=", re.ASCII)
_HEAD_OF_BLOCK = re.compile(r"(?P<name>[A-Za-z_][\w./]*)\s*:\s*(#.*)?", re.ASCII)
_INDENTATION = " \t\f"
# No line is indented less than one at the left, so that every line is inside where no block is.
_NO_BLOCK = -1
_MACRO = re.compile(r"%([\w./]+)", re.ASCII)
# What YAML calls by a word that gin calls by another.
WORDS_OF_YAML = {"null": "None", "true": "True", "false": "False"}
_EMPTY_BLOCK = "a block, NAME: with indented lines below it, has none"
_TOO_FAR_RIGHT = "this line is indented further than the others of its block"
_NOT_CLOSED = "a bracket or a quotation mark that is not closed"
# What gin's parser says, its beginning, and what that means here.
_SENTENCES = {
    "Couldn't parse statement": "a line is NAME = VALUE, as in `Transformer.n_layers = 4`",
    "Expected newline": "more follows after the value; a text needs quotes, a fraction a point, "
    "a further statement its own line or flag",
    "Malformatted scope or selector": "the name holds a space, or a sign that no name has",
    "Unable to parse value": "there is no value after the =, or its quotation mark is not closed",
    "Unexpected token": "a line begins with a name, as in `Transformer.n_layers = 4`",
    "Expected indentation": "a block has no block inside",
    "Expected 'import'": "an import is `import module` or `from package import module`",
    "Expected ':'": "a mapping has a colon behind each name, as in {'update': []}",
    "Expected file path": "the path of a file to be included stands in quotation marks",
    "unhashable type": "a list or a mapping is no name, as the key of a mapping must be",
    "EOF in multi-line": _NOT_CLOSED,
    "unterminated": _NOT_CLOSED,
    "maximum recursion": "lists and mappings are nested too deep",
}
_BAD_TOKEN = re.compile(r".*\n +Failed to parse token '(.*)'", re.DOTALL)
_BAD_ESCAPE = re.compile(r"\(unicode error\)")
_SYNTAX_ERRORS = (SyntaxError, tokenize.TokenError, TypeError, ValueError, RecursionError)


class Macro(NamedTuple):
    """A use of a macro, ``%name``, until it is resolved."""

    name: str


class Reference(NamedTuple):
    """A use of a configurable as a value, ``@name`` or ``@name()``."""

    text: str


class Parsed(NamedTuple):
    """A statement.

    Attributes:
        line: Its line, counted from 1.
        statement: What gin's parser makes of it.
        repeated: The names that its mappings set more than once, with lines of the text.
    """

    line: int
    statement: Any
    repeated: list[RepeatedName]


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


def parse(text: str) -> list[Parsed | Mistake]:
    """The statements of a gin text, and what is none, in their order.

    Args:
        text: Gin bindings.
    """
    with warnings.catch_warnings():
        # To Python, a \ that begins no escape is itself, and worth a warning to a programmer.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", SyntaxWarning)
        return _Reader(text).pieces


class _Reader:
    """Reads a text from its start to its end, whatever is in it."""

    def __init__(self, text: str) -> None:
        self.pieces: list[Parsed | Mistake] = []
        self._lines = list(io.StringIO(text))
        self._start = 0
        self._n_mistakes = 0
        self._n_characters = 0
        # The head of the block whose lines are being read, how far it and they are indented, and
        # its line until it has any.
        self._indentation_inside = 0
        self._block, self._indentation_of_block, self._line_of_empty_block = "", _NO_BLOCK, 0
        while self._start < len(self._lines) and not self._gives_up():
            begin = self._start
            self._n_characters += sum(map(len, self._lines[begin:]))
            try:
                self._read_until_open(begin)
            except TOKEN_ERRORS as error:
                self._pass_over(error, begin)
        self._end_block()

    def _gives_up(self) -> bool:
        return self._n_mistakes >= _MOST_MISTAKES or self._n_characters > _MOST_CHARACTERS

    def _read_until_open(self, begin: int) -> None:
        """Reads to the end, or to a bracket or text that is open and takes what is none of it."""
        for line in logical_lines(self._lines, begin):
            self._start = line.end
            first = self._lines[line.first]
            indentation = _indentation(first)
            if indentation <= self._indentation_of_block:
                self._end_block()
            head = _HEAD_OF_BLOCK.fullmatch(first.strip())
            if head and not self._block:
                self._block, self._line_of_empty_block = head["name"], line.first + 1
                self._indentation_of_block = indentation
                continue
            if self._line_of_empty_block:
                self._line_of_empty_block, self._indentation_inside = 0, indentation
            piece = self._parsed(line)
            if self._block and indentation > self._indentation_inside:
                piece = self._mistake(line.first, line.end, line.first, _TOO_FAR_RIGHT)
            if isinstance(piece, Parsed):
                self.pieces.append(piece)
                continue
            inside = line.lines_in_texts()
            swallowed = [i for i in range(line.first + 1, line.end) if self._begins(i, inside)]
            if swallowed:  # It is open, and took the next statement for a part of itself.
                self._start = swallowed[0]
                self._add(self._mistake(line.first, swallowed[0], line.first, _NOT_CLOSED))
                return
            self._add(piece)
            if self._gives_up() or _closes_too_much(line):
                return  # What is cut behind it would be cut as if it stood in brackets.
        self._start = len(self._lines)

    def _begins(self, index: int, inside: set[int]) -> bool:
        return index not in inside and _BEGINNING.match(self._lines[index]) is not None

    def _end_block(self) -> None:
        if self._line_of_empty_block:
            self._add(Mistake(self._line_of_empty_block, _EMPTY_BLOCK, [], [], hides_more=False))
        self._block, self._indentation_of_block, self._line_of_empty_block = "", _NO_BLOCK, 0

    def _parsed(self, line: LogicalLine) -> Parsed | Mistake:
        body = "".join(self._lines[line.first : line.end]).lstrip(_INDENTATION)
        try:
            _refuse_many_pieces(line)
            block = f"{self._block}." if self._block else ""
            parser = config_parser.ConfigParser(io.StringIO(block + body), _Delegate())
            statement, *more = parser
            if more:
                raise SyntaxError("Expected newline")
        except _SYNTAX_ERRORS as error:
            at = line.first + (_line_of(error) or 1) - 1
            return self._mistake(line.first, line.end, min(at, line.end - 1), _in_words(error))
        repeated = [
            RepeatedName(found.name, line.first + found.line, line.first + found.first_line)
            for found in repeated_names(line.tokens)
        ]
        return Parsed(line.first + 1, statement, repeated)

    def _pass_over(self, error: Exception, begin: int) -> None:
        """Takes note of what has no logical lines, and goes on at the next statement.

        Args:
            error: What was raised.
            begin: Index of the line from which on the lines were being cut.
        """
        lines, start = self._lines, self._start
        self._line_of_empty_block = 0
        if isinstance(error, IndentationError):
            at = max(start, min(begin + (_line_of(error) or 1), len(lines)) - 1)
            self._start = at if at > begin else at + 1
            self._add(Mistake(at + 1, _in_words(error), [], [], hides_more=True))
            return
        if start >= len(lines):  # One bracket closes too much, which has been told in its line.
            return
        written = (i for i in range(start, len(lines)) if lines[i].split("#")[0].strip())
        first = next(written, start)
        rest = range(first + 1, len(lines))
        self._start = next((i for i in rest if self._begins(i, set())), len(lines))
        self._add(self._mistake(first, self._start, first, _in_words(error)))

    def _mistake(self, first: int, end: int, at: int, message: str) -> Mistake:
        """What is wrong with the lines from one index up to another, at a third."""
        is_inside = _indentation(self._lines[first]) > self._indentation_of_block
        block = f"{self._block}." if self._block and is_inside else ""
        match = _NAME.match(self._lines[first])
        text = "".join(self._lines[first:end])
        return Mistake(
            line=at + 1,
            message=message,
            names=[block + match["name"]] if match else [],
            macros=_MACRO.findall(text),
            hides_more=match is None or "=" in text[match.end() :],
        )

    def _add(self, mistake: Mistake) -> None:
        self._n_mistakes += 1
        self.pieces.append(mistake._replace(hides_more=mistake.hides_more or self._gives_up()))


def _closes_too_much(line: LogicalLine) -> bool:
    signs = [token.string for token in line.tokens]
    return sum(map(signs.count, ")]}")) > sum(map(signs.count, "([{"))


def _indentation(line: str) -> int:
    """How far a line is indented; a form feed begins the line anew, as in Python."""
    before = line[: len(line) - len(line.lstrip(_INDENTATION))]
    return len(before.rpartition("\f")[2])


def _refuse_many_pieces(line: LogicalLine) -> None:
    n_pieces = 0
    for token in line.tokens:
        n_pieces = n_pieces + 1 if token.type == tokenize.STRING else 0
        if n_pieces > _MOST_PIECES:
            raise SyntaxError(f"a text of more than {_MOST_PIECES} pieces; write it in one")


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
