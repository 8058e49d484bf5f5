"""Memory: what cannot fit is refused, and what did not fit is told in words."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lm_core.config.training_config import TrainingConfig
from lm_core.costs import FLOAT32_BYTES, count_parameters
from lm_core.errors import LabError, MachineError

# How PyTorch's errors say that memory is too small: of the CPU, of a GPU, of any machine.
_SIGNS_OF_NO_MEMORY = ("DefaultCPUAllocator", "out of memory", "Storage size calculation overflow")
_TOO_SMALL = (
    "the memory of this machine is too small for this configuration; smaller n_layers, d_model, "
    "d_ff, max_seq_len or batch_size need less"
)
# The weight itself, its gradient, and AdamW's two means.
_VALUES_A_PARAMETER = 4
# In backward, logarithms of probabilities and their gradient exist side by side.
_VALUES_A_LOGIT = 2
# The unit in which people read bytes of memory.
_GIBIBYTE = 2**30


def least_training_bytes(config: TrainingConfig, vocab_size: int) -> int:
    """Bytes that training cannot do without, in float32; the true need is a few times as much.

    Args:
        config: The configuration.
        vocab_size: Number of different tokens.
    """
    residual_stream = config.n_layers * config.d_model
    values_a_token = _VALUES_A_LOGIT * vocab_size + residual_stream
    n_tokens = config.batch_size * config.max_seq_len
    n_values = _VALUES_A_PARAMETER * count_parameters(config, vocab_size)
    return FLOAT32_BYTES * (n_values + n_tokens * values_a_token)


def require_memory(config: TrainingConfig, vocab_size: int, available: int | None = None) -> None:
    """Refuses to train what cannot fit: the system would end the process without a word.

    Args:
        config: The configuration.
        vocab_size: Number of different tokens.
        available: Bytes that there are; None: all that this process may have.

    Raises:
        MachineError: It cannot fit.
    """
    available = most_memory() if available is None else available
    needed = least_training_bytes(config, vocab_size)
    if available is not None and needed > available:
        sizes = f"it needs more than {needed / _GIBIBYTE:,.1f} GiB, of {available / _GIBIBYTE:,.1f}"
        raise MachineError(f"{_TOO_SMALL} ({sizes})")


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


@contextlib.contextmanager
def memory_explained() -> Iterator[None]:
    """Turns a failed allocation into words.

    Raises:
        MachineError: There was one.
    """
    try:
        yield
    except LabError:
        raise
    except (MemoryError, RuntimeError) as error:
        words = str(error)
        if isinstance(error, MemoryError) or any(sign in words for sign in _SIGNS_OF_NO_MEMORY):
            reason = f" ({words.splitlines()[0]})" if words else ""
            raise MachineError(f"{_TOO_SMALL}{reason}") from error
        raise
