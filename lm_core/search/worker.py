"""The loop of a process that works on a study: so many runs at once as it has slots."""

import time
from collections.abc import Callable, Sequence

from lm_core.errors import LabError, StoppedError
from lm_core.search.jobs import Job
from lm_core.training.signals import StopSignals

# An unpromising run is noticed so soon; a look costs a tenth of a millisecond.
_SECONDS_BETWEEN_LOOKS = 0.1
# Where all is taken by others, this soon one of their runs is taken up that was killed.
_SECONDS_BETWEEN_CLAIMS = 1.0


def work(
    next_job: Callable[[], Job | None],
    is_over: Callable[[], bool],
    n_slots: int,
    signals: StopSignals,
    watch: Callable[[Sequence[Job]], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Does jobs until there are none left, here or elsewhere.

    Args:
        next_job: The next one to do; None: there is none now.
        is_over: Whether there will be none any more; asked when none is being done here.
        n_slots: How many are done at once.
        signals: What asks to stop.
        watch: Shows how it goes, given what is being done; called often.
        sleep: Waits for so many seconds.

    Raises:
        StoppedError: A signal came; all jobs have saved and ended.
        LabError: There can be no further job; those that were being done have saved and ended.
    """
    running: list[Job] = []
    next_claim = 0.0
    while True:
        if signals.received is not None:
            _stop(running, sleep)
            message = "stopped; what was running is saved, and the same command goes on"
            raise StoppedError(message, signals.received)
        left = [job for job in running if not job.is_over()]
        if len(left) < len(running):
            next_claim = 0.0
        running = left
        if len(running) < n_slots and time.monotonic() >= next_claim:
            try:
                job = next_job()
            except LabError:
                _stop(running, sleep)
                raise
            if job is not None:
                running.append(job)
                continue
            if not running and is_over():
                watch(running)
                return
            next_claim = time.monotonic() + _SECONDS_BETWEEN_CLAIMS
        watch(running)
        sleep(_SECONDS_BETWEEN_LOOKS)


def _stop(running: Sequence[Job], sleep: Callable[[float], None]) -> None:
    for job in running:
        job.stop()
    while running := [job for job in running if not job.is_over()]:
        sleep(_SECONDS_BETWEEN_LOOKS)
