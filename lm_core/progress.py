"""How training, or other work that takes long, is going, for the person who watches."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from lm_core.notebook import ShowInPlace, place_in_notebook
from lm_core.output import let_go, say
from lm_core.parallel.world import is_told_by_another

# Often enough to see that it moves, seldom enough for a log.
_SECONDS_BETWEEN_LINES = 10.0
# Seconds in a minute, and minutes in an hour.
_SIXTY = 60
# The pace is averaged over about this many seconds.
_SECONDS_AVERAGED = 10.0
# Work that takes less than this needs no line but its last.
_SECONDS_BEFORE_FIRST_LINE = 1.0
# As often as the eye can follow; to draw a bar takes a millisecond.
_SECONDS_BETWEEN_BARS = 0.1
# The unit in which people read numbers of bytes, as the makers of disks count them.
_MEGABYTE = 10**6
# No work is done in less; it keeps a clock that stands still from dividing by zero.
_SHORTEST_SECONDS = 1e-6


class TrainingProgress(Protocol):
    """What the loop tells; a context manager while it runs."""

    def update(
        self, step: int, loss: float, tokens_per_second: float, seconds_of_looks: float = 0.0
    ) -> None:
        """How far it is.

        Args:
            step: The newest step.
            loss: Its loss in nats per token.
            tokens_per_second: Its speed.
            seconds_of_looks: What evaluations and samples took since the last call.
        """

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
    """A progress bar on a terminal and in a notebook; elsewhere a plain line now and then.

    Args:
        first_step: The first step that will be done.
        last_step: The last one.
        stream: Where to; None: standard output, or the cell of a notebook that runs now.
    """
    place = place_in_notebook() if stream is None else None
    if place is not None:
        return NotebookBar(first_step, last_step, place)
    stream = stream or sys.stdout
    if stream.isatty():
        return ProgressBar(first_step, last_step, stream)
    return ProgressLines(first_step, last_step, stream)


def shown_progress(
    progress: AbstractContextManager[TrainingProgress] | bool | None, step: int, last_step: int
) -> AbstractContextManager[TrainingProgress | None]:
    """What shows how training goes.

    Args:
        progress: What shows it; True: what is right here; None or False: nothing.
        step: The last step that is done.
        last_step: The last one of all.
    """
    if progress is True:
        return training_progress(step + 1, last_step)
    return progress or nullcontext()


class _TimeLeft:
    """Estimates the time to the last step: the recent pace, and looks as often as so far."""

    def __init__(self, first_step: int, last_step: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_step = last_step
        self._step, self._time = first_step - 1, clock()
        # Steps, and the seconds they took; what is older counts less.
        self._steps_taken = self._seconds_taken = 0.0
        # Of the whole run: looks are seldom, and the last seconds mostly have none.
        self._seconds_of_steps = self._seconds_of_looks = self._new_seconds_of_looks = 0.0

    def add_looks(self, seconds: float) -> None:
        """Evaluations and samples took some time since the last step."""
        self._new_seconds_of_looks += seconds

    def after(self, step: int) -> str:
        """Hours, minutes and seconds from here to the end."""
        now = self._clock()
        if step > self._step:
            looks, self._new_seconds_of_looks = self._new_seconds_of_looks, 0.0
            steps, seconds = step - self._step, now - self._time - looks
            self._seconds_of_steps += seconds
            self._seconds_of_looks += looks
            share_of_old = math.exp(-seconds / _SECONDS_AVERAGED)
            # An average of paces would believe a slow first step for long, however many followed.
            self._steps_taken = steps + share_of_old * self._steps_taken
            self._seconds_taken = seconds + share_of_old * self._seconds_taken
            self._step, self._time = step, now
        pace = self._seconds_taken / self._steps_taken if self._steps_taken else 0.0
        share_of_looks = self._seconds_of_looks / max(self._seconds_of_steps, _SHORTEST_SECONDS)
        return duration((1 + share_of_looks) * pace * (self._last_step - step))


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

    def update(
        self, step: int, loss: float, tokens_per_second: float, seconds_of_looks: float = 0.0
    ) -> None:
        """Prints a line if it is time for one."""
        self._left.add_looks(seconds_of_looks)
        if self._clock() < self._next_line and step < self._last_step:
            return
        self._next_line = self._clock() + _SECONDS_BETWEEN_LINES
        left = self._left.after(step)
        self.note(_line(step, self._last_step, loss, tokens_per_second, left))

    def note(self, text: str) -> None:
        """Prints a line."""
        say(text, self._stream)


class _Bar:
    """A bar on a terminal. When the terminal goes away, there is silence instead of an error."""

    def __init__(self, stream: TextIO, total: int, completed: int, text: str) -> None:
        self._stream = stream
        self._console = Console(file=stream, highlight=False, markup=False)
        columns = (BarColumn(bar_width=None), TextColumn("{task.fields[text]}", markup=False))
        # Without a thread of its own, which could not tell that the terminal has gone away.
        self._progress = Progress(
            *columns, console=self._console, transient=True, auto_refresh=False
        )
        self._task = self._progress.add_task("", total=total, completed=completed, text=text)
        self._is_watched = True

    def start(self) -> None:
        self._show(self._progress.start)

    def stop(self) -> None:
        self._show(self._progress.stop)

    def move(self, completed: int, text: str) -> None:
        changes = {"completed": completed, "text": text, "refresh": True}
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


class ProgressBar:
    """A bar on a terminal, with notes above it.

    Args:
        first_step: The first step that will be done.
        last_step: The last one.
        stream: The terminal. When it goes away, training goes on in silence.
    """

    def __init__(self, first_step: int, last_step: int, stream: TextIO) -> None:
        self._bar = _Bar(stream, last_step, first_step - 1, "starting")
        self._last_step = last_step
        self._left = _TimeLeft(first_step, last_step, time.monotonic)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(
        self, step: int, loss: float, tokens_per_second: float, seconds_of_looks: float = 0.0
    ) -> None:
        """Moves the bar."""
        self._left.add_looks(seconds_of_looks)
        left = self._left.after(step)
        self._bar.move(step, _line(step, self._last_step, loss, tokens_per_second, left))

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.note(text)


class NotebookBar:
    """A bar in the cell of a notebook, which moves in its place, with notes below it.

    Args:
        first_step: The first step that will be done.
        last_step: The last one.
        place: Shows it.
        clock: Seconds, for the pace.
    """

    def __init__(
        self,
        first_step: int,
        last_step: int,
        place: ShowInPlace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place = place
        self._step, self._last_step = first_step - 1, last_step
        self._clock = clock
        self._left = _TimeLeft(first_step, last_step, clock)
        self._next = clock()
        self._text = "starting"

    def __enter__(self) -> Self:
        self._show()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # It stays, and shows how far training came.
        self._show()

    def update(
        self, step: int, loss: float, tokens_per_second: float, seconds_of_looks: float = 0.0
    ) -> None:
        """Moves the bar, if it is time to."""
        self._left.add_looks(seconds_of_looks)
        left = self._left.after(step)
        self._step, self._text = step, _line(step, self._last_step, loss, tokens_per_second, left)
        if self._clock() >= self._next:
            self._next = self._clock() + _SECONDS_BETWEEN_BARS
            self._show()

    def note(self, text: str) -> None:
        """Prints a line below the bar."""
        say(text)

    def _show(self) -> None:
        self._place(self._step / self._last_step, self._text)


class BytesProgress:
    """How far work on many bytes is: a bar on a terminal, elsewhere a plain line now and then.

    At the end, one line tells the whole of it.

    Args:
        what: What is being done, such as ``encoding the corpus``.
        n_bytes: Bytes in all.
        stream: Where to; None: standard error, since the output may be meant for a program. When
            nobody reads it any more, the work goes on in silence.
        clock: Seconds, for the pace.
    """

    def __init__(
        self,
        what: str,
        n_bytes: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._n_bytes = n_bytes
        self._stream = stream or sys.stderr
        self._clock = clock
        self._n_done = 0
        self._start = clock()
        is_terminal = self._stream.isatty() and not is_told_by_another()
        self._bar = _Bar(self._stream, n_bytes, 0, what) if is_terminal else None
        self._next = self._start + (0.0 if is_terminal else _SECONDS_BEFORE_FIRST_LINE)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if error is None:
            seconds = self._seconds()
            speed = f"{self._n_done / seconds / _MEGABYTE:,.0f} MB/s"
            size = f"{self._n_done / _MEGABYTE:,.0f} MB"
            say(f"{self._what}: {size} in {seconds:,.1f} s  {speed}", self._stream)

    def add(self, n_bytes: int) -> None:
        """Tells that so many more bytes are done."""
        self._n_done += n_bytes
        now = self._clock()
        if now < self._next:
            return
        if self._bar is not None:
            self._bar.move(self._n_done, self._text())
            self._next = now + _SECONDS_BETWEEN_BARS
        elif self._n_done < self._n_bytes:
            say(self._text(), self._stream)
            self._next = now + _SECONDS_BETWEEN_LINES

    def _seconds(self) -> float:
        return max(self._clock() - self._start, _SHORTEST_SECONDS)

    def _text(self) -> str:
        speed = self._n_done / self._seconds()
        size = f"{self._n_done / _MEGABYTE:,.0f} of {self._n_bytes / _MEGABYTE:,.0f} MB"
        left = duration((self._n_bytes - self._n_done) / max(speed, 1))
        return f"{self._what}: {size}  {speed / _MEGABYTE:,.0f} MB/s  {left} left"
