"""A run as a process of its own, whose end, however bad, is nobody else's."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from lm_core.errors import MachineError, one_line
from lm_core.parallel.world import without_launcher

# https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html: the signal that a process gets
# when its parent ends.
_PR_SET_PDEATHSIG = 1
# So much of a message of a run is repeated in the table of the study.
_LONGEST_REASON = 300
# Bytes at the end of a log in which its last words stand.
_LAST_WORDS = 8192
_ERROR = "error: "


class RunProcess(Protocol):
    """A run that goes on elsewhere."""

    def exit_code(self) -> int | None:
        """Its exit code, negative where a signal killed it; None: it goes on."""

    def stop(self) -> None:
        """Asks it to save and to end."""

    def last_words(self) -> str:
        """What it said last, in a line."""


class TrialProcess:
    """``python run.py`` in a session of its own, so that Ctrl-C reaches only who started it.

    On Linux it is asked to save and to end when who started it is killed. Elsewhere it goes on to
    its end, and holds its lock until then.

    Args:
        arguments: Of ``run.py``.
        program: Where ``run.py`` is.
        log: Takes what it says, after what others said.
        lock: The descriptor of a lock that it holds as long as it lives.
        n_threads: How many threads it takes; None: as many as it likes. What the environment says
            of threads stays.

    Raises:
        MachineError: No process can be started.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        program: Path,
        log: Path,
        lock: int | None,
        n_threads: int | None = None,
    ) -> None:
        self._log = log
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as said:
                self._start_of_log = said.tell()
                self._process = subprocess.Popen(
                    [sys.executable, str(program), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=() if lock is None else (lock,),
                    env=_environment(n_threads),
                    preexec_fn=_ends_with_its_parent(),
                )
        except OSError as error:
            raise MachineError(f"no process can be started for a trial: {error}") from error

    @property
    def process_id(self) -> int:
        """Its number in the system."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """Its exit code, negative where a signal killed it; None: it goes on."""
        return self._process.poll()

    def stop(self) -> None:
        """Asks it to save and to end; a run that is already ending hears it without harm."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def last_words(self) -> str:
        """Its error message, or its last line where it left none, in one line."""
        try:
            with self._log.open("rb") as said:
                size = said.seek(0, os.SEEK_END)
                said.seek(max(self._start_of_log, size - _LAST_WORDS))
                text = said.read(_LAST_WORDS).decode(errors="replace")
        except OSError:
            return ""
        lines = [line for line in text.splitlines() if line.strip()]
        errors = [index for index, line in enumerate(lines) if line.startswith(_ERROR)]
        told = lines[errors[-1] :] if errors else lines[-1:]
        sentence = "; ".join(line.strip() for line in told).removeprefix(_ERROR)
        return one_line(sentence)[:_LONGEST_REASON]


def _environment(n_threads: int | None) -> Mapping[str, str]:
    environment = without_launcher(os.environ)
    if n_threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(n_threads))
    return environment


def _ends_with_its_parent() -> Callable[[], None] | None:
    """What a new process does before it runs its program; None where the system has no such way."""
    if not sys.platform.startswith("linux"):
        return None
    library, parent = ctypes.CDLL(None), os.getpid()

    def ask_for_signal() -> None:
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # It was killed in the meantime.
            os.kill(os.getpid(), signal.SIGTERM)

    return ask_for_signal
