"""The record of a run, read: its configuration, its metrics as columns, its samples."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from lm_core.config.training_config import TrainingConfig
from lm_core.errors import InputError
from lm_core.record import RunDirectory
from lm_core.recorded_config import read_record

# A run that is being written ends a line that is only half there within this time, in seconds.
_PATIENCE = 0.2
# So often it is looked again in that time.
_LOOKS = 10
# Metrics of the longest runs stay far below this, in bytes; what is larger is something else.
_LARGEST_FILE = 4 * 2**30
# Any mapping of a run's metrics knows its step under this name.
STEP = "step"


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
    rows = _rows(run.metrics)
    if needs_metrics and not rows:
        message = f"{path} has no metrics yet: {run.metrics.name} is empty"
        raise InputError(f"{message}; wait for its first step, or leave it out")
    sources = manifest.get("sources")
    return RunRecord(
        name=name or str(path),
        path=path,
        values=values,
        sources=sources if isinstance(sources, Mapping) else {},
        manifest=manifest,
        columns=_columns(rows, run.metrics),
        samples=_rows(run.samples),
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


def _rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one a line, of the steps from 1 on, in their order.

    Raises:
        InputError: It cannot be read, or a line is damaged.
    """
    lines = _whole_lines(path)
    try:
        # One call for all lines takes a third of the time.
        rows = json.loads(f"[{','.join(lines)}]")
    except (ValueError, RecursionError):
        rows = None
    if rows is None or len(rows) != len(lines) or not all(isinstance(row, dict) for row in rows):
        rows = [_row(path, number, line) for number, line in enumerate(lines, start=1)]
    before = 0
    for number, row in enumerate(rows, start=1):
        step = row.get(STEP)
        # The samples of a step are several lines.
        if type(step) is not int or step < max(before, 1):
            message = f"{path}:{number}: is no line of a later step than the one before"
            raise InputError(f"{message}; --resume goes on with the run and mends its files")
        before = step
    return rows


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        message = f"{path}:{number}: is no JSON object, as every line there is"
        raise InputError(f"{message}; --resume goes on with the run and mends its files")
    return row


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file, once its last one is whole."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        text = _text(path)
        lines = text.split("\n")
        if not lines.pop():
            return lines
        if time.monotonic() > deadline:
            message = f"{path}:{len(lines) + 1}: the last line is only half there"
            raise InputError(
                f"{message}; --resume goes on with the run and mends its files, or take it out"
            )
        time.sleep(_PATIENCE / _LOOKS)


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            raise InputError(f"{path} is missing, or no file, so that there is no run to look at")
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path} is larger than {_LARGEST_FILE:,} bytes, so none of a run")
        return path.read_bytes().decode()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged: it is not UTF-8 text") from error


def _columns(rows: Sequence[Mapping[str, Any]], path: Path) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, np.ndarray] = {STEP: np.zeros(0)}
    for name in names:
        try:
            # What is null is no number: it becomes NaN.
            columns[name] = np.array([row.get(name) for row in rows], dtype=np.float64)
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: {name!r} is not a number in every line") from error
    if np.any(np.diff(columns[STEP]) <= 0):
        raise InputError(f"{path}: a step has two lines; --resume mends it")
    return columns
