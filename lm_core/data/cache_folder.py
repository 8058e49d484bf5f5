"""The folder in which what was found out about large corpora is kept."""

import os
import tempfile
from pathlib import Path

from lm_core.errors import MachineError

CACHE_VARIABLE = "LM_CORE_CACHE"
# Corpora up to this size are read and encoded anew each time, which takes a fraction of a second.
LARGEST_IN_MEMORY = 64 * 2**20


def default_cache_folder() -> Path:
    """Where it is when nothing else is said.

    Raises:
        MachineError: The user has no home folder, and names no other one.
    """
    try:
        if named := os.environ.get(CACHE_VARIABLE):
            return Path(named).expanduser()
        user_cache = os.environ.get("XDG_CACHE_HOME")
        return (Path(user_cache) if user_cache else Path.home() / ".cache") / "lm_core"
    except RuntimeError as error:
        message = f"no folder for the tokens of the corpus: {error}"
        raise MachineError(f"{message}; {CACHE_VARIABLE} names one") from error


def require_usable(folder: Path) -> None:
    """Refuses a folder in which nothing can be kept, before there is something to be kept.

    Args:
        folder: The folder; made if it is missing.

    Raises:
        MachineError: It cannot be made, or takes no files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise cannot_keep(folder, error) from error


def cannot_keep(folder: Path, error: OSError) -> MachineError:
    """What to say where the folder takes nothing."""
    message = f"the tokens of the corpus cannot be kept in {folder}: {error.strerror or error}"
    return MachineError(f"{message}; {CACHE_VARIABLE} names another folder")
