"""What gin's parser does not tell about the mappings it reads.

It builds a plain dict at once, which keeps the last of two equal names and forgets the first.
"""

import ast
import tokenize
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class RepeatedName(NamedTuple):
    """A name that one mapping sets a second time."""

    name: str
    line: int
    first_line: int


@dataclass
class _Bracket:
    """An open bracket, and for a mapping what it has set so far."""

    is_mapping: bool
    item: list[str] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)


def repeated_names(tokens: Iterable[tokenize.TokenInfo]) -> list[RepeatedName]:
    """The names that mappings in a statement set more than once, in their order.

    Names are compared as they are written, ``'a'`` and ``"a"`` alike.

    Args:
        tokens: The tokens of the statement, without comments and ends of lines.
    """
    found: list[RepeatedName] = []
    brackets: list[_Bracket] = []
    for token in tokens:
        if token.string in ("{", "[", "("):
            brackets.append(_Bracket(token.string == "{"))
        elif token.string in ("}", "]", ")"):
            inner = brackets.pop() if brackets else None
            # To gin, a name in parentheses is the name itself.
            if inner and token.string == ")" and brackets:
                brackets[-1].item += inner.item
        elif not brackets:
            continue
        elif token.string == ",":
            brackets[-1].item.clear()
        elif token.string == ":" and brackets[-1].is_mapping:
            found += _note(brackets[-1], token.start[0])
        else:
            brackets[-1].item.append(_unquoted(token))
    return found


def _note(mapping: _Bracket, line: int) -> list[RepeatedName]:
    name = "".join(mapping.item)
    mapping.item.clear()
    if not name:  # A bracket as a name, which is refused where values are checked.
        return []
    if name in mapping.lines:
        return [RepeatedName(name, line, mapping.lines[name])]
    mapping.lines[name] = line
    return []


def _unquoted(token: tokenize.TokenInfo) -> str:
    if token.type != tokenize.STRING:
        return token.string
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return str(ast.literal_eval(token.string))
    except (SyntaxError, ValueError):  # An escape that Python does not know.
        return token.string
