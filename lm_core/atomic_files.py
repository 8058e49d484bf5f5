"""Files and folders that are there whole, or not at all."""

import os
from pathlib import Path


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        write_synced(temporary, data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
