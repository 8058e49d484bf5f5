"""Signals that ask a run to stop, as something the loop can look at."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Self

from lm_core.errors import StoppedAtOnce

# Ctrl-C, the request of a person or a cluster to end, and a terminal that is closed.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
# Windows has no terminals that hang up.
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


# Whoever closes a terminal or ends a job often signals twice, at once; a person needs longer.
SECONDS_OF_ONE_REQUEST = 0.1
# A finaliser takes less.
_SECONDS_UNTIL_AGAIN = 0.05


# What an evaluation or a sample calls between two pieces of its work, to be given up in time.
CheckStop = Callable[[], None]


class StopRequested(Exception):  # noqa: N818 -- a request, no error
    """A signal has asked the run to stop; raised where work can be given up and done again."""


def stop_at_once(number: int, frame: FrameType | None = None) -> None:
    """A handler of signals that ends what the program is doing; a further signal just kills it.

    Raises:
        StoppedAtOnce: Always.
    """
    signal.signal(number, signal.SIG_DFL)
    raise StoppedAtOnce(number)


def _again(then: Callable[[Any], None], lost: Any) -> None:
    """Has a signal come once more whose answer Python could not raise, in the midst of a finaliser.

    Args:
        then: What is done about everything else that cannot be raised.
        lost: As ``sys.unraisablehook`` has it.
    """
    if not isinstance(lost.exc_value, StoppedAtOnce):
        then(lost)
        return
    number = lost.exc_value.signal_number
    signal.signal(number, stop_at_once)
    # Of a thread, so that this one is out of the finaliser by then.
    later = threading.Timer(_SECONDS_UNTIL_AGAIN, os.kill, (os.getpid(), number))
    later.daemon = True
    later.start()


def stop_at_once_on_signals() -> None:
    """From now on, the signals end what the program is doing, with exit codes of their own.

    A shell starts background jobs with SIGINT ignored; whoever sends it means it. A hang-up that
    is ignored stays so: ``nohup`` has asked for it.
    """
    for number in SIGNALS:
        if not _is_ignored_for_good(number):
            signal.signal(number, stop_at_once)
    sys.unraisablehook = partial(_again, sys.unraisablehook)


def _is_ignored_for_good(number: signal.Signals) -> bool:
    return number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN


class StopSignals:
    """Notes the first of the signals while active; a second one acts as if it were not.

    What comes within a moment of the first is no second request, nor is a hang-up after another
    signal: a terminal that is closed sends several.

    Outside the main thread, where Python delivers no signals, it does nothing.

    Attributes:
        received: The number of the signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._received_at = 0.0
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            if _is_ignored_for_good(number):
                continue
            try:
                self._previous[number] = signal.signal(number, self._receive)
            except ValueError:  # Not in the main thread.
                break
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def check(self) -> None:
        """Gives up what is being done, where a signal has come.

        Raises:
            StopRequested: One has.
        """
        if self.received is not None:
            raise StopRequested

    def act_on_received(self) -> None:
        """Ends what is being done, where a signal has come.

        Raises:
            StoppedAtOnce: One has.
        """
        if self.received is not None:
            raise StoppedAtOnce(self.received)

    def let_through(self) -> None:
        """Notes no more signals; the one that was noted acts now."""
        self._restore()
        if self.received is not None:
            signal.raise_signal(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._received_at = number, now
            return
        is_hang_up = signal.Signals(number).name == "SIGHUP"
        if is_hang_up or self._is_one_request(now - self._received_at):
            return
        self._restore()
        signal.raise_signal(number)

    def _is_one_request(self, seconds: float) -> bool:
        """Whether two signals so many seconds apart ask once."""
        return seconds < SECONDS_OF_ONE_REQUEST

    def _restore(self) -> None:
        # Another signal may come in the middle of this.
        previous, self._previous = self._previous, {}
        for number, handler in previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
