import signal

import pytest

from lm_core.errors import MachineError, StoppedError
from lm_core.search import worker
from lm_core.search.worker import work
from lm_core.training.signals import StopSignals


class PlayedJob:
    """A job that is over after so many looks, or after it was asked to stop."""

    def __init__(self, name, n_looks, log):
        self.name, self.left, self.log = name, n_looks, log

    def is_over(self):
        self.left -= 1
        if self.left <= 0:
            self.log.append(f"{self.name} over")
        return self.left <= 0

    def stop(self):
        self.log.append(f"{self.name} stop")
        self.left = 2

    def progress(self):
        return self.name, 0, None


@pytest.fixture
def played(monkeypatch):
    """Works on some jobs: what happened, in its order."""

    monkeypatch.setattr(worker, "_SECONDS_BETWEEN_CLAIMS", 0.0)

    def run(jobs, n_slots, signals=None, watch=None, is_over=lambda: True, log=None):
        log = [] if log is None else log
        waiting = [PlayedJob(name, n, log) for name, n in jobs]

        def next_job():
            if waiting:
                log.append(f"{waiting[0].name} begins")
            return waiting.pop(0) if waiting else None

        watch = watch or (lambda running: None)
        work(next_job, is_over, n_slots, signals or StopSignals(), watch, lambda seconds: None)
        return log

    return run


def test_jobs_are_done_one_after_the_other(played):
    log = played([("a", 3), ("b", 2)], n_slots=1)
    assert log == ["a begins", "a over", "b begins", "b over"]


def test_where_no_job_may_follow_those_that_run_are_asked_to_end(monkeypatch):
    monkeypatch.setattr(worker, "_SECONDS_BETWEEN_CLAIMS", 0.0)
    log = []
    jobs = [PlayedJob("a", 99, log), PlayedJob("b", 1, log)]

    def next_job():
        if not jobs:
            raise MachineError("the disk is full")
        return jobs.pop(0)

    with pytest.raises(MachineError, match="the disk is full"):
        work(next_job, bool, 2, StopSignals(), lambda running: None, lambda seconds: None)
    assert log == ["b over", "a stop", "a over"]


def test_no_more_jobs_run_at_once_than_there_are_slots(played):
    seen = []
    played([(str(n), n % 3 + 3) for n in range(9)], 3, watch=lambda jobs: seen.append(len(jobs)))
    assert max(seen) == 3
    assert seen[-1] == 0


def test_others_are_waited_for(played):
    looks = []

    def is_over():
        looks.append(1)
        return len(looks) == 3

    played([], 1, is_over=is_over)
    assert len(looks) == 3


def test_a_signal_stops_all_jobs_and_waits_for_them(played):
    signals, log = StopSignals(), []

    def watch(running):
        if len(running) == 2:
            signals.received = signal.SIGTERM

    with pytest.raises(StoppedError) as error:
        played([("a", 99), ("b", 99), ("c", 99)], 2, signals, watch, log=log)
    assert error.value.exit_code == 143
    assert error.value.message == (
        "stopped; what was running is saved, and the same command goes on"
    )
    assert log == ["a begins", "b begins", "a stop", "b stop", "a over", "b over"]
