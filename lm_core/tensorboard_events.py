"""A run for TensorBoard: its curves, its samples, and its hyperparameters with what came out.

The record of the run is the truth. Each start makes the events anew from it, so that they tell
what it tells, whatever was lost or done twice; of the events there were, only the times are kept.
"""

import contextlib
import errno
import json
import math
import os
import re
import statistics
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lm_core.atomic_files import append_whole
from lm_core.config.rendering import yaml_value
from lm_core.extras import needed
from lm_core.followers import Follower
from lm_core.output import warn
from lm_core.record import RunDirectory

# Where each column of the metrics is shown; those of hooks follow in a group of their own.
TAGS = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "bits_per_byte": "loss/validation_bits_per_byte",
    "learning_rate": "optimization/learning_rate",
    "muon_learning_rate": "optimization/muon_learning_rate",
    "grad_norm": "optimization/grad_norm",
    "skipped_batches": "optimization/skipped_batches",
    "tokens_per_second": "speed/tokens_per_second",
}
_OF_HOOKS = "hooks"
# What a sampler was told stands beside each text, in this order.
_SETTINGS_OF_SAMPLES = ("seed", "temperature", "top_k", "top_p")
# Of the ways a run can end; of a run that was stopped, nobody knows yet.
_STATUS = {"completed": "SUCCESS", "diverged": "FAILURE", "failed": "FAILURE"}
# TensorBoard reads what has tfevents in its name, in the order of the names.
_OUR_FILE = re.compile(r"events\.out\.tfevents\.[0-9]{20}", re.ASCII)
_TEMPORARY = ".unfinished"
# A fence of Markdown has at least so many backticks.
_SHORTEST_FENCE = 3
# TensorBoard keeps numbers of 64 bits: larger integers than this would be shown rounded.
_LARGEST_EXACT = 2**53
# Curves are in float32, where anything larger would be infinite.
_LARGEST_SCALAR = float(np.finfo(np.float32).max)


def require_tensorboard() -> ModuleType:
    """What writes event files.

    Raises:
        InputError: The package is missing or broken; says how it is installed.
    """
    return needed("tensorboard", "tensorboard", "--tensorboard", "lm_core.event_files")


class TensorBoardEvents(Follower):
    """Writes events into ``RUN/tensorboard``, from the first step of the run on.

    Whatever goes wrong is told once, and nothing more is written: training goes on.

    Args:
        run: The run, whose record so far is written first.
        hyperparameters: All of them with their values.

    Raises:
        InputError: The package ``tensorboard`` is missing.
    """

    def __init__(self, run: RunDirectory, hyperparameters: Mapping[str, Any]) -> None:
        self._format = require_tensorboard()
        self._run, self._hyperparameters = run, hyperparameters
        self._file = run.path / "tensorboard" / f"events.out.tfevents.{time.time_ns():020d}"
        self._is_written = True
        self._outcome = _Outcome()
        with self._harmless():
            self._begin()

    def metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds the numbers of steps."""
        now = time.time()
        self._append(self._scalars(row, now) for row in rows)

    def samples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds texts."""
        now = time.time()
        self._append(self._text(row, now) for row in rows)

    def ended(self, outcome: str, step: int) -> None:
        """Adds what came out, for the page that compares runs."""
        now = time.time()
        final = {f"final/{name}": value for name, value in self._outcome.numbers().items()}
        status = _STATUS.get(outcome, "UNKNOWN")
        parts = [(self._format.scalars, step, final), (self._format.session_end, status)]
        self._append(make(*arguments, now) for make, *arguments in parts)

    def _append(self, events: Iterable[bytes]) -> None:
        if self._is_written:
            with self._harmless():
                append_whole(self._file, b"".join(events))

    @contextlib.contextmanager
    def _harmless(self) -> Iterator[None]:
        # Also what is wrong in another's code, or in the version of it, must not end a training.
        try:
            yield
        except Exception as error:
            self._is_written = False
            reason = error.strerror if isinstance(error, OSError) else None
            reason = reason or f"{type(error).__name__}: {error}"
            message = f"{self._file.parent}: events for TensorBoard cannot be written: {reason}"
            warn(f"{message}; training goes on without them")

    def _begin(self) -> None:
        """Writes the record so far into a new file, which takes the place of those there were."""
        folder = self._file.parent
        folder.mkdir(exist_ok=True)
        if folder.is_symlink():
            raise OSError(errno.ELOOP, "a link is in the place of this folder")
        named = sorted(path for path in folder.iterdir() if _OUR_FILE.fullmatch(path.name))
        before = [path for path in named if path.is_file() and not path.is_symlink()]
        times: dict[int, float] = {}
        for path in before:
            times = self._format.times_of_steps(path) | times
        temporary = folder / _TEMPORARY
        temporary.unlink(missing_ok=True)
        try:
            with temporary.open("xb") as stream:
                stream.writelines(self._events_so_far(times))
            temporary.rename(self._file)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        for path in before:
            _void(path)

    def _events_so_far(self, times: Mapping[int, float]) -> Iterator[bytes]:
        now = time.time()
        yield self._format.beginning(now)
        plain = {key: _plain(value) for key, value in self._hyperparameters.items()}
        yield self._format.session_start(os.fspath(self._run.path), plain, now)
        for row in _rows(self._run.metrics):
            yield self._scalars(row, times.get(row["step"], now))
        for row in _rows(self._run.samples):
            yield self._text(row, times.get(row["step"], now))

    def _scalars(self, row: Mapping[str, Any], now: float) -> bytes:
        values = {name: v for name, v in row.items() if name != "step" and _is_scalar(v)}
        self._outcome.take(values)
        tagged = {TAGS.get(name, f"{_OF_HOOKS}/{name}"): v for name, v in values.items()}
        return self._format.scalars(row["step"], tagged, now)

    def _text(self, row: Mapping[str, Any], now: float) -> bytes:
        # There was no number when each step had only one sample.
        tag = f"samples/{row.get('sample', 0)}"
        return self._format.text(row["step"], tag, _markdown(row), now)


class _Outcome:
    """What a run comes to, kept up to date with each step."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._best = math.inf
        self._speeds = array("d")

    def take(self, row: Mapping[str, float]) -> None:
        """Takes the finite numbers of the next step."""
        self._last |= row
        self._best = min(self._best, row.get("val_loss", math.inf))
        if "tokens_per_second" in row:
            self._speeds.append(row["tokens_per_second"])

    def numbers(self) -> dict[str, float]:
        """The final metrics, as far as there are any."""
        names = {"train_loss": "train_loss", "val_loss": "validation_loss"}
        names |= {"bits_per_byte": "validation_bits_per_byte"}
        found = {name: self._last[column] for column, name in names.items() if column in self._last}
        if math.isfinite(self._best):
            found["best_validation_loss"] = self._best
        if self._speeds:
            # The first step, which takes far longer, has no weight in the median.
            found["tokens_per_second"] = statistics.median(self._speeds)
        return found


def _void(path: Path) -> None:
    """Makes a file of events say nothing any more.

    A TensorBoard that is looking at it would wait for ever where it is gone, and goes on to the
    next where it just ends. By the next start it has done so, and the empty file may go.
    """
    status = path.stat()
    # Under its other names, a file may be somebody's copy.
    if status.st_size and status.st_nlink == 1:
        os.truncate(path, 0)
    else:
        path.unlink()


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            yield json.loads(line)


def _is_scalar(value: Any) -> bool:
    # Infinity and what is no number have no place in a curve: the record has null there too.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= _LARGEST_SCALAR


def _plain(value: Any) -> bool | float | str:
    """A value of a hyperparameter as the page shows it: all but numbers and texts in YAML."""
    if isinstance(value, bool | str) or (_is_scalar(value) and abs(value) <= _LARGEST_EXACT):
        return value
    return yaml_value(value)


def _markdown(row: Mapping[str, Any]) -> str:
    """A sample and what it was made from, in blocks of code: nothing in them is Markdown."""
    told = [name for name in _SETTINGS_OF_SAMPLES if name in row]
    settings = ", ".join(f"{name} {yaml_value(row[name])}" for name in told)
    parts = {"prompt": row.get("prompt"), "settings": settings, "text": row.get("text")}
    return "\n\n".join(f"**{name}**\n\n{_fenced(str(part))}" for name, part in parts.items())


def _fenced(text: str) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, _SHORTEST_FENCE)
    return f"{fence}\n{text}\n{fence}"
