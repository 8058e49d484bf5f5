"""A folder that is there whole, or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lm_core.atomic_files import sync_folder
from lm_core.errors import InputError, MachineError
from lm_core.record import FAILURES_OF_THE_MACHINE
from lm_core.unfinished_runs import remove_unfinished, unfinished_path

# The example of a name in a folder that is there already.
_INSIDE = "model"


@contextlib.contextmanager
def new_folder(path: Path, flag: str) -> Iterator[Path]:
    """Gives a folder under a temporary name, which takes its own when all is in it.

    What is written into it has to be on the disk (``write_synced``) at the end. An empty folder is
    not taken either: another one would be put in its place, with other permissions, and be lost to
    a shell that stands in it; and where a disk is mounted, nothing can be replaced.

    Args:
        path: Its name; nothing has it.
        flag: What named it, for messages.

    Raises:
        InputError: There is something already, or the folder cannot be made there.
        MachineError: The disk is full or fails.
    """
    _refuse_occupied(path, flag)
    path = path.resolve() if path.name in ("", "..") or path.is_symlink() else path
    missing = [folder for folder in path.parents if not folder.exists()]
    unfinished = unfinished_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(path.parent)
        unfinished.mkdir()
        yield unfinished
        sync_folder(unfinished)
        # A rename takes the place of an empty folder that another process has made since.
        _refuse_occupied(path, flag)
        unfinished.rename(path)
        for folder in (path.parent, *(folder.parent for folder in missing)):
            sync_folder(folder)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        for folder in missing:
            with contextlib.suppress(OSError):  # Somebody else may have moved in by now.
                folder.rmdir()
        if not isinstance(error, OSError):
            raise
        # Another process may have been faster.
        _refuse_occupied(path, flag)
        reason = error.strerror or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = "a file is in the place of one of its folders"
        kind = MachineError if error.errno in FAILURES_OF_THE_MACHINE else InputError
        raise kind(f"{flag}: {path} cannot be made: {reason}") from error


def _refuse_occupied(path: Path, flag: str) -> None:
    try:
        if not os.path.lexists(path):
            return
        if not path.is_dir():
            place = "a link that leads nowhere" if path.is_symlink() else "a file"
            raise InputError(f"{flag}: {place} is in the place of {path}")
        is_empty = not any(path.iterdir())
    except OSError as error:
        raise InputError(f"{flag}: {path} cannot be read: {error.strerror}") from error
    if is_empty:
        inside = f"name one that is not there, such as {path / _INSIDE}"
        raise InputError(f"{flag}: {path} is there already, if empty; {inside}")
    raise InputError(f"{flag}: {path} is not empty; nothing is overwritten, name another one")
