"""What the processes of a run tell each other before they are connected, and when one fails.

They share a store, a small table of texts, which torchrun's agent keeps for all of them, also over
restarts (https://docs.pytorch.org/docs/stable/distributed.html, "Distributed Key-Value Store").
"""

import json
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from lm_core.errors import DivergenceError, InputError, LabError, MachineError, StoppedError
from lm_core.parallel.world import World

# Of the lab in the store, apart from what PyTorch keeps there.
_OWN = "lm_core"
# Longest pause between two looks at what others say, in seconds: a signal is answered in between.
_PAUSE = 0.05
# So long the word of a process that has failed may take to be there, in seconds: it is given before
# the process ends.
_SECONDS_FOR_A_WORD = 1.0
_FAILED, _SHARED, _RUN, _END = "failed", "shared", "run", "end"
_KINDS: dict[int, type[LabError]] = {
    kind.exit_code: kind for kind in (MachineError, InputError, DivergenceError)
}


class Meeting:
    """The processes of a run, as far as they know of each other; it is left as one failure for all.

    With one process nothing is shared, and nothing waits.

    Args:
        world: The processes.
        store: Their store. None: that of the environment, if there is more than one.

    Raises:
        MachineError: The store cannot be reached.
    """

    def __init__(self, world: World, store: Any = None) -> None:
        self.world = world
        self._n_meetings = 0
        self.store = store
        if store is None and not world.is_alone:
            self.store = _store_of_environment()
        # What holds for this attempt only, and what holds for all.
        self._now = self._prefixed(f"{_OWN}/attempt-{world.attempt}")
        self._always = self._prefixed(_OWN)

    def _prefixed(self, name: str) -> Any:
        if self.store is None:
            return None
        from torch.distributed import PrefixStore

        return PrefixStore(name, self.store)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and not isinstance(error, StoppedError):
            self._tell_failure(error)

    def _tell_failure(self, error: BaseException) -> None:
        """Says why this process cannot go on, unless another one has said so before."""
        if self._now is None:
            return
        is_told = isinstance(error, LabError)
        words = {
            "message": error.message if is_told else f"{type(error).__name__}: {error}",
            "exit_code": getattr(error, "exit_code", LabError.exit_code),
            "rank": self.world.rank,
            "host": socket.gethostname(),
        }
        try:
            self._now.compare_set(_FAILED, "", json.dumps(words))
            if isinstance(error, InputError | DivergenceError) and self.world.is_first:
                # To start again would end alike.
                self._always.set(_END, str(error.exit_code))
        except RuntimeError:  # The launcher has gone, and nobody is left to hear it.
            return

    def require_all_well(self) -> None:
        """Ends this process where another one has failed.

        Raises:
            LabError: One has, of the kind that it failed with; says which, and at what.
        """
        failure = self._failure()
        if failure is None:
            return
        kind = _KINDS.get(failure["exit_code"], MachineError)
        who = f"process {failure['rank']} of {self.world.n_processes} on {failure['host']}"
        # The first one speaks for itself.
        message = failure["message"] if failure["rank"] == 0 else f"{who}: {failure['message']}"
        raise kind(message)

    def _failure(self) -> dict[str, Any] | None:
        if self._now is None:
            return None
        try:
            # The first word stands; an empty one is none.
            text = self._now.get(_FAILED) if self._now.check([_FAILED]) else b""
        except RuntimeError as error:
            raise _unreachable(error) from error
        return json.loads(text) if text else None

    def failure_told_in_time(self) -> None:
        """As ``require_all_well``, of a process that is just ending: its word may still come."""
        end = time.monotonic() + _SECONDS_FOR_A_WORD
        while time.monotonic() < end:
            self.require_all_well()
            time.sleep(_PAUSE)

    def share(self, value: Any) -> None:
        """Gives the others something, for which they wait in ``shared``; the first process does.

        Args:
            value: What JSON can hold.
        """
        if self._now is not None:
            self._now.set(_SHARED, json.dumps(value))

    def shared(self) -> Any:
        """What the first process shares.

        Raises:
            LabError: It has failed instead, or another process has.
        """
        self._wait(lambda: self._now.check([_SHARED]))
        return json.loads(self._now.get(_SHARED))

    def meet(self) -> None:
        """Waits until all processes have come here.

        Raises:
            LabError: Another process has failed instead.
        """
        if self._now is None:
            return
        self._n_meetings += 1
        name = f"met-{self._n_meetings}"
        self._now.add(name, 1)
        self._wait(lambda: self._now.add(name, 0) >= self.world.n_processes)

    def _wait(self, is_done: Callable[[], bool]) -> None:
        try:
            while not is_done():
                self.require_all_well()
                time.sleep(_PAUSE)
        except LabError:
            raise
        except RuntimeError as error:
            raise _unreachable(error) from error

    def remember_run(self, path: str) -> None:
        """Notes where the run is, for processes that are started again."""
        if self._always is not None:
            self._always.set(_RUN, path)

    @property
    def remembered_run(self) -> str | None:
        """Where the run is that these processes are to go on with; None: they begin one."""
        if self._always is None or not self.world.attempt or not self._always.check([_RUN]):
            return None
        return self._always.get(_RUN).decode()

    def require_a_way_on(self) -> None:
        """Refuses to start again what ended by a fault that a person has to mend.

        Raises:
            LabError: It did, of the kind that ended it.
        """
        if self._always is None or not self.world.attempt or not self._always.check([_END]):
            return
        kind = _KINDS.get(int(self._always.get(_END)), MachineError)
        raise kind("started again by the launcher, and ended: what ended it before is not mended")


def _store_of_environment() -> Any:
    from torch.distributed import rendezvous

    try:
        store, _, _ = next(iter(rendezvous("env://")))
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        message = f"the processes of this run cannot find each other: {reason}"
        raise MachineError(
            f"{message}; see MASTER_ADDR and MASTER_PORT, or use torchrun"
        ) from error
    return store


def _unreachable(error: RuntimeError) -> MachineError:
    reason = str(error).strip().splitlines()[0]
    return MachineError(f"the launcher of this run's processes cannot be reached: {reason}")
