"""The runs of a study, each watched from its start to what the storage remembers of it."""

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lm_core.config.table import gin_parameter
from lm_core.errors import DivergenceError, InputError, StoppedError
from lm_core.search.doubts import Doubts
from lm_core.search.locks import FileLock
from lm_core.search.study import Study
from lm_core.search.study_folder import StudyFolder
from lm_core.search.trial_metrics import MetricsTail, ending_of
from lm_core.search.trial_process import RunProcess, TrialProcess
from lm_core.search.trial_records import (
    COMPLETED,
    DIVERGED,
    FAILED,
    PRUNED,
    FreshResult,
    TrialRecords,
)

# Seconds between two signs of life of a trial, for the other machines of a study.
_SECONDS_BETWEEN_BEATS = 30.0
# The signals that people and clusters stop a run with; it has saved then, and can go on.
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOPPED = {code for n in _STOPS for code in (-n, StoppedError("", n).exit_code)}
# How often a run goes on that somebody stops who is not the study itself.
_MOST_STOPS = 3


class Job(Protocol):
    """A run that this process watches."""

    def is_over(self) -> bool:
        """Looks how far it is; what it leaves is in the storage when it is over."""

    def stop(self) -> None:
        """Asks it to save and to end, so that it can go on another time."""

    def progress(self) -> tuple[str, int, float | None]:
        """Its name, its step, and its newest validation loss."""


@dataclass(frozen=True)
class Workplace:
    """What the runs of a study have in common.

    Attributes:
        study: The study.
        folder: Its folder.
        records: Its trials.
        program: Where ``run.py`` is.
        imports: The modules that it may import.
        n_threads: Threads for each run; None: as many as it likes.
        is_shared: Whether other machines take part.
        n_stops: How often each run was stopped by somebody else.
        doubts: The trials that failed for what may be no fault of their own.
    """

    study: Study
    folder: StudyFolder
    records: TrialRecords
    program: Path
    imports: tuple[str, ...]
    n_threads: int | None
    is_shared: bool
    n_stops: dict[str, int]
    doubts: Doubts

    def start(
        self, run_dir: Path, log: Path, values: Mapping[str, Any], lock: FileLock
    ) -> RunProcess:
        """Starts a run, or goes on with it.

        Args:
            run_dir: Its directory.
            log: Takes what it says.
            values: What is different in it from the base.
            lock: Held by it too.

        Raises:
            MachineError: No process can be started.
        """
        arguments = [
            f"--config={self.folder.base}",
            *(f"--gin_bindings={gin_parameter(key)} = {value!r}" for key, value in values.items()),
            *(f"--allow_gin_import={name}" for name in self.imports),
            f"--run_dir={run_dir}",
            "--resume",
        ]
        return TrialProcess(arguments, self.program, log, lock.descriptor, self.n_threads)


class _Run(ABC):
    """A run with its process, its metrics and its lock."""

    def __init__(
        self,
        place: Workplace,
        name: str,
        run_dir: Path,
        values: Mapping[str, Any],
        lock: FileLock,
    ) -> None:
        self._place, self._name, self._run_dir = place, name, run_dir
        self._values, self._lock = dict(values), lock
        self._tail = MetricsTail(run_dir)
        self._process: RunProcess | None = None
        self._is_stopping = False
        self._is_begun, self._is_begun_anew = False, False
        self._is_kept_open = False
        # Whether there is something of it that can be damaged, and how far that came.
        self._is_resumed, self._step_before = False, 0

    def progress(self) -> tuple[str, int, float | None]:
        """Its name, its step, and its newest validation loss."""
        losses = self._tail.losses
        return self._name, self._tail.step, losses[max(losses)] if losses else None

    def stop(self) -> None:
        """Asks it to save and to end, so that it can go on another time."""
        self._is_stopping = True
        if self._process is not None:
            self._process.stop()

    def is_over(self) -> bool:
        """Looks how far it is; what it leaves is in the storage when it is over."""
        if not self._is_begun:
            self._is_begun = True
            if self._ends_before_it_starts():
                self._lock.let_go()
                return True
        if self._process is None and self._is_stopping:
            self._lock.let_go()
            return True
        if self._process is None:
            log = self._place.folder.log(self._name)
            self._is_resumed = self._run_dir.exists() and not self._is_begun_anew
            self._step_before = self._tail.step
            self._process = self._place.start(self._run_dir, log, self._values, self._lock)
        # What it writes before its end is read after it.
        code = self._process.exit_code()
        self._tail.look()
        if not self._goes_on_well():
            self._process.stop()
        if code is None:
            return False
        if self._is_of_no_use(code, self._process.last_words()):
            self._begin_anew()
            return False
        self._conclude(code, self._process.last_words())
        if not self._is_kept_open:
            self._lock.let_go()
        return True

    def _ends_before_it_starts(self) -> bool:
        """Whether nothing is left to be run; then the storage knows the result."""
        ending = ending_of(self._run_dir)
        self._tail.look()
        if ending.outcome == "completed" and self._is_whole:
            self._conclude(0, "")
            return True
        if ending.outcome == "diverged":
            self._conclude(DivergenceError.exit_code, ending.reason)
            return True
        return False

    def _is_of_no_use(self, code: int, last_words: str) -> bool:
        """Whether its record or its checkpoints are so damaged that it cannot go on."""
        is_refused = code > 0 and code != DivergenceError.exit_code and code not in _STOPPED
        # What is said of other things, such as the text, names none of its files.
        is_about_it = f"{self._run_dir.parent.name}/{self._run_dir.name}" in last_words
        did_nothing = self._tail.step <= self._step_before
        return is_refused and self._is_resumed and did_nothing and is_about_it

    def _begin_anew(self) -> None:
        self._is_begun_anew = True
        self._place.folder.set_aside(self._run_dir, self._name)
        self._tail, self._process = MetricsTail(self._run_dir), None

    @property
    def _is_whole(self) -> bool:
        """Whether its metrics have what its result is taken from."""
        return self._tail.step in self._tail.losses

    def _goes_on_well(self) -> bool:
        return True

    def _conclude(self, code: int, last_words: str) -> None:
        """Notes how it ended, unless it is to go on another time."""
        ending = ending_of(self._run_dir)
        steps = ending.last_step or self._tail.step
        if code == 0 or (code in _STOPPED and ending.outcome == "completed"):
            stops_early = self._place.study.values.early_stopping_evaluations is not None
            loss = self._tail.result(is_best=stops_early)
            if loss is None:
                self._note(FAILED, None, steps, f"{self._run_dir} holds no validation loss")
            elif ending.corpus and not self._place.records.is_of_same_text(ending.corpus):
                # Should it be run again, then from the start.
                self._place.folder.set_aside(self._run_dir, self._name)
                self._fail(steps, "its text is another one than that of the others")
            else:
                self._note(COMPLETED, loss, steps, "")
        elif code == DivergenceError.exit_code:
            self._note(DIVERGED, None, steps, last_words)
        elif code in _STOPPED:
            if not self._is_stopping and self._is_stopped_too_often():
                self._note(FAILED, None, steps, f"stopped by somebody else {_MOST_STOPS} times")
        elif code < 0:
            self._note(FAILED, None, steps, _killed(-code))
        else:
            kind = "refused" if code == InputError.exit_code else "the machine failed"
            self._fail(steps, f"{kind}: {last_words}")

    def _is_stopped_too_often(self) -> bool:
        n_stops = self._place.n_stops.get(self._name, 0) + 1
        self._place.n_stops[self._name] = n_stops
        return n_stops >= _MOST_STOPS

    def _fail(self, steps: int, reason: str) -> None:
        """Notes a failure that may be no fault of the run."""
        self._place.doubts.stop_if_full(self._name, reason)
        self._note(FAILED, None, steps, reason)

    @abstractmethod
    def _note(self, outcome: str, loss: float | None, steps: int, reason: str) -> None:
        """Has the storage remember how it ended."""


def _killed(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"killed by {name}" + (", out of memory?" if number == signal.SIGKILL else "")


class TrialJob(_Run):
    """A trial: reported at its evaluations, and pruned where it looks unpromising.

    Args:
        place: Where it runs.
        number: Its number.
        lock: Its lock, held.
        clock: Seconds, for its signs of life.
    """

    def __init__(
        self,
        place: Workplace,
        number: int,
        lock: FileLock,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        record = place.records.get(number)
        run_dir = place.folder.trial(record.name)
        super().__init__(place, record.name, run_dir, record.values, lock)
        self.number = number
        self._reported = set(record.losses)
        self._is_pruned = record.to_prune
        self._is_lost = False
        self._clock = clock
        self._next_beat = clock() + _SECONDS_BETWEEN_BEATS

    def _ends_before_it_starts(self) -> bool:
        try:
            self._place.study.values_of(self._values)
        except InputError as error:
            self._note(FAILED, None, 0, f"refused: {'; '.join(error.message.splitlines())}")
            return True
        # A kill may have come between an evaluation and what it meant for the trial.
        self._tail.look()
        self._goes_on_well()
        if self._is_pruned:
            self._conclude(0, "")
            return True
        return super()._ends_before_it_starts()

    def _goes_on_well(self) -> bool:
        if self._is_stopping or self._is_pruned or self._is_lost:
            return True
        if self._place.is_shared and self._clock() >= self._next_beat:
            self._next_beat = self._clock() + _SECONDS_BETWEEN_BEATS
            self._is_lost = self._place.records.get(self.number).owner != self._place.folder.owner
            if self._is_lost:  # It was silent for so long that another machine took it over.
                return False
            self._place.records.beat(self.number)
        # One after the other, however many have come at once: what is pruned does not depend on the
        # speed of the machine, and so neither do the values of later trials.
        for step in sorted(set(self._tail.losses) - self._reported):
            self._reported.add(step)
            self._place.records.report(self.number, step, self._tail.losses[step])
            self._is_pruned = self._place.records.should_prune(self.number)
            if self._is_pruned:
                return False
        return True

    def _conclude(self, code: int, last_words: str) -> None:
        if self._is_lost:
            return
        if self._is_pruned:
            self._note(PRUNED, None, ending_of(self._run_dir).last_step or self._tail.step, "")
        else:
            super()._conclude(code, last_words)

    def _note(self, outcome: str, loss: float | None, steps: int, reason: str) -> None:
        self._place.records.finish(self.number, outcome, loss, steps, reason)
        if outcome != FAILED:
            self._place.doubts.clear_up()

    def _fail(self, steps: int, reason: str) -> None:
        self._is_kept_open = True
        self._place.doubts.add(self.number, steps, reason, self._lock)


class FreshSeedJob(_Run):
    """The winner on a fresh seed.

    Args:
        place: Where it runs.
        winner: The number of the winner.
        seed: The seed.
        lock: Its lock, held.
    """

    def __init__(self, place: Workplace, winner: int, seed: int, lock: FileLock) -> None:
        record = place.records.get(winner)
        run_dir = place.folder.fresh(record.name, seed)
        values = {**record.values, "seed": seed}
        super().__init__(place, f"{record.name}-seed-{seed}", run_dir, values, lock)
        self._winner, self._seed = winner, seed

    def _note(self, outcome: str, loss: float | None, steps: int, reason: str) -> None:
        result = FreshResult(self._seed, outcome, loss, reason)
        self._place.records.add_fresh(self._winner, result)
