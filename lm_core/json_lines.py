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
    known but that it should not be there: it goes too. Lines of one step are in order where each
    has a ``sample`` that is larger than the one before.

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
        for _, stays in _lines_in_order(path, step):
            n, n_to_go = n + (stays is not None), n_to_go + (stays is None)
            last_step = stays.step if stays else last_step
        if n_to_go:
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as stream:
                stream.writelines(line for line, stays in _lines_in_order(path, step) if stays)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error
    return Lines(n, last_step)


class _Place(NamedTuple):
    """Where a line belongs in its file."""

    step: int
    sample: int


def _lines_in_order(path: Path, last_step: int) -> Iterator[tuple[bytes, _Place | None]]:
    """Each line of a file with its place; None for one that is not to stay."""
    before, waiting = _Place(0, 0), None
    for line in _lines(path):
        place = _place_of(line)
        is_there = waiting is not None and place == waiting[1]
        if place is None or is_there or place <= before or place.step > last_step:
            yield line, None
            continue
        if waiting is not None:
            # A line whose step is one digit wrong must not cost all those that follow.
            is_outlier = place < waiting[1]
            yield waiting[0], None if is_outlier else waiting[1]
            before = before if is_outlier else waiting[1]
        waiting = line, place
    if waiting is not None:
        yield waiting


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while line := stream.readline(_LONGEST_LINE):
            if len(line) == _LONGEST_LINE:
                message = f"{path} has a line of {len(line):,} bytes or more"
                raise MachineError(f"{message}; move it away, and the run goes on without it")
            yield line


def _place_of(line: bytes) -> _Place | None:
    """The step, from 1, and the sample, from 0, of a line; None for what is no such line."""
    # Nothing else is parsed: there may be millions of lines of something else.
    if not (line.startswith(b"{") and line.endswith(b"}\n")):
        return None
    try:
        row = json.loads(line)
        # Lines of metrics have no samples, nor had those of samples when each step had only one.
        place = _Place(row["step"], row.get("sample", 0))
    except (ValueError, KeyError, RecursionError):
        return None
    is_one = all(type(number) is int for number in place) and place.step > 0 <= place.sample
    return place if is_one else None


def cannot_write(path: Path, error: OSError) -> MachineError:
    """The error about a file that the system does not let be written."""
    return MachineError(f"{path} cannot be written: {error.strerror or error}")
