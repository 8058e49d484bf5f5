"""Whether a run directory is locked."""

from lm_core.errors import InputError
from lm_core.run_lock import LOCK, RunLock


def is_held(folder):
    """Whether a process holds the lock of a folder; where there is no lock, nobody does."""
    try:
        with RunLock() as lock:
            if (folder / LOCK).exists():
                lock.take(folder)
    except InputError:
        return True
    return False
