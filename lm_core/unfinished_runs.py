"""Where a run directory is made before it takes its name, and what a killed process left there.

The link to the newest run likewise.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
from pathlib import Path

_NAME = re.compile(r"\..*\.([0-9a-f]{8})-([0-9]{1,10})-[0-9a-f]{8}\.new", re.ASCII | re.DOTALL)
# Bytes of randomness in such a name, so that no two of one process are equal.
_RANDOM_BYTES = 4
# Hexadecimal digits that stand for the machine, as long as the random ones.
_DIGITS = 8
# So many characters of the run's own name are in it, which leaves room below the longest name.
_LONGEST_STEM = 40


def unfinished_path(path: Path) -> Path:
    """Beside a run directory, a name that tells who makes it, and that nothing else has."""
    maker = f"{_machine()}-{os.getpid()}-{secrets.token_hex(_RANDOM_BYTES)}"
    return path.with_name(f".{path.name[:_LONGEST_STEM]}.{maker}.new")


def remove_unfinished(folder: Path) -> None:
    """Removes what processes of this machine left in a folder that were killed making a run.

    What other machines make there is left alone: whether its maker lives cannot be told from here.
    """
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match and match[1] == _machine() and not _is_alive(int(match[2])):
            # Another process may be faster, or own it.
            with contextlib.suppress(OSError):
                path.unlink() if path.is_symlink() else shutil.rmtree(path)


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:_DIGITS]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # It is somebody else's.
        pass
    return True
