"""Gin's lines: a text cut where a statement ends, with brackets and long texts in one piece."""

import tokenize
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_PADDING = {tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT}
TOKEN_ERRORS = (SyntaxError, tokenize.TokenError)


class LogicalLine(NamedTuple):
    """The lines of one statement, or of the head of a block.

    Attributes:
        first: Index of its first line.
        end: Index of the line behind it.
        tokens: Its tokens without comments, ends of lines and indentation; their rows count from 1
            at ``first``.
    """

    first: int
    end: int
    tokens: list[tokenize.TokenInfo]

    def lines_in_texts(self) -> set[int]:
        """Indices of its lines that begin inside a text in three quotation marks."""
        return {
            self.first + row
            for token in self.tokens
            if token.type == tokenize.STRING
            for row in range(token.start[0], token.end[0])
        }


def logical_lines(lines: Sequence[str], start: int) -> Iterator[LogicalLine]:
    """The logical lines of a text, in their order.

    Args:
        lines: The lines of the text, each with its end.
        start: Index of the line to begin with.

    Yields:
        Each that has anything in it.

    Raises:
        SyntaxError: A line has the indentation of none before it.
        tokenize.TokenError: A bracket or text is open at the end.
    """
    rest = iter(lines[start:])
    tokens: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(lambda: next(rest, "")):
        if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER) and tokens:
            before = tokens[0].start[0] - 1
            yield LogicalLine(
                start + before,
                start + tokens[-1].end[0],
                [_moved_up(token, before) for token in tokens],
            )
            tokens = []
        elif token.type not in _PADDING and token.type != tokenize.ENDMARKER:
            tokens.append(token)


def _moved_up(token: tokenize.TokenInfo, n_rows: int) -> tokenize.TokenInfo:
    (first, begin), (last, end) = token.start, token.end
    return token._replace(start=(first - n_rows, begin), end=(last - n_rows, end))
