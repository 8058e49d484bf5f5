"""Who of several processes on one machine does what: locks of the system on files."""

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from lm_core.errors import InputError, MachineError
from lm_core.run_lock import opened

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None  # type: ignore[assignment]

# What is done under a lock that is waited for takes milliseconds, so this is soon enough.
_SECONDS_BETWEEN_TRIES = 0.01


class FileLock:
    """A lock (flock) on a file, held until it is let go of or every process that has it ends.

    The system lets go of it when a process ends, however it ends: none is ever stale. A child that
    inherits ``descriptor`` holds it too, also when its parent is killed.

    Args:
        path: The file; it is made where there is none, and stays.

    Attributes:
        descriptor: Of the open file, while it is held.

    Raises:
        InputError: This system has no such locks.
    """

    def __init__(self, path: Path) -> None:
        if fcntl is None:
            raise InputError("--mode=search needs locks on files (flock), which this system lacks")
        self._path = path
        self.descriptor: int | None = None

    def try_to_take(self) -> bool:
        """Takes it, if nobody else has it.

        Returns:
            Whether it is held now.

        Raises:
            MachineError: The file system makes no such file, or knows no locks.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(f"{self._path} cannot be opened: {error.strerror}") from error
        descriptor = opened(self._path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            os.close(descriptor)
            message = f"{self._path} cannot be locked: {error.strerror}"
            raise MachineError(f"{message}; a study needs a folder on a local disk") from error
        self.descriptor = descriptor
        return True

    def let_go(self) -> None:
        """Lets go of it, if it is held."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def __enter__(self) -> Self:
        while not self.try_to_take():
            time.sleep(_SECONDS_BETWEEN_TRIES)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.let_go()


class JournalLock:
    """Optuna's lock of its journal: kept by the system, so that no kill leaves one behind.

    Whoever takes it first cuts off a last line that a killed writer left half written: what is
    written next would become a part of it.

    Args:
        journal: The file.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._lock = FileLock(journal.with_name(f"{journal.name}.lock"))

    def acquire(self) -> bool:
        """Waits for it, and takes it."""
        self._lock.__enter__()
        try:
            _cut_off_half_line(self._journal)
        except BaseException:
            self._lock.let_go()
            raise
        return True

    def release(self) -> None:
        """Lets go of it."""
        self._lock.let_go()


# Bytes to look back at once for the end of the last whole line.
_BLOCK = 4096


def _cut_off_half_line(path: Path) -> None:
    with path.open("r+b") as stream:
        size = end = stream.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK)
            stream.seek(start)
            last = stream.read(end - start).rfind(b"\n")
            if last >= 0:
                end = start + last + 1
                break
            end = start
        if end < size:
            stream.truncate(end)
