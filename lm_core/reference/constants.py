"""The numbers that stand in the code, found in its syntax trees."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeGuard

# Counts, positions and dimensions of tensors, which speak for themselves where they stand.
_PLAIN = (0, 1, 2, 3)
# Decorators of what has tables of its own for the defaults of its arguments.
_WITH_TABLES = {"configurable", "forward_hook", "update_hook"}
# Functions of libraries whose numbers are positions and dimensions, or counts and indentation.
_WITH_POSITIONS = {"insert", "flatten"}
_WITH_COUNTS = {"dumps", "sub", "split"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# The class whose fields are the table of hyperparameters.
_TABLE = "Hyperparameters"


class Constant(NamedTuple):
    """A number that has a name.

    Attributes:
        file: Its file, relative to the project.
        name: Its name.
        value: The expression that it is set to.
        reason: The comment above it; empty where there is none.
    """

    file: str
    name: str
    value: str
    reason: str


class Number(NamedTuple):
    """A number in the midst of the code.

    Attributes:
        file: Its file, relative to the project.
        line: Its line, counted from 1.
        text: The number.
    """

    file: str
    line: int
    text: str


def source_files(project: Path) -> list[Path]:
    """The files of the program: ``run.py`` and the library."""
    return [project / "run.py", *sorted((project / "lm_core").rglob("*.py"))]


def named_constants(source: str, file: str) -> list[Constant]:
    """The constants of a module that hold numbers, each with the comment above it.

    Args:
        source: The text of the module.
        file: Its name.
    """
    lines = source.splitlines()
    found = []
    for node in ast.parse(source).body:
        if _is_constant(node) and any(_numbers(node, with_positions=False)):
            value = ast.get_source_segment(source, node.value) or ""
            reason = _comment_above(lines, node.lineno)
            found.append(Constant(file, _name(node), " ".join(value.split()), reason))
    return found


def unnamed_numbers(source: str, file: str) -> list[Number]:
    """The numbers of a module that neither have a name nor stand in a table, small counts aside.

    Args:
        source: The text of the module.
        file: Its name.
    """
    tree = ast.parse(source)
    in_tables = {id(number) for node in _tables(tree) for number in _numbers(node)}
    return [
        Number(file, number.lineno, ast.unparse(number))
        for number in _numbers(tree)
        if id(number) not in in_tables and not _is_plain(number.value)
    ]


def numbers_that_decide(source: str, file: str) -> list[Number]:
    """The numbers of a module, however small, that are no mere count: a hyperparameter may be 1.

    What is left out are positions in brackets, comparisons with 0 and 1 and of lengths, one more
    and one less, a zero in the place of nothing, and what libraries count.

    Args:
        source: The text of the module, which ought to hand on what others configured.
        file: Its name.
    """
    tree = ast.parse(source)
    named = [node for node in tree.body if _is_constant(node)]
    tables = {id(number) for node in _tables(tree) for number in _numbers(node)}
    counts = {id(number) for node in ast.walk(tree) for number in _counts(node)}
    return [
        Number(file, number.lineno, ast.unparse(number))
        for statement in tree.body
        if statement not in named
        for number in _numbers(statement, with_positions=False)
        if id(number) not in tables | counts
    ]


def _counts(node: ast.AST) -> Iterator[ast.Constant]:
    """The numbers right below a piece of code that are counts for what it does with them."""
    if isinstance(node, ast.Compare):
        parts = (node.left, *node.comparators)
        is_of_length = any(ast.unparse(part).startswith("len(") for part in parts)
        yield from (part for part in parts if _is(part, _PLAIN if is_of_length else (0, 1)))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        yield from (part for part in (node.left, node.right) if _is(part, (1,)))
    elif isinstance(node, ast.IfExp):
        yield from (part for part in (node.body, node.orelse) if _is(part, (0,)))
    elif isinstance(node, ast.Call):
        name = ast.unparse(node.func).split(".")[-1]
        # What is cut, or written, comes first; then how often, or how far indented.
        given = node.args if name in _WITH_POSITIONS else node.args[1:]
        given = [*given, *(keyword.value for keyword in node.keywords)]
        if name in _WITH_POSITIONS | _WITH_COUNTS:
            yield from (part for part in given if _is(part, _PLAIN))


def _is(node: ast.AST, numbers: tuple[int, ...]) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value in numbers


def configurables(source: str) -> list[str]:
    """The functions and classes of a module that gin knows, by name."""
    nodes = ast.walk(ast.parse(source))
    defined = [node for node in nodes if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    return [node.name for node in defined if "configurable" in _decorators(node)]


def _is_plain(value: complex | str) -> bool:
    if isinstance(value, str):
        return False
    return value in _PLAIN if isinstance(value, int) else value == 0


def _is_number(value: object) -> bool:
    """Whether a literal is a number, or the text of one."""
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    return type(value) in (int, float, complex)


def _numbers(node: ast.AST, with_positions: bool = True) -> Iterator[ast.Constant]:
    """The numbers in a piece of code, or only those that are no position in brackets."""
    if isinstance(node, ast.Constant) and _is_number(node.value):
        yield node
    for name, inner in ast.iter_fields(node):
        is_position = isinstance(node, ast.Subscript) and name == "slice"
        if with_positions or not is_position:
            for part in inner if isinstance(inner, list) else [inner]:
                if isinstance(part, ast.AST):
                    yield from _numbers(part, with_positions)


def _is_constant(node: ast.AST) -> bool:
    """Whether a statement gives a value to a name in capital letters."""
    if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
        return False
    return _name(node).isupper()


def _name(node: ast.Assign | ast.AnnAssign) -> str:
    return ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)


def _tables(tree: ast.Module) -> Iterator[ast.AST]:
    """The parts of a module whose numbers are listed elsewhere, by name."""
    yield from (node for node in tree.body if _is_constant(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == _TABLE:
            yield from (field for field in node.body if isinstance(field, ast.AnnAssign))
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)) and _has_a_table(node):
            functions = node.body if isinstance(node, ast.ClassDef) else [node]
            for function in functions:
                if isinstance(function, ast.FunctionDef):
                    yield function.args


def _has_a_table(node: ast.ClassDef | ast.FunctionDef) -> bool:
    return bool(_WITH_TABLES & _decorators(node))


def _decorators(node: ast.ClassDef | ast.FunctionDef) -> set[str]:
    """The names of what decorates a function or class, without modules and arguments."""
    decorators = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    return {ast.unparse(d).split(".")[-1] for d in decorators}


def _comment_above(lines: list[str], line: int) -> str:
    """The comment that ends in the line above, as one sentence or several."""
    comment: list[str] = []
    for above in reversed(lines[: line - 1]):
        if not above.startswith("#"):
            break
        comment.insert(0, above.removeprefix("#").strip())
    return " ".join(comment)
