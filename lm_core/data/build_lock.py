"""One of several processes makes what all of them want; the others wait for it."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lm_core.output import say

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None  # type: ignore[assignment]

# What is waited for takes seconds to hours.
_SECONDS_BETWEEN_TRIES = 0.05
# Who waits for less than this need not be told why.
_SECONDS_BEFORE_WORDS = 0.5
# Whoever may write to the folder may take the lock, as far as the user's mask lets them.
_MODE = 0o666


@contextlib.contextmanager
def only_one(path: Path, does: str) -> Iterator[None]:
    """Holds the making of a file for this process alone; waits as long as another one has it.

    It is a lock of the system (flock) on a file beside the one that is made, which is gone in the
    end. The system lets go of it when a process ends, however it ends, and the next one goes on.
    Who has waited has to look whether the file is there now. Where the file system knows no locks,
    everybody makes the file.

    Args:
        path: The file that is made.
        does: What the other process does meanwhile, for a message: ``encodes the corpus``.
    """
    lock = path.with_name(f"{path.name}.lock")
    descriptor = _taken(lock, does)
    try:
        yield
    finally:
        if descriptor is not None:
            # Before it is let go of: whoever waits for it finds that it has no name any more.
            with contextlib.suppress(OSError):
                lock.unlink()
            os.close(descriptor)


def _taken(lock: Path, does: str) -> int | None:
    """The descriptor of the locked file; None: there are no locks."""
    words_at = time.monotonic() + _SECONDS_BEFORE_WORDS
    while fcntl is not None:
        descriptor = _opened(lock)
        if descriptor is None:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(lock, descriptor):
                return descriptor
            is_held_by_another = False
        except BlockingIOError:
            is_held_by_another = True
        except OSError:
            os.close(descriptor)
            return None
        os.close(descriptor)
        if is_held_by_another:
            if time.monotonic() > words_at:
                say(f"another process {does}: waiting for it ({lock})", sys.stderr)
                words_at = float("inf")
            time.sleep(_SECONDS_BETWEEN_TRIES)
    return None


def _opened(lock: Path) -> int | None:
    flags = os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with contextlib.suppress(OSError):
        lock.parent.mkdir(parents=True, exist_ok=True)
    # The lock of another user may be read, and that is enough for most file systems.
    for access in (os.O_RDWR, os.O_RDONLY):
        with contextlib.suppress(OSError):
            return os.open(lock, flags | access, _MODE)
    return None


def _is_still(lock: Path, descriptor: int) -> bool:
    """Whether what is locked has the name that others would open."""
    try:
        there = lock.lstat()
    except OSError:
        return False
    held = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
