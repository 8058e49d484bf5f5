"""What the machine has to give."""

import contextlib
import ctypes
import os
import platform
from pathlib import Path, PurePosixPath

# Parameters of mallopt, of GNU's C library: https://man7.org/linux/man-pages/man3/mallopt.3.html.
_M_TRIM_THRESHOLD = -1
# Its number for the size from which a block is mapped by itself.
_M_MMAP_THRESHOLD = -3
# Larger than any tensor of a step, smaller than what a C integer holds.
_NEVER = 2**30


# Turns of waiting before a thread of GNU's OpenMP sleeps:
# https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html. When other programs want the cores
# too, threads that spin for long make all of them many times slower; alone it costs nothing.
SETTINGS_OF_THREADS = {"GOMP_SPINCOUNT": "1000"}


def set_up_process() -> None:
    """Sets up this process for training on a CPU; PyTorch must not be imported yet.

    What the environment says of threads already, stays.
    """
    for name, value in SETTINGS_OF_THREADS.items():
        os.environ.setdefault(name, value)
    # Compiled loops take as many threads as PyTorch is told to.
    n_threads = os.environ.get("OMP_NUM_THREADS", "")
    if n_threads.isdecimal() and int(n_threads):
        os.environ.setdefault("NUMBA_NUM_THREADS", n_threads)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Lets the C library keep the memory that tensors gave back, for those of the next step.

    It would return large blocks to the system and get them again, page by page and zeroed, in
    every step: a tenth of the time of training on a CPU. Only GNU's C library is asked.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            library.mallopt(parameter, _NEVER)


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
