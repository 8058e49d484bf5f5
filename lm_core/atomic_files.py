"""Files and folders that are there whole, or not at all."""

import contextlib
import os
from pathlib import Path

# What a new file allows before the system takes the user's mask off it.
_MODE = 0o666


def write_synced(path: Path, data: bytes) -> None:
    """Writes a new file and waits until the disk has it.

    Raises:
        OSError: The file exists, or cannot be written.
    """
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folder(path: Path) -> None:
    """Waits until the disk has the names in a folder; systems that cannot are left alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders.
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Puts new content in the place of a file, whatever happens on the way.

    Raises:
        OSError: It cannot be written; the old content stands.
    """
    temporary = temporary_name(path)
    temporary.unlink(missing_ok=True)
    try:
        write_synced(temporary, data)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def temporary_name(path: Path) -> Path:
    """Where this process writes a file before it takes its name."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def append_whole(path: Path, data: bytes) -> None:
    """Adds to a file all of the data, or none of it where not all can be written.

    Raises:
        OSError: It cannot be written, or the name is a link; the file is as it was.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, _MODE)
    with open(descriptor, "ab", buffering=0) as stream:  # noqa: PTH123 -- of a descriptor
        size = os.fstat(descriptor).st_size
        left = memoryview(data)
        try:
            while left:
                left = left[stream.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
