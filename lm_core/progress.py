"""How training is going, for the person who watches."""

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from lm_core.output import let_go, say

# Often enough to see that it moves, seldom enough for a log.
_SECONDS_BETWEEN_LINES = 10.0
# Seconds in a minute, and minutes in an hour.
_SIXTY = 60
# The pace is averaged over about this many seconds.
_SECONDS_AVERAGED = 10.0


class TrainingProgress(Protocol):
    """What the loop tells; a context manager while it runs."""

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """The newest step, its loss in nats per token, and its speed."""

    def note(self, text: str) -> None:
        """Something worth a line of its own, shown literally."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def training_progress(
    first_step: int, last_step: int, stream: TextIO | None = None
) -> TrainingProgress:
    """A progress bar on a terminal; elsewhere a plain line now and then.

    Args:
        first_step: The first step that will be done.
        last_step: The last one.
        stream: Where to; None: standard output.
    """
    stream = stream or sys.stdout
    if stream.isatty():
        return ProgressBar(first_step, last_step, stream)
    return ProgressLines(first_step, last_step, stream)


class _TimeLeft:
    """Estimates the time to the last step from the recent pace."""

    def __init__(self, first_step: int, last_step: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_step = last_step
        self._step, self._time = first_step - 1, clock()
        self._seconds_a_step: float | None = None

    def after(self, step: int) -> str:
        """Hours, minutes and seconds from here to the end."""
        now = self._clock()
        if step > self._step:
            newest = (now - self._time) / (step - self._step)
            average = newest if self._seconds_a_step is None else self._seconds_a_step
            share_of_old = math.exp(-(now - self._time) / _SECONDS_AVERAGED)
            self._seconds_a_step = newest + share_of_old * (average - newest)
            self._step, self._time = step, now
        return duration((self._seconds_a_step or 0.0) * (self._last_step - step))


def duration(seconds: float) -> str:
    """A time for people: ``1:23:45`` or ``3:07``."""
    minutes, seconds = divmod(round(seconds), _SIXTY)
    hours, minutes = divmod(minutes, _SIXTY)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _line(step: int, last_step: int, loss: float, tokens_per_second: float, left: str) -> str:
    # A step that is only recorded anew has no speed.
    speed = "" if math.isnan(tokens_per_second) else f"{tokens_per_second:,.0f} tokens/s  "
    return f"step {step}/{last_step}  loss {loss:.4f} nats  {speed}{left} left"


class ProgressLines:
    """Plain lines: the first step, one every ten seconds, the last step, and every note.

    Args:
        first_step: The first step that will be done.
        last_step: The last one.
        stream: Where to. When nobody reads it any more, training goes on in silence.
        clock: Seconds, for the pace.
    """

    def __init__(
        self,
        first_step: int,
        last_step: int,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._last_step = last_step
        self._stream = stream
        self._clock = clock
        self._left = _TimeLeft(first_step, last_step, clock)
        self._next_line = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Prints a line if it is time for one."""
        if self._clock() < self._next_line and step < self._last_step:
            return
        self._next_line = self._clock() + _SECONDS_BETWEEN_LINES
        left = self._left.after(step)
        self.note(_line(step, self._last_step, loss, tokens_per_second, left))

    def note(self, text: str) -> None:
        """Prints a line."""
        say(text, self._stream)


class ProgressBar:
    """A bar on a terminal, with notes above it.

    Args:
        first_step: The first step that will be done.
        last_step: The last one.
        stream: The terminal. When it goes away, training goes on in silence.
    """

    def __init__(self, first_step: int, last_step: int, stream: TextIO) -> None:
        self._stream = stream
        self._console = Console(file=stream, highlight=False, markup=False)
        columns = (BarColumn(bar_width=None), TextColumn("{task.fields[text]}", markup=False))
        # Without a thread of its own, which could not tell that the terminal has gone away.
        self._progress = Progress(
            *columns, console=self._console, transient=True, auto_refresh=False
        )
        self._task = self._progress.add_task(
            "", total=last_step, completed=first_step - 1, text="starting"
        )
        self._last_step = last_step
        self._left = _TimeLeft(first_step, last_step, time.monotonic)
        self._is_watched = True

    def __enter__(self) -> Self:
        self._show(self._progress.start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._show(self._progress.stop)

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """Moves the bar."""
        left = self._left.after(step)
        text = _line(step, self._last_step, loss, tokens_per_second, left)
        changes = {"completed": step, "text": text, "refresh": True}
        self._show(lambda: self._progress.update(self._task, **changes))

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        self._show(lambda: self._console.print(Text(text), soft_wrap=True))

    def _show(self, action: Callable[[], None]) -> None:
        if self._is_watched:
            try:
                action()
            except (OSError, ValueError) as error:
                self._is_watched = False
                let_go(self._stream, error)
