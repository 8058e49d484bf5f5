"""What the processes of a run tell each other before they are connected, and when one fails."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from lm_core.errors import (
    DivergenceError,
    InputError,
    LabError,
    MachineError,
    StoppedAtOnce,
    StoppedError,
    ToldBefore,
    UnheardError,
)
from lm_core.parallel.heartbeat import Heartbeat
from lm_core.parallel.rendezvous import HINT, OWN, PAUSE, agreed_name, found_store, prefixed
from lm_core.parallel.world import World

# So long the word of a process that has failed may take to be there, in seconds: it is given before
# the process ends.
_SECONDS_FOR_A_WORD = 1.0
_FAILED, _SHARED, _RUN, _END = "failed", "shared", "run", "end"
# Under this name one process says that it will tell of a loss.
_TELLER = "teller"
_KINDS: dict[int, type[LabError]] = {
    kind.exit_code: kind for kind in (MachineError, InputError, DivergenceError)
}


class _LauncherGoneError(MachineError):
    """The store cannot be reached."""


class Meeting:
    """The processes of a run, as far as they know of each other; it is left as one failure for all.

    With one process nothing is shared, and nothing waits.

    Args:
        world: The processes.
        store: Their store. None: there is one process.
        name: Tells this meeting from those that processes before these had in the same store, as
            ``agreed_name`` finds it.
        heartbeat: Tells the others that this process lives. None: nobody waits for long.

    Attributes:
        world: As given.
        store: As given.
        name: As given.
    """

    def __init__(
        self,
        world: World,
        store: Any = None,
        name: str = "",
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self.world, self.store, self.name = world, store, name
        self._heartbeat = heartbeat
        self._n_meetings = 0
        # What holds for these processes only, and what holds for all that a launcher starts.
        self._now = self._prefixed(f"{OWN}/{name}")
        self._always = self._prefixed(OWN)

    def _prefixed(self, name: str) -> Any:
        return None if self.store is None else prefixed(self.store, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A launcher ends all processes as soon as one has failed, and the first one tells why.
        before = self._failure_before() if isinstance(error, StoppedAtOnce) else None
        if error is not None and not isinstance(error, StoppedError | ToldBefore):
            self._tell_failure(before or error)
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if before is not None:
            raise before from error

    def _failure_before(self) -> LabError | None:
        """What another process has failed at, if it was no signal."""
        try:
            failure = self._failure()
        except _LauncherGoneError:
            return None
        return None if failure is None or failure["signal"] is not None else self._error_of(failure)

    def _tell_failure(self, error: BaseException) -> None:
        """Says why this process cannot go on, unless another one has said so before."""
        if self._now is None:
            return
        is_told = isinstance(error, LabError)
        words = {
            "message": error.message if is_told else f"{type(error).__name__}: {error}",
            "exit_code": getattr(error, "exit_code", LabError.exit_code),
            "signal": getattr(error, "signal_number", None),
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
            StoppedAtOnce: A signal ended it.
        """
        failure = self._failure()
        if failure is None:
            return
        if failure["signal"] is not None:
            raise StoppedAtOnce(failure["signal"])
        raise self._error_of(failure)

    def _error_of(self, failure: dict[str, Any]) -> LabError:
        kind = _KINDS.get(failure["exit_code"], MachineError)
        who = f"process {failure['rank']} of {self.world.n_processes} on {failure['host']}"
        # The first one speaks for itself.
        message = failure["message"] if failure["rank"] == 0 else f"{who}: {failure['message']}"
        return kind(message)

    def _failure(self) -> dict[str, Any] | None:
        if self._now is None:
            return None
        with _in_reach():
            # The first word stands; an empty one is none.
            text = self._now.get(_FAILED) if self._now.check([_FAILED]) else b""
        return json.loads(text) if text else None

    def failure_told_in_time(self) -> None:
        """As ``require_all_well``, of a process that is just ending: its word may still come."""
        end = time.monotonic() + _SECONDS_FOR_A_WORD
        while time.monotonic() < end:
            self.require_all_well()
            time.sleep(PAUSE)

    def tell_of_a_loss(self, message: str) -> MachineError:
        """The error about a process that was lost: of one process alone, one that is heard.

        Args:
            message: What is known.
        """
        if self.world.is_first:
            self._claim_telling()
            return MachineError(message)
        # The first process tells it, if it is there to.
        time.sleep(_SECONDS_FOR_A_WORD)
        return UnheardError(message) if self._claim_telling() else MachineError(message)

    def _claim_telling(self) -> bool:
        try:
            own = str(self.world.rank)
            return self._now.compare_set(_TELLER, "", own).decode() == own
        except RuntimeError:  # The launcher has gone, with the store; then anybody may.
            return True

    def share(self, value: Any) -> None:
        """Gives the others something, for which they wait in ``shared``; the first process does.

        Args:
            value: What JSON can hold.

        Raises:
            MachineError: The launcher has gone.
        """
        if self._now is not None:
            with _in_reach():
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
        with _in_reach():
            self._now.add(name, 1)
        self._wait(lambda: self._now.add(name, 0) >= self.world.n_processes)

    def part(self) -> None:
        """As ``meet``, where all is done: a launcher that has gone is no harm any more.

        Raises:
            LabError: Another process has failed instead.
        """
        with contextlib.suppress(_LauncherGoneError):
            self.meet()

    def _wait(self, is_done: Callable[[], bool]) -> None:
        with _in_reach():
            while not is_done():
                self.require_all_well()
                if self._heartbeat is not None:
                    self._heartbeat.require_others()
                time.sleep(PAUSE)

    def remember_run(self, path: str) -> None:
        """Notes where the run is, for processes that are started again.

        Raises:
            MachineError: The launcher has gone.
        """
        if self._always is not None:
            with _in_reach():
                self._always.set(_RUN, path)

    @property
    def remembered_run(self) -> str | None:
        """Where the run is that these processes are to go on with; None: they begin one.

        Raises:
            MachineError: The launcher has gone.
        """
        return self._kept(_RUN)

    def require_a_way_on(self) -> None:
        """Refuses to start again what ended by a fault that a person has to mend.

        Raises:
            ToldBefore: It did.
            MachineError: The launcher has gone.
        """
        ended = self._kept(_END)
        if ended is not None:
            raise ToldBefore(int(ended))

    def _kept(self, key: str) -> str | None:
        """What processes before these have left for those that are started again."""
        if self._always is None:
            return None
        with _in_reach():
            return self._always.get(key).decode() if self._always.check([key]) else None


# The meeting of a process that no launcher has started.
ALONE = Meeting(World())


def meeting_here(world: World, tell: Callable[[str], None] = lambda text: None) -> Meeting:
    """The meeting of the processes that a launcher has started.

    Args:
        world: The processes.
        tell: Called with a line for the person who waits, where others do not come for long.

    Raises:
        UnheardError: They cannot find each other.
    """
    if not world.is_launched:
        return Meeting(world)
    # Warnings of PyTorch's own, of a launcher that has gone, are pages of addresses.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        store = found_store(world, tell)
        name = agreed_name(world, store)
        return Meeting(world, store, name, Heartbeat(world, store, f"{OWN}/{name}"))
    except (RuntimeError, ValueError) as error:
        if isinstance(error, LabError):
            raise
        reason = str(error).strip().splitlines()[0]
        message = f"the processes of this run cannot find each other: {reason}"
        raise UnheardError(f"{message}; {HINT}") from error


@contextlib.contextmanager
def _in_reach() -> Iterator[None]:
    """Says of a store that does not answer what that means."""
    try:
        yield
    except LabError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        message = "the launcher of this run's processes cannot be reached"
        raise _LauncherGoneError(f"{message}: {reason}") from error
