"""What the processes of a run tell each other before they are connected, and when one fails.

They share a store, a small table of texts, which torchrun's agent keeps for all of them, also over
restarts (https://docs.pytorch.org/docs/stable/distributed.html, "Distributed Key-Value Store").
"""

import json
import secrets
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
_FAILED, _SHARED, _RUN, _END, _PROPOSED = "failed", "shared", "run", "end", "proposed"
# Random bytes of a word or name: no two are ever the same.
_WORD_BYTES = 8
_KINDS: dict[int, type[LabError]] = {
    kind.exit_code: kind for kind in (MachineError, InputError, DivergenceError)
}


class Meeting:
    """The processes of a run, as far as they know of each other; it is left as one failure for all.

    With one process nothing is shared, and nothing waits.

    Args:
        world: The processes.
        store: Their store. None: there is one process.
        name: Tells this meeting from those that processes before these had in the same store, as
            ``agreed_name`` finds it.

    Attributes:
        world: As given.
        store: As given.
        name: As given.
    """

    def __init__(self, world: World, store: Any = None, name: str = "") -> None:
        self.world, self.store, self.name = world, store, name
        self._n_meetings = 0
        # What holds for these processes only, and what holds for all that a launcher starts.
        self._now = self._prefixed(f"{_OWN}/{name}")
        self._always = self._prefixed(_OWN)

    def _prefixed(self, name: str) -> Any:
        return None if self.store is None else _prefixed(self.store, name)

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
        if self._always is None or not self._always.check([_RUN]):
            return None
        return self._always.get(_RUN).decode()

    def require_a_way_on(self) -> None:
        """Refuses to start again what ended by a fault that a person has to mend.

        Raises:
            LabError: It did, of the kind that ended it.
        """
        if self._always is None or not self._always.check([_END]):
            return
        kind = _KINDS.get(int(self._always.get(_END)), MachineError)
        raise kind("started again by the launcher, and ended: what ended it before is not mended")


def meeting_here(world: World) -> Meeting:
    """The meeting of the processes that a launcher has started.

    Raises:
        MachineError: They cannot find each other.
    """
    if world.is_alone:
        return Meeting(world)
    from torch.distributed import rendezvous

    try:
        store, _, _ = next(iter(rendezvous("env://")))
        return Meeting(world, store, agreed_name(world, store))
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        message = f"the processes of this run cannot find each other: {reason}"
        raise MachineError(f"{message}; torchrun sets MASTER_ADDR and MASTER_PORT") from error


def agreed_name(world: World, store: Any) -> str:
    """A name that these processes have for their meeting, and none before them had.

    A launcher starts processes again, in other numbers too, and keeps the store: what is in it may
    be of those before. So each says a word of its own, and a name counts once all have found their
    word beside it.

    Args:
        world: The processes.
        store: Their store.
    """
    store = _prefixed(store, _OWN)
    if world.is_first:
        return _proposed_until_found(
            store, [_word_of(rank) for rank in range(1, world.n_processes)]
        )
    own, found = secrets.token_hex(_WORD_BYTES), None
    store.set(_word_of(world.rank), own)
    while True:
        proposed = json.loads(store.get(_PROPOSED)) if store.check([_PROPOSED]) else None
        if proposed and own in proposed["words"] and proposed["name"] != found:
            found = proposed["name"]
            store.add(f"found-{found}", 1)
        if found and store.check([f"settled-{found}"]):
            return found
        time.sleep(_PAUSE)


def _proposed_until_found(store: Any, keys: list[str]) -> str:
    """The name of which all others have found that it stands beside their words."""
    words: list[str] = []
    name = ""
    while True:
        if all(store.check([key]) for key in keys):
            there = [store.get(key).decode() for key in keys]
            if there != words:
                # Until now, some were of processes before these.
                words, name = there, secrets.token_hex(_WORD_BYTES)
                store.set(_PROPOSED, json.dumps({"name": name, "words": words}))
            if store.add(f"found-{name}", 0) == len(keys):
                store.set(f"settled-{name}", "")
                return name
        time.sleep(_PAUSE)


def _word_of(rank: int) -> str:
    return f"word-{rank}"


def _prefixed(store: Any, name: str) -> Any:
    from torch.distributed import PrefixStore

    return PrefixStore(name, store)


def _unreachable(error: RuntimeError) -> MachineError:
    reason = str(error).strip().splitlines()[0]
    return MachineError(f"the launcher of this run's processes cannot be reached: {reason}")
