"""The record of a run, read: its configuration, its metrics as columns, its samples."""

import contextlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from lm_core.config.training_config import TrainingConfig
from lm_core.errors import InputError
from lm_core.record import RunDirectory
from lm_core.recorded_config import read_record

# A run that is being written ends a line that is only half there within this time, in seconds.
_PATIENCE = 0.2
# So often it is looked again in that time.
_LOOKS = 10
# So many lines are looked at together: fewer take longer, more take memory.
_LINES_AT_ONCE = 10_000
# The name of the step in every line.
STEP = "step"
_MENDED = "--resume goes on with the run and mends its files"


@dataclass(frozen=True)
class RunRecord:
    """What a run directory says.

    Attributes:
        name: The run as it was named.
        path: Its directory.
        values: Its configuration.
        sources: For every hyperparameter that its manifest knows, where its value was set.
        manifest: What is known about the run as a whole.
        columns: For each name in its metrics a float64 value for each line, NaN where it has none;
            ``step`` is among them, whole numbers that rise.
        samples: The lines of its samples.
        is_held: Whether a process writes to it now; None where the system does not tell.
    """

    name: str
    path: Path
    values: TrainingConfig
    sources: Mapping[str, str]
    manifest: Mapping[str, Any]
    columns: Mapping[str, np.ndarray]
    samples: Sequence[Mapping[str, Any]]
    is_held: bool | None

    @property
    def steps(self) -> np.ndarray:
        """The step of each line of its metrics."""
        return self.columns[STEP]

    @property
    def n_tokens_a_step(self) -> int:
        """Tokens that a step is computed from."""
        return self.values.batch_size * self.values.max_seq_len

    def column(self, name: str) -> np.ndarray:
        """The values of a name for each line; NaN for all of them where the run has no such."""
        return self.columns.get(name, np.full(len(self.steps), np.nan))


def read_run(path: Path, name: str | None = None, needs_metrics: bool = True) -> RunRecord:
    """Reads the record of a run.

    Args:
        path: Its directory.
        name: What to call it; None: by its path.
        needs_metrics: Whether a run without a single line of metrics is refused.

    Raises:
        InputError: There is no run, or its record is damaged, or of another version of the lab.
    """
    run = RunDirectory.open(path)
    manifest = run.manifest
    try:
        values = read_record(run).values
    except InputError as error:
        raise InputError(f"{error.message}{_of_another_version(manifest)}") from error
    columns = _columns(run.metrics)
    if needs_metrics and not len(columns[STEP]):
        message = f"{path} has no metrics yet: {run.metrics.name} is empty"
        raise InputError(f"{message}; wait for its first step, or leave it out")
    sources = manifest.get("sources")
    return RunRecord(
        name=name or str(path),
        path=path,
        values=values,
        sources=sources if isinstance(sources, Mapping) else {},
        manifest=manifest,
        columns=columns,
        samples=[row for rows in _blocks(run.samples) for row in rows],
        is_held=run.is_held,
    )


def _of_another_version(manifest: Mapping[str, Any]) -> str:
    """Words about the version of the lab that made a run, where it is another than this."""
    versions = manifest.get("versions")
    then = versions.get("lm_core") if isinstance(versions, Mapping) else None
    now = metadata.version("lm_core")
    if then == now:
        return ""
    return f"; the run was made by version {then or 'unknown'} of the lab, and this is {now}"


def _columns(path: Path) -> dict[str, np.ndarray]:
    """The lines of a file as columns, NaN where a line has no number for a name.

    Raises:
        InputError: It cannot be read, or a line is damaged.
    """
    blocks: list[dict[str, np.ndarray]] = [{STEP: np.zeros(0)}]
    for rows in _blocks(path):
        names = dict.fromkeys(name for row in rows for name in row)
        blocks.append({name: _numbers(path, name, rows) for name in names})
    names = dict.fromkeys(name for block in blocks for name in block)
    columns = {
        name: np.concatenate(
            [block.get(name, np.full(len(block[STEP]), np.nan)) for block in blocks]
        )
        for name in names
    }
    if np.any(np.diff(columns[STEP]) <= 0):
        raise InputError(f"{path}: a step has two lines; {_MENDED}")
    return columns


def _numbers(path: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    try:
        # What is null is no number: it becomes NaN.
        return np.array([row.get(name) for row in rows], dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: {name!r} is not a number in every line") from error


def _blocks(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The objects of a file with one a line, of steps that never fall, some thousand at a time.

    Raises:
        InputError: It cannot be read, or a line is damaged.
    """
    n_before, step = 0, 1
    for lines in _lines(path):
        rows = _objects(lines)
        for number, row in enumerate(rows, start=n_before + 1):
            if not isinstance(row, dict):
                message = f"{path}:{number}: is no JSON object, as every line there is"
                raise InputError(f"{message}; {_MENDED}")
            later = row.get(STEP)
            # The samples of a step are several lines.
            if type(later) is not int or later < step:
                message = f"{path}:{number}: is no line of a later step than the one before"
                raise InputError(f"{message}; {_MENDED}")
            step = later
        yield rows
        n_before += len(lines)


def _objects(lines: Sequence[str]) -> list[Any]:
    """What each line holds; None where it is no JSON."""
    # One call for all lines takes a third of the time.
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(f"[{','.join(lines)}]")
        if len(found) == len(lines):
            return found
    return [_object(line) for line in lines]


def _object(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _lines(path: Path) -> Iterator[list[str]]:
    """The lines of a file, some thousand at a time, once its last one is whole."""
    try:
        if not path.is_file():
            raise InputError(f"{path} is missing, or no file, so that there is no run to look at")
        with path.open(encoding="utf-8", newline="\n") as stream:
            number = 0
            while lines := list(itertools.islice(stream, _LINES_AT_ONCE)):
                number += len(lines)
                if not lines[-1].endswith("\n"):
                    lines[-1] += _rest_of_line(stream, path, number)
                yield lines
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged: it is not UTF-8 text") from error


def _rest_of_line(stream: TextIO, path: Path, number: int) -> str:
    """What is still to come of a last line that is only half there.

    Raises:
        InputError: Nothing comes any more.
    """
    rest = ""
    for _ in range(_LOOKS):
        time.sleep(_PATIENCE / _LOOKS)
        rest += stream.readline()
        if rest.endswith("\n"):
            return rest
    message = f"{path}:{number}: the last line is only half there"
    raise InputError(f"{message}; {_MENDED}, or take that line out")
