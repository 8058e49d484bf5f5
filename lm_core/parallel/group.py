"""The processes of a run, connected: what they add up, agree on, and hand to each other."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch

from lm_core.errors import InputError, LabError
from lm_core.parallel.meeting import Meeting
from lm_core.parallel.world import World

# A process that nobody has heard of for so long is taken for lost: a checkpoint on a slow disk,
# for which all wait, takes less.
_PATIENCE = timedelta(minutes=30)
# What the messages of lost connections have in common: gloo's, NCCL's, and those of PyTorch.
_SIGN_OF_A_LOSS = re.compile(r"gloo|nccl|c10d|ProcessGroup|\[\S+\.cc:\d+\]", re.IGNORECASE)


class Group:
    """What the processes of a run do together. Alone, a process does it with itself.

    All of them call the same methods in the same order.

    Args:
        world: The processes; they are connected if there are several.

    Attributes:
        rank: This process among all, from 0.
        n_processes: How many there are.
        is_first: Whether this process writes records and prints.
    """

    def __init__(self, world: World = World()) -> None:  # noqa: B008 -- it cannot change
        self.rank, self.n_processes = world.rank, world.n_processes
        self.is_first = world.is_first

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.n_processes == 1

    def share_of(self, n: int) -> range:
        """The numbers below ``n`` that are this process's: as many for each, but for one."""
        return range(n * self.rank // self.n_processes, n * (self.rank + 1) // self.n_processes)

    def sum(self, numbers: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, the same bits in each of them.

        Args:
            numbers: Any shape, on the device of the model.
        """
        if self.is_alone:
            return numbers
        total = numbers.clone()
        torch.distributed.all_reduce(total)
        return total

    def joined(self, values: Mapping[int, float], n: int) -> list[float]:
        """The numbers of all processes, of which each has some; in float64, none is rounded.

        Args:
            values: This process's, by their places below ``n``.
            n: How many there are.
        """
        numbers = torch.zeros(n, dtype=torch.float64)
        for place, value in values.items():
            numbers[place] = value
        return self._sum_on_host(numbers).tolist()

    def _sum_on_host(self, numbers: torch.Tensor) -> torch.Tensor:
        if not self.is_alone:
            # In other processes these places are zero, so that the sum is exact.
            torch.distributed.all_reduce(numbers)
        return numbers

    def largest(self, *numbers: int) -> list[int]:
        """The largest of each number that any process has; no device is waited for."""
        if self.is_alone:
            return list(numbers)
        largest = torch.tensor(numbers, dtype=torch.int64)
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
        return largest.tolist()

    def exchanged(self, numbers: torch.Tensor, partner: int) -> torch.Tensor:
        """What a partner has, which gets what this process has.

        Args:
            numbers: Any shape, on the device of the model; the partner's have the same.
            partner: The rank of the other process.
        """
        theirs = torch.empty_like(numbers)
        send = torch.distributed.P2POp(torch.distributed.isend, numbers, partner)
        receive = torch.distributed.P2POp(torch.distributed.irecv, theirs, partner)
        for work in torch.distributed.batch_isend_irecv([send, receive]):
            work.wait()
        return theirs

    def shared(self, value: Any) -> Any:
        """What the first process has, in all of them.

        Args:
            value: What JSON can hold; in other processes it is not looked at.
        """
        if self.is_alone:
            return value
        data = bytearray(json.dumps(value).encode()) if self.is_first else bytearray()
        size = torch.tensor(len(data))
        torch.distributed.broadcast(size, 0)
        data = data or bytearray(int(size))
        torch.distributed.broadcast(torch.frombuffer(data, dtype=torch.uint8), 0)
        return json.loads(bytes(data))

    def shared_tensors(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of the first process, in all of them; on the CPU.

        Args:
            tensors: By name; in other processes they are not looked at.
        """
        if self.is_alone:
            return dict(tensors)
        announced = [[name, str(t.dtype), list(t.shape)] for name, t in tensors.items()]
        received = {}
        for name, dtype, shape in self.shared(announced):
            tensor = torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))
            if self.is_first:
                tensor.copy_(tensors[name].detach())
            # Bytes: gloo does not know all types.
            torch.distributed.broadcast(tensor.reshape(-1).view(torch.uint8), 0)
            received[name] = tensor
        return received


@contextlib.contextmanager
def connected(meeting: Meeting, device: torch.device) -> Iterator[Group]:
    """Connects the processes of a run: by gloo on CPUs, and beside it by NCCL on GPUs.

    Where one fails in the meantime, the connections stay as they are, and break as it ends.

    Args:
        meeting: The processes.
        device: Where this one computes.

    Raises:
        MachineError: They cannot be connected, or one was lost.
    """
    world = meeting.world
    if world.is_alone:
        yield Group(world)
        return
    if device.type == "cuda":
        _take_gpu(world)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    prefix = torch.distributed.PrefixStore(f"group-{meeting.name}", meeting.store)
    with losses_told(meeting):
        torch.distributed.init_process_group(
            backend,
            store=prefix,
            rank=world.rank,
            world_size=world.n_processes,
            timeout=_PATIENCE,
        )
        yield Group(world)
        meeting.part()
        torch.distributed.destroy_process_group()


def _take_gpu(world: World) -> None:
    """Gives each process of a machine a GPU of its own.

    Raises:
        InputError: There are too few.
    """
    n_devices = torch.cuda.device_count()
    if world.local_rank >= n_devices:
        message = f"device: {world.n_local} processes on a machine with {n_devices} GPUs"
        raise InputError(f"{message}; start one process for each (--nproc_per_node)")
    torch.cuda.set_device(world.local_rank)


@contextlib.contextmanager
def losses_told(meeting: Meeting) -> Iterator[None]:
    """Turns a broken connection into words: those of the process that broke it, if it left any.

    Raises:
        LabError: One was broken, of the kind that the other process failed with.
    """
    try:
        yield
    except LabError:
        raise
    except RuntimeError as error:
        words = str(error).partition("\n")[0]
        is_loss = isinstance(error, torch.distributed.DistError) or _SIGN_OF_A_LOSS.search(words)
        if meeting.world.is_alone or not is_loss:
            raise
        meeting.failure_told_in_time()
        # Without the line of code in front, and the advice behind.
        reason = words.rpartition(".cc:")[2].partition("] ")[2].partition(". ")[0] or words
        message = f"one of the {meeting.world.n_processes} processes of this run was lost"
        told = f"{message}, or its machine cannot be reached ({reason})"
        raise meeting.tell_of_a_loss(told) from error
