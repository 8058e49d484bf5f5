"""Failures of trials that may be the machine's: kept open until it is clear whose they are."""

import errno
import os
from typing import NamedTuple

from lm_core.errors import MachineError
from lm_core.search.locks import FileLock
from lm_core.search.trial_records import COMPLETED, DIVERGED, FAILED, PRUNED, TrialRecords

# So many failures with nothing good between them are hardly the fault of the trials' values.
_MOST_IN_A_ROW = 3
# What a system says where nothing can be written any more, whoever tries.
_FULL_DISK = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT))


class _Doubt(NamedTuple):
    steps: int
    reason: str
    lock: FileLock


class Doubts:
    """Trials whose process refused or failed, though their values are sound.

    Such a trial stays open, and its lock is held. When a later one comes to an end of its own, the
    machine does well, and what failed before has failed. When three fail in a row, or the disk is
    full, the search stops, and the trials are run again by the next command. Those that were run
    again for that do not count once more, so that every command gets further.

    Args:
        records: The trials of the study.
        owner: Who runs trials here.
    """

    def __init__(self, records: TrialRecords, owner: str) -> None:
        self._records, self._owner = records, owner
        self._held: dict[int, _Doubt] = {}
        self._n_in_a_row = 0
        self._stops_for = ""

    def add(self, number: int, steps: int, reason: str, lock: FileLock) -> None:
        """Keeps a trial open that failed.

        Args:
            number: Which one.
            steps: Steps done.
            reason: Why.
            lock: Its lock, which is held from now on until it is clear why it failed.
        """
        if not self._records.get(number).is_doubted:
            self._records.doubt(number)
            self._n_in_a_row += 1
        self._held[number] = _Doubt(steps, reason, lock)
        if self._n_in_a_row >= _MOST_IN_A_ROW:
            self._stops_for = f"{self._n_in_a_row} trials in a row failed, the last one: {reason}"
        self.stop_if_full(f"trial {number}", reason)

    def holds(self, number: int) -> bool:
        """Whether a trial is kept open here."""
        return number in self._held

    def stop_if_full(self, name: str, reason: str) -> None:
        """Ends the search if the reason of a failure is that the disk is full.

        Args:
            name: What failed.
            reason: Why.
        """
        if any(words in reason for words in _FULL_DISK):
            self._stops_for = f"{name} failed: {reason}"

    def clear_up(self) -> None:
        """Notes that the machine does well: what failed until now has failed."""
        for number, doubt in self._held.items():
            # Meanwhile another machine may have taken it over, for want of signs of life.
            if self._records.get(number).owner == self._owner:
                self._records.finish(number, FAILED, None, doubt.steps, doubt.reason)
            doubt.lock.let_go()
        self._held.clear()
        self._n_in_a_row = 0

    def require_few(self) -> None:
        """Ends the search if the machine cannot be relied on.

        Raises:
            MachineError: The trials that failed stay open, and the same command goes on.
        """
        if self._stops_for:
            message = f"{self._stops_for}; when that is mended, the same command goes on"
            raise MachineError(message)

    def decide(self) -> None:
        """Decides about what failed last, after which no trial comes.

        Raises:
            MachineError: No trial of the study came to an end of its own.
        """
        if not self._held:
            return
        outcomes = {record.outcome for record in self._records.all()}
        if not outcomes & {COMPLETED, PRUNED, DIVERGED}:
            number = max(self._held)
            self._stops_for = f"trial {number} failed: {self._held[number].reason}"
        self.require_few()
        self.clear_up()
