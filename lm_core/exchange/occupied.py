"""A place where nothing may be yet."""

import os
from pathlib import Path

from lm_core.errors import InputError

# The example of a name in a folder that is there already.
_INSIDE = "model"


def refuse_occupied(who: str, path: Path) -> None:
    """Refuses a place where there is something.

    An empty folder is not taken either: another one would be put in its place, and be lost to a
    shell that stands in it; and where a disk is mounted, nothing can be replaced.

    Args:
        who: What named it, for messages: a flag, or the argument of a function.
        path: The place.

    Raises:
        InputError: There is something, or the system does not let anybody look.
    """
    try:
        if not os.path.lexists(path):
            return
        if not path.is_dir():
            place = "a link that leads nowhere" if path.is_symlink() else "a file"
            raise InputError(f"{who}: {place} is in the place of {path}")
        is_empty = not any(path.iterdir())
    except OSError as error:
        raise InputError(f"{who}: {path} cannot be read: {error.strerror}") from error
    if is_empty:
        inside = f"name one that is not there, such as {path / _INSIDE}"
        raise InputError(f"{who}: {path} is there already, if empty; {inside}")
    raise InputError(f"{who}: {path} is not empty; nothing is overwritten, name another one")
