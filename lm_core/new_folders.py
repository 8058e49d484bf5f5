"""Folders that are there whole, or not at all, and what a killed process left of one.

A folder is made beside its place, under a name that tells who makes it. The link to the newest run
likewise.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from lm_core.atomic_files import sync_folder
from lm_core.errors import InputError, MachineError

# What the system says when no other place on this disk would do.
_FAILURES_OF_THE_MACHINE = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EIO", "EFBIG", "EMFILE", "ENFILE", "ENOMEM")
    if hasattr(errno, name)
}
_NAME = re.compile(r"\..*\.([0-9a-f]{8})-([0-9]{1,10})-[0-9a-f]{8}\.new", re.ASCII | re.DOTALL)
# Bytes of randomness in such a name, so that no two of one process are equal.
_RANDOM_BYTES = 4
# Hexadecimal digits that stand for the machine, as long as the random ones.
_DIGITS = 8
# Where Linux tells the processes apart that share numbers; containers may share a host's name, and
# in each of them the numbers begin anew (pid_namespaces(7)).
_PROCESS_NUMBERS = Path("/proc/self/ns/pid")
# So many characters of the folder's own name are in it, which leaves room below the longest name.
_LONGEST_STEM = 40


@contextlib.contextmanager
def new_folder(
    path: Path, what: str, who: str, refuse_occupied: Callable[[Path], None]
) -> Iterator[Path]:
    """Gives a folder under a temporary name, which takes its own when all is in it.

    What is written into it has to be on the disk (``write_synced``) at the end.

    Args:
        path: Its name.
        what: What it is to be, for messages: "run directory".
        who: What names it, for messages: a flag, or the argument of a function.
        refuse_occupied: Refuses a place that is taken. An empty folder that it lets be is replaced;
            the new one allows what that one did.

    Raises:
        InputError: The folder cannot be made there.
        MachineError: The disk is full or fails.
    """
    refuse_occupied(path)
    missing = [folder for folder in path.parents if not folder.exists()]
    made = unfinished = unfinished_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(path.parent)
        unfinished.mkdir()
        yield unfinished
        sync_folder(unfinished)
        # A rename takes the place of an empty folder that has come meanwhile, too.
        refuse_occupied(path)
        if path.exists():
            unfinished.chmod(stat.S_IMODE(path.stat().st_mode))
        unfinished.rename(path)
        made = path
        # Each folder above is a name in one that has to be on the disk too.
        for folder in (path.parent, *(folder.parent for folder in missing)):
            sync_folder(folder)
    except BaseException as error:
        shutil.rmtree(made, ignore_errors=True)
        for folder in missing:
            with contextlib.suppress(OSError):  # Somebody else may have moved in by now.
                folder.rmdir()
        if not isinstance(error, OSError):
            raise
        # Another process may have been faster.
        refuse_occupied(path)
        reason = error.strerror or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = "a file is in the place of one of its folders"
        kind = MachineError if error.errno in _FAILURES_OF_THE_MACHINE else InputError
        message = f"{who}: the {what} {path} cannot be made: {reason}"
        raise kind(f"{message}; name another one") from error


def unfinished_path(path: Path) -> Path:
    """Beside a folder to be made, a name that tells who makes it, and that nothing else has."""
    maker = f"{_machine()}-{os.getpid()}-{secrets.token_hex(_RANDOM_BYTES)}"
    return path.with_name(f".{path.name[:_LONGEST_STEM]}.{maker}.new")


def remove_unfinished(folder: Path) -> None:
    """Removes what processes of this machine left in a folder that were killed making one.

    What other machines and containers make there is left alone: whether its maker lives cannot be
    told from here.
    """
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match and match[1] == _machine() and not _is_alive(int(match[2])):
            # Another process may be faster, or own it.
            with contextlib.suppress(OSError):
                path.unlink() if path.is_symlink() else shutil.rmtree(path)


def _machine() -> str:
    """What all processes have in common that a number tells apart, in a few digits."""
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        name += f" {_PROCESS_NUMBERS.readlink()}"
    return hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # It is somebody else's.
        pass
    return True
