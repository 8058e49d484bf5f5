"""Lines for the person at the terminal, who may leave at any time: that ends nothing."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from lm_core.errors import one_line
from lm_core.parallel.world import is_told_by_another


def say(text: str, stream: TextIO | None = None, for_all: bool = True) -> None:
    """Prints a line. A stream that takes no more is silent from then on, instead of failing.

    Of several processes that train together, the first one speaks for all.

    Args:
        text: The line, or several.
        stream: Where to; None: standard output.
        for_all: Whether the first process says it. False: each says its own.
    """
    if for_all and is_told_by_another():
        return
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except (OSError, ValueError) as error:
        let_go(stream, error)


def print_table(rows: Iterable[Sequence[str]]) -> None:
    """Prints rows in columns on standard output, one line each, however long.

    Args:
        rows: The cells of each row; a row may have fewer than others.
    """
    # A name from outside must not end a line or move a cursor.
    rows = [[one_line(cell) for cell in row] for row in rows]
    n_columns = max(len(row) for row in rows)
    # A row's last cell may run on: nothing stands behind it.
    widths = [
        max((len(row[i]) for row in rows if len(row) > i + 1), default=0) for i in range(n_columns)
    ]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join(cells).rstrip())


def warn(message: str) -> None:
    """Tells the person who watches, on standard error, what may not be as they think."""
    say(f"warning: {one_line(message)}", sys.stderr)


def let_go(stream: TextIO, error: Exception) -> None:
    """Makes a stream silent, with what it still holds, after an error in writing to it.

    A reader who has gone wants to hear no more; a disk that is full is worth a warning.
    """
    try:
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    except (OSError, ValueError):  # It is no file of the system.
        return
    is_told = isinstance(error, OSError) and not isinstance(error, BrokenPipeError)
    if is_told and stream is not sys.stderr:
        warn(f"the output takes no more, and the run goes on in silence: {error}")
