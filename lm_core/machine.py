"""What the machine has to give."""

import contextlib
import os
from pathlib import Path, PurePosixPath


def most_memory() -> int | None:
    """Bytes that this process may have; None where the system does not tell."""
    limits = control_group_limits()
    # Windows has no such function.
    with contextlib.suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def control_group_limits(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """The limits that Linux sets to the memory of this process, as containers and clusters do.

    The files are those of https://docs.kernel.org/admin-guide/cgroup-v2.html ("Memory Interface
    Files") and https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.

    Args:
        root: Where control groups are mounted.
        membership: The file that tells the groups of the process.

    Returns:
        Bytes, one number for each group above the process that has a limit.
    """
    limits = []
    for line in _text_of(membership).splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            folder, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        path = PurePosixPath(group.lstrip("/"))
        for ancestor in (path, *path.parents):
            limit = _text_of(folder / ancestor / name).strip()
            if limit.isdecimal():
                limits.append(int(limit))
    return limits


def _text_of(path: Path) -> str:
    """The text of a file of the system, nothing where there is none."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
