"""How a study is going, for the person who watches: a table that lives, or lines in a log."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lm_core.config.rendering import yaml_value
from lm_core.errors import one_line
from lm_core.output import let_go, say
from lm_core.progress import duration
from lm_core.search.jobs import Job
from lm_core.search.trial_records import (
    COMPLETED,
    DIVERGED,
    FAILED,
    PRUNED,
    RUNNING,
    TrialRecord,
)

# Often enough to see that it moves; to read all trials and draw takes milliseconds.
_SECONDS_BETWEEN_TABLES = 0.5
# Seldom enough for a log, beside a line for each trial that ends.
_SECONDS_BETWEEN_LINES = 30.0
# Digits that tell two values apart at sight.
_DIGITS = 4


def counted(n: int, noun: str) -> str:
    """A number of things: ``1 trial``, ``2 trials``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def values_told(values: Mapping[str, Any]) -> str:
    """The values of a trial in a line: ``learning_rate 0.00123, n_layers 4``."""
    return one_line(", ".join(f"{key} {value_told(value)}" for key, value in values.items()))


def value_told(value: Any) -> str:
    """A value for people, with no more digits than tell something."""
    if isinstance(value, float):
        return f"{value:.{_DIGITS}g}"
    return value if isinstance(value, str) else yaml_value(value)


def best_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The completed trial with the lowest validation loss; of equal ones, the first."""
    done = [record for record in records if record.outcome == COMPLETED and record.loss is not None]
    return min(done, key=lambda record: (record.loss, record.number), default=None)


class StudyProgress:
    """Shows how a study is going; a context manager while it runs.

    On a terminal, a table of the trials that run here lives below a line for each that has ended.
    Elsewhere there are plain lines. When nobody reads it any more, the study goes on in silence.

    Args:
        n_trials: How many trials there are to be.
        max_steps: Steps of a trial.
        read: Gives all trials.
        stream: Where to; None: standard output.
        clock: Seconds, for the pace.
    """

    def __init__(
        self,
        n_trials: int,
        max_steps: int,
        read: Callable[[], list[TrialRecord]],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._n_trials, self._max_steps, self._read = n_trials, max_steps, read
        self._stream = stream or sys.stdout
        self._clock = clock
        self._start, self._next = clock(), clock()
        self._next_line = clock() + _SECONDS_BETWEEN_LINES
        self._told = {record.number for record in read() if record.outcome != RUNNING}
        self._n_before = len(self._told)
        self._live: Live | None = None
        self._names: list[str] = []
        if self._stream.isatty():
            console = Console(file=self._stream, highlight=False, markup=False)
            # Without a thread of its own, which could not tell that the terminal has gone away.
            self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._show(self._live.start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._show(self._live.stop)

    def note(self, text: str) -> None:
        """Something worth a line of its own, shown literally."""
        if self._live is None:
            say(text, self._stream)
        else:
            console = self._live.console
            self._show(lambda: console.print(Text(text), soft_wrap=True))

    def watch(self, running: Sequence[Job]) -> None:
        """Shows how it goes, if it is time to.

        Args:
            running: What is being run here.
        """
        now = self._clock()
        names = [job.progress()[0] for job in running]
        if now < self._next and names == self._names:
            return
        self._next, self._names = now + _SECONDS_BETWEEN_TABLES, names
        records = self._read()
        for record in records:
            if record.outcome != RUNNING and record.number not in self._told:
                self._told.add(record.number)
                earlier = [other for other in records if other.number in self._told]
                self.note(ended(record, earlier, self._max_steps))
        if self._live is not None:
            table = self._table(running, records)
            self._show(lambda: self._live.update(table, refresh=True))
        elif now >= self._next_line and len(self._told) < self._n_trials:
            self._next_line = now + _SECONDS_BETWEEN_LINES
            self.note(self.status(records))

    def status(self, records: Sequence[TrialRecord]) -> str:
        """How many trials are done, and how, and how long it will take."""
        counts = Counter(record.outcome for record in records)
        n_done = sum(counts.values()) - counts[RUNNING]
        parts = [f"{n_done} of {counted(self._n_trials, 'trial')} are done"]
        # Few trials diverge, and the line is to fit a terminal.
        told = (PRUNED, *((DIVERGED,) if counts[DIVERGED] else ()), FAILED, RUNNING)
        parts += [f"{counts[name]} {name}" for name in told]
        best = best_of(records)
        if best is not None:
            parts.append(f"best {best.loss:.4f} nats (trial {best.number})")
        n_here = n_done - self._n_before
        if n_here > 0 and n_done < self._n_trials:
            seconds = (self._clock() - self._start) / n_here * max(0, self._n_trials - n_done)
            parts.append(f"{duration(seconds)} left")
        return ", ".join(parts)

    def _table(self, running: Sequence[Job], records: Sequence[TrialRecord]) -> Group:
        values = {record.name: record.values for record in records}
        table = Table(box=None, pad_edge=False)
        for heading in ("running", "step", "validation loss"):
            table.add_column(heading, no_wrap=True, overflow="ellipsis")
        # Where there is no room for all, the values are cut off: only what may wrap is narrowed.
        table.add_column("values")
        for job in running:
            name, step, loss = job.progress()
            told = "" if loss is None else f"{loss:.4f}"
            tried = Text(values_told(values.get(name, {})), no_wrap=True, overflow="ellipsis")
            table.add_row(Text(name), Text(f"{step}/{self._max_steps}"), Text(told), tried)
        return Group(table, Text(self.status(records)))

    def _show(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (OSError, ValueError) as error:
            self._live = None
            let_go(self._stream, error)


def ended(record: TrialRecord, earlier: Sequence[TrialRecord], max_steps: int) -> str:
    """A line about a trial that has ended.

    Args:
        record: The trial.
        earlier: The trials that had ended when it did, for what was best before.
        max_steps: Steps of a whole trial.
    """
    name = f"trial {record.number}: "
    told = f"  {values_told(record.values)}"
    if record.outcome == COMPLETED:
        is_best = best_of([*earlier, record]) == record
        return f"{name}{record.loss:.4f} nats{told}{'  (best so far)' if is_best else ''}"
    if record.outcome == PRUNED:
        loss = "" if record.newest_loss is None else f", {record.newest_loss:.4f} nats"
        return f"{name}pruned after step {record.steps} of {max_steps}{loss}{told}"
    return one_line(f"{name}{record.outcome}: {record.reason}{told}")
