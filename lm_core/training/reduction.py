"""One gradient of the whole batch, of the parts of it that each process computes.

| class | processes | what each of them keeps |
|---|---|---|
| ``Alone`` | one | everything |
| ``Replicated`` | several, by DistributedDataParallel | everything |
| ``Sharded`` | several, by FSDP2 | a share of weights, gradients and the optimizer's state |
| ``Exact`` | 1, 2, 4 or 8 | everything; the bits are the same for each number of them |
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch

from lm_core.errors import InputError
from lm_core.model.transformer import Transformer
from lm_core.parallel.group import Group
from lm_core.parallel.shards import shard_model

# Pieces that an exact reduction cuts every batch into: a power of two, so that a whole tree adds
# them up, and as many as there may be processes.
N_PIECES = 8

# Computes a part of the batch, given the indices of its sequences: leaves its gradients in the
# parameters, added to those that stand there, and returns its mean loss.
Compute = Callable[[range], torch.Tensor]


class Reduction(ABC):
    """How the gradient of a batch is put together.

    Args:
        model: The model, on its device.
        group: The processes that train it.
        batch_size: Sequences of the whole batch.
        n_parts: Parts that the batch is computed in, one after the other.

    Attributes:
        forward: The model, as it is to be called in training.
        own: The sequences of the batch that this process computes.
    """

    def __init__(self, model: Transformer, group: Group, batch_size: int, n_parts: int) -> None:
        self.forward: Callable[..., torch.Tensor] = model
        self.own = group.share_of(batch_size)
        self._model, self._group, self._batch_size = model, group, batch_size
        self._n_parts = n_parts

    def divisor(self, part: range) -> float:
        """What the mean objective of a part is divided by before its backward."""
        return self._batch_size / len(part)

    @abstractmethod
    def gradient(self, compute: Compute) -> torch.Tensor:
        """Leaves the gradient of the whole batch in the parameters, the same in all processes.

        Args:
            compute: Computes a part.

        Returns:
            The mean loss of the whole batch, a scalar: the same in all processes.
        """

    def norm(self, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        """Euclidean norm of all gradients together, a scalar: the same in all processes.

        Args:
            gradients: As this process keeps them.
        """
        return torch.nn.utils.get_total_norm(gradients)


class Alone(Reduction):
    """One process, which computes equal parts of a batch one after the other."""

    def gradient(self, compute: Compute) -> torch.Tensor:
        """The parts add up by themselves, and their losses have the same weight."""
        losses = [compute(part) for part in _cut(self.own, self._n_parts)]
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()


class _Averaged(Reduction):
    """Several processes, over which an engine of PyTorch takes the mean of gradients."""

    def divisor(self, part: range) -> float:
        """What makes the engine's mean over processes the mean over all sequences."""
        return self._batch_size / (len(part) * self._group.n_processes)

    def gradient(self, compute: Compute) -> torch.Tensor:
        """As many parts in each process, since some engines let all processes begin each together.

        A batch that does not divide is shared unevenly, and each sequence has the same weight.
        """
        most = self._batch_size // self._group.n_processes
        parts = _cut(self.own, min(self._n_parts, most))
        total = torch.zeros((), dtype=torch.float64, device=self._model.device)
        for index, part in enumerate(parts):
            with self._sending(is_last=index == len(parts) - 1):
                total += compute(part).double() * len(part) / self._batch_size
        return self._group.sum(total).float()

    @abstractmethod
    def _sending(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Around forward and backward of a part: only the last one's backward sends gradients."""


class Replicated(_Averaged):
    """The whole model in every process, by DistributedDataParallel (Li et al. 2020)."""

    def __init__(self, model: Transformer, group: Group, batch_size: int, n_parts: int) -> None:
        super().__init__(model, group, batch_size, n_parts)
        self.forward = self._engine = torch.nn.parallel.DistributedDataParallel(
            model,
            device_ids=None if model.device.type == "cpu" else [model.device.index],
            gradient_as_bucket_view=True,
        )

    @contextlib.contextmanager
    def _sending(self, is_last: bool) -> Iterator[None]:
        with contextlib.nullcontext() if is_last else self._engine.no_sync():
            yield


class Sharded(_Averaged):
    """A share of the model in every process, by FSDP2 (Zhao et al. 2023)."""

    def __init__(self, model: Transformer, group: Group, batch_size: int, n_parts: int) -> None:
        super().__init__(model, group, batch_size, n_parts)
        shard_model(model)

    @contextlib.contextmanager
    def _sending(self, is_last: bool) -> Iterator[None]:
        self._model.set_requires_gradient_sync(is_last)
        yield

    def norm(self, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        """Of the shares of all processes together."""
        square = super().norm(gradients).double().square()
        return self._group.sum(square).sqrt().float()


class Exact(Reduction):
    """The same bits for 1, 2, 4 and 8 processes, each with one thread.

    A batch is cut into eight pieces whatever the number of processes, each with a backward of its
    own, and a fixed binary tree adds them up. A process computes a whole subtree; where subtrees
    meet, each of two processes adds the other's sum to its own. The sum of two numbers does not
    depend on their order, so that both get the same bits.
    """

    def gradient(self, compute: Compute) -> torch.Tensor:
        """The tree, from its leaves to its root."""
        n_own = N_PIECES // self._group.n_processes
        losses: dict[int, float] = {}
        pieces = range(self._group.rank * n_own, (self._group.rank + 1) * n_own)
        total = self._subtree(pieces, compute, losses)
        distance = 1
        while distance < self._group.n_processes:
            total = self._met(total, self._group.rank ^ distance)
            distance *= 2
        for parameter, gradient in zip(self._model.parameters(), total, strict=True):
            parameter.grad = gradient
        return torch.tensor(sum(self._group.joined(losses, N_PIECES)), dtype=torch.float32).to(
            self._model.device
        )

    def _subtree(
        self, pieces: range, compute: Compute, losses: dict[int, float]
    ) -> list[torch.Tensor | None]:
        """The sum of the gradients of some pieces, and their shares of the loss."""
        if len(pieces) == 1:
            return self._piece(pieces[0], compute, losses)
        half = len(pieces) // 2
        left = self._subtree(pieces[:half], compute, losses)
        right = self._subtree(pieces[half:], compute, losses)
        return [_added(one, other) for one, other in zip(left, right, strict=True)]

    def _piece(
        self, piece: int, compute: Compute, losses: dict[int, float]
    ) -> list[torch.Tensor | None]:
        """The gradients of a piece: none where a batch has fewer sequences than pieces."""
        first, last = (self._batch_size * end // N_PIECES for end in (piece, piece + 1))
        n_parts = min(-(-self._n_parts // N_PIECES), last - first)
        for part in _cut(range(first, last), n_parts):
            loss = float(compute(part)) * len(part) / self._batch_size
            losses[piece] = losses.get(piece, 0.0) + loss
        gradients = [parameter.grad for parameter in self._model.parameters()]
        for parameter in self._model.parameters():
            parameter.grad = None
        return gradients

    def _met(self, ours: list[torch.Tensor | None], partner: int) -> list[torch.Tensor | None]:
        """The sum of the gradients of this process and of another."""
        given = [gradient for gradient in ours if gradient is not None]
        flat = torch.cat([gradient.flatten() for gradient in given])
        flat += self._group.exchanged(flat, partner)
        parts = iter(flat.split([gradient.numel() for gradient in given]))
        return [None if g is None else next(parts).view_as(g) for g in ours]


def _added(one: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one.add_(other)


def _cut(numbers: range, n_parts: int) -> list[range]:
    """Numbers in order, in parts that differ by one in length at the most; none is empty."""
    n = len(numbers)
    return [numbers[n * i // n_parts : n * (i + 1) // n_parts] for i in range(n_parts)]


# The ways to train in several processes, by their names in configurations.
_ENGINES: dict[str, type[Reduction]] = {"ddp": Replicated, "fsdp": Sharded}


def require_shareable(
    n_processes: int, batch_size: int, parallelism: str = "auto", is_exact: bool = False
) -> None:
    """Refuses what so many processes cannot do together.

    Args:
        n_processes: How many there are.
        batch_size: Sequences of the whole batch.
        parallelism: As of ``build_reduction``.
        is_exact: As of ``build_reduction``.

    Raises:
        InputError: They cannot; begins with the hyperparameter.
    """
    if batch_size < n_processes:
        message = f"batch_size: {batch_size} sequences are too few for {n_processes} processes"
        raise InputError(f"{message}, each of which needs one; start fewer, or make it larger")
    if is_exact and N_PIECES % n_processes:
        message = f"exact_reduction: {n_processes} processes do not share the {N_PIECES} pieces"
        raise InputError(f"{message} of a batch evenly; start 1, 2, 4 or 8, or leave it off")
    if parallelism == "none" and n_processes > 1:
        message = f"parallelism: none is for one process, and {n_processes} were started"
        raise InputError(f"{message}: each would do the work of all; take auto, ddp or fsdp")


def build_reduction(
    model: Transformer,
    group: Group,
    batch_size: int,
    n_parts: int,
    parallelism: str = "auto",
    is_exact: bool = False,
) -> Reduction:
    """The way to train with the processes there are. What makes optimizers comes after it.

    Args:
        model: The model, on its device.
        group: The processes.
        batch_size: Sequences of the whole batch.
        n_parts: Parts that the batch is computed in, one after the other.
        parallelism: ``ddp``, ``fsdp``, ``none``, or ``auto``, which is ``ddp`` where there are
            several processes.
        is_exact: Whether the bits are to be the same for any number of processes.

    Raises:
        InputError: They cannot train together like this.
    """
    require_shareable(group.n_processes, batch_size, parallelism, is_exact)
    kind: type[Reduction] = Alone if group.is_alone else _ENGINES.get(parallelism, Replicated)
    return (Exact if is_exact else kind)(model, group, batch_size, n_parts)
