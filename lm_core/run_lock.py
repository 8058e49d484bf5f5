"""One writer for a run directory."""

import contextlib
import os
import socket
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from lm_core.errors import InputError, MachineError
from lm_core.output import warn

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
# Who holds a lock is written into it, in fewer bytes than this.
_LONGEST_HOLDER = 300
# The lock of a run belongs to whom the run does, and may be looked at by others.
_MODE = 0o644


class RunLock:
    """Holds a run directory for this process alone, until it is left or the process ends.

    It is a lock of the system on an open file (flock), which the system itself lets go of when the
    process ends, however it ends: the file stays, and blocks nobody.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def take(self, folder: Path) -> None:
        """Takes the lock of a run directory, at once or not at all, and lets go of any other.

        Where the file system knows no locks, a warning says so, and the run goes on.

        Raises:
            InputError: Another process has it; says which.
            MachineError: There can be no lock in this folder.
        """
        self._let_go()
        descriptor = opened(folder / LOCK)
        try:
            _lock(descriptor, folder)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def is_of(self, folder: Path) -> bool:
        """Whether what is held is the lock that lies in a folder."""
        if self._descriptor is None:
            return False
        try:
            there = (folder / LOCK).lstat()
        except OSError:
            return False
        held = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


def is_held(folder: Path, locks: Path = Path("/proc/locks")) -> bool | None:
    """Whether a process holds the lock of a run directory; None where the system does not tell.

    Nothing is locked to find out: that could keep a run from starting.

    Args:
        folder: The run directory.
        locks: Where Linux lists all locks, by the device and the number of their files:
            https://man7.org/linux/man-pages/man5/proc_locks.5.html.
    """
    try:
        status = (folder / LOCK).stat()
    except OSError:
        return False
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    try:
        lines = locks.read_text().splitlines()
    except OSError:
        return None
    return any(f" {device}:{status.st_ino} " in line and "FLOCK" in line for line in lines)


def opened(path: Path) -> int:
    """The descriptor of a file to be locked, which is made where there is none.

    Raises:
        MachineError: There can be no such file, or it is no regular file of its own.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags, _MODE)
    except OSError as error:
        is_other = os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode)
        reason = "it is no file; remove it" if is_other else error.strerror or error
        message = f"{path}, which keeps other writers away, cannot be opened: {reason}"
        raise MachineError(message) from error
    status = os.fstat(descriptor)
    # Into a second name of some other file, nothing is written.
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise MachineError(f"{path} is not a regular file of its own; remove it")
    return descriptor


def _lock(descriptor: int, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, _LONGEST_HOLDER, 0).decode(errors="replace").strip()
        message = f"{folder} is being written by {holder or 'another process'}"
        raise InputError(
            f"{message}; wait until it has ended, stop it, or name another --run_dir"
        ) from error
    except OSError as error:
        warn(
            f"{folder} cannot be locked ({error.strerror}): see that no other process writes to it"
        )
        return
    # On a full disk nobody reads who it was; the lock holds all the same.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
