"""Files with one JSON object a line, each of a step: the metrics and the samples of a run."""

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lm_core.atomic_files import append_whole, sync_folder, temporary_name, write_synced
from lm_core.errors import MachineError

# A line of metrics has some hundred bytes, a sample a few for each token; what is longer than this
# is something else.
_LONGEST_LINE = 16 * 2**20


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Adds a line for each row, or none at all where not all can be written.

    Raises:
        MachineError: They cannot be written.
    """
    lines = "".join(json.dumps(json_row(row), ensure_ascii=False) + "\n" for row in rows)
    try:
        append_whole(path, lines.encode("utf-8", errors="backslashreplace"))
    except OSError as error:
        raise cannot_write(path, error) from error


def json_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with null where JSON has no number: for infinity and what is none."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


class Lines(NamedTuple):
    """What a file holds.

    Attributes:
        n: How many lines.
        last_step: The step of the last; 0 where there is none.
    """

    n: int
    last_step: int


def rewind(path: Path, step: int) -> Lines:
    """Takes the lines after a step, and those that are none, off a file; makes one that is missing.

    Of a line that is no later than the one before it, or later than the one after it, nothing is
    known but that it should not be there: it goes too.

    Returns:
        What is left.

    Raises:
        MachineError: It cannot be written, or is no file of its own.
    """
    # To read from a pipe would wait for ever, and to write through a link change what is elsewhere.
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise MachineError(f"{path} is not a regular file; move it away")
    if path.exists() and path.stat().st_nlink > 1:
        message = f"{path} is a hard link: what is written to it would change another file too"
        raise MachineError(f"{message}; put a copy in its place")
    temporary = temporary_name(path)
    try:
        if not path.exists():
            write_synced(path, b"")
        n, n_to_go, last_step = 0, 0, 0
        for _, found in _lines_with_step(path, step):
            n, n_to_go = n + (found is not None), n_to_go + (found is None)
            last_step = found or last_step
        if n_to_go:
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as stream:
                stream.writelines(line for line, found in _lines_with_step(path, step) if found)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error
    return Lines(n, last_step)


def _lines_with_step(path: Path, last_step: int) -> Iterator[tuple[bytes, int | None]]:
    """Each line of a file with its step; None for one that is not to stay."""
    before, waiting = 0, None
    for line in _lines(path):
        step = _step_of(line)
        is_there = waiting is not None and step == waiting[1]
        if step is None or is_there or not before < step <= last_step:
            yield line, None
            continue
        if waiting is not None:
            # A line whose step is one digit wrong must not cost all those that follow.
            is_outlier = step < waiting[1]
            yield waiting[0], None if is_outlier else waiting[1]
            before = before if is_outlier else waiting[1]
        waiting = line, step
    if waiting is not None:
        yield waiting


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while line := stream.readline(_LONGEST_LINE):
            if len(line) == _LONGEST_LINE:
                message = f"{path} has a line of {len(line):,} bytes or more"
                raise MachineError(f"{message}; move it away, and the run goes on without it")
            yield line


def _step_of(line: bytes) -> int | None:
    """The step, from 1, that a line of metrics or a sample is of; None for what is no such line."""
    # Nothing else is parsed: there may be millions of lines of something else.
    if not (line.startswith(b"{") and line.endswith(b"}\n")):
        return None
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, RecursionError):
        return None
    return step if type(step) is int and step > 0 else None


def cannot_write(path: Path, error: OSError) -> MachineError:
    """The error about a file that the system does not let be written."""
    return MachineError(f"{path} cannot be written: {error.strerror or error}")
