"""Which of several processes this one is, as torchrun tells each of those that it starts."""

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from lm_core.errors import InputError

# So long a process that cannot go on leaves the first one to tell why, in seconds: a launcher ends
# all others as soon as one has failed.
_SECONDS_TO_TELL = 10.0

# Without the first two a process is alone; the others tell of places among all.
_OF_THE_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


class World(NamedTuple):
    """The processes that were started together, and this one's place among them.

    The names in brackets are the environment variables that torchrun sets:
    https://docs.pytorch.org/docs/stable/elastic/run.html, "Environment Variables".

    Attributes:
        rank: This process among all, from 0 (``RANK``).
        n_processes: How many there are (``WORLD_SIZE``).
        local_rank: This process among those of its machine, from 0 (``LOCAL_RANK``).
        n_local: How many its machine has (``LOCAL_WORLD_SIZE``).
        is_launched: Whether a launcher has started it, be it alone.
    """

    rank: int = 0
    n_processes: int = 1
    local_rank: int = 0
    n_local: int = 1
    is_launched: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this process writes records and prints."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other one."""
        return self.n_processes == 1


def world_here(environment: Mapping[str, str] = os.environ) -> World:
    """The processes that this one was started with; it is alone where nothing tells of others.

    Args:
        environment: The environment variables.

    Raises:
        InputError: What they say cannot be.
    """
    if "WORLD_SIZE" not in environment or "RANK" not in environment:
        return World()
    rank, n_processes = (_number(environment, name, 0) for name in ("RANK", "WORLD_SIZE"))
    local_rank = _number(environment, "LOCAL_RANK", 0)
    n_local = _number(environment, "LOCAL_WORLD_SIZE", 1)
    if not 0 <= rank < n_processes or not 0 <= local_rank < n_local:
        places = f"RANK {rank} of WORLD_SIZE {n_processes}"
        message = f"{places}, LOCAL_RANK {local_rank} of LOCAL_WORLD_SIZE {n_local}"
        raise InputError(f"environment: {message} is no process; torchrun sets these variables")
    return World(rank, n_processes, local_rank, n_local, is_launched=True)


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is started alone, whatever has started this one."""
    return {name: value for name, value in environment.items() if name not in _OF_THE_LAUNCHER}


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not (text.isascii() and text.isdecimal()):
        message = f"environment: {name} is {text!r}, which is no number of processes"
        raise InputError(f"{message}; torchrun sets it, and alone the lab needs it unset")
    return int(text)


def is_told_by_another() -> bool:
    """Whether another process says what there is to say: one does, so that all is said once."""
    try:
        return not world_here().is_first
    except InputError:
        return False


def leave_the_word() -> None:
    """Waits a moment before a process ends that has failed, for the first one to tell why.

    Where processes are connected, a process ends at once: that the others notice.
    """
    if not is_told_by_another() or _is_connected():
        return
    # A launcher that ends all others ends the waiting.
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(_SECONDS_TO_TELL)


def _is_connected() -> bool:
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_initialized()
