"""Which run of a study this process does next, so that no run is done twice."""

import time
from collections.abc import Callable

from lm_core.search.jobs import FreshSeedJob, TrialJob, Workplace
from lm_core.search.samplers import fresh_seed
from lm_core.search.trial_records import FAILED, RUNNING, TrialRecord

# A machine that shows no sign of life for so long is taken for dead: ten times what lies between
# two signs.
_SECONDS_OF_SILENCE = 300.0
# In so many seconds a trial has saved and ended whose search was killed, unless its steps are long.
SECONDS_TO_SAVE = 10.0


class Claims:
    """Hands out the runs of a study.

    On one machine a trial is run by who holds its lock, and its process holds it too; so a trial
    that nobody finished, and whose lock is free, is taken up. Of several machines, each takes up
    its own trials only, which it knows by its name and folder, and those of a machine that has
    been silent for five minutes of this one's own clock. A machine that was only cut off, and comes
    back, finds that its trial is another's, and gives it up.

    Args:
        place: Where the runs are.
        clock: Seconds, for the silence of others.
        patience: For so many seconds from now on no new trial is made while one of this machine is
            run by another process. It may be one whose search was killed: to go on with it first is
            to make the same trials as if nothing had happened.
    """

    def __init__(
        self,
        place: Workplace,
        clock: Callable[[], float] = time.monotonic,
        patience: float = 0.0,
    ) -> None:
        self._place = place
        self._clock = clock
        self._patient_until = clock() + patience
        # For each trial of another machine, its last sign of life, and when it was seen.
        self._signs: dict[int, tuple[int, float]] = {}
        # For each winner, the seeds on which it failed before this command.
        self._to_try_again: dict[int, set[int]] = {}

    def next_trial(self) -> TrialJob | None:
        """The next trial: one that was interrupted, or a new one; None: there is none to do.

        Raises:
            MachineError: The machine fails one after the other.
        """
        self._place.doubts.require_few()
        records, folder = self._place.records, self._place.folder
        # Under this lock, so that nobody takes up a trial that somebody else is just making.
        with folder.lock("study"):
            is_run_elsewhere = False
            for record in records.all():
                if record.outcome == RUNNING and self._is_own(record):
                    job = self._taken_up(record.number)
                    if job is not None:
                        return job
                    is_run_elsewhere |= not self._place.doubts.holds(record.number)
            if is_run_elsewhere and self._clock() < self._patient_until:
                return None
            number = records.create(folder.owner)
            return None if number is None else self._taken_up(number)

    def _taken_up(self, number: int) -> TrialJob | None:
        lock = self._place.folder.lock(f"{number:04d}")
        if not lock.try_to_take():
            return None
        try:
            # Its end may have been noted since it was looked at.
            if self._place.records.get(number).outcome == RUNNING:
                self._place.records.choose_values(number)
                return TrialJob(self._place, number, lock)
        except BaseException:
            lock.let_go()
            raise
        lock.let_go()
        return None

    def _is_own(self, record: TrialRecord) -> bool:
        owner = self._place.folder.owner
        if not self._place.is_shared or record.owner == owner:
            return True
        now = self._clock()
        beats, since = self._signs.get(record.number, (record.beats, now))
        if beats != record.beats:
            since = now
        self._signs[record.number] = record.beats, since
        if now - since >= _SECONDS_OF_SILENCE:
            # Another machine may do the same now. The last one to write has it, which the next look
            # tells.
            self._place.records.take_over(record.number, owner)
        return False

    def are_trials_over(self) -> bool:
        """Whether all trials that there are to be have ended.

        Raises:
            MachineError: The machine failed all that there were.
        """
        found = self._place.records.all()
        if len(found) >= self._place.study.settings.trials:
            self._place.doubts.decide()
            found = self._place.records.all()
        is_running = any(record.outcome == RUNNING for record in found)
        return not is_running and len(found) >= self._place.study.settings.trials

    def fresh_seeds(self) -> list[int]:
        """The seeds that the winner is run on again."""
        n = self._place.study.settings.seeds_for_best
        return [fresh_seed(self._place.study.seed, index) for index in range(n)]

    def next_fresh_seed(self, winner: int) -> FreshSeedJob | None:
        """The next run of the winner on a fresh seed; None: there is none to do.

        Raises:
            MachineError: The disk is full.
        """
        self._place.doubts.require_few()
        for seed in self.fresh_seeds():
            if seed in self._done_seeds(winner):
                continue
            lock = self._place.folder.lock(f"{winner:04d}-seed-{seed}")
            if lock.try_to_take():
                if seed not in self._done_seeds(winner):
                    self._to_try_again[winner].discard(seed)
                    return FreshSeedJob(self._place, winner, seed, lock)
                lock.let_go()
        return None

    def are_fresh_seeds_over(self, winner: int) -> bool:
        """Whether all runs on fresh seeds have ended."""
        return set(self.fresh_seeds()) <= self._done_seeds(winner)

    def _done_seeds(self, winner: int) -> set[int]:
        """Seeds that have a result, but for failures from before this command, which try again."""
        results = self._place.records.fresh(winner)
        if winner not in self._to_try_again:
            failed = {result.seed for result in results if result.outcome == FAILED}
            self._to_try_again[winner] = failed
        return {result.seed for result in results} - self._to_try_again[winner]
