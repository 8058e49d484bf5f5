"""A run in a few numbers: its losses, its speed, its time, how it ended."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from lm_core.analysis.records import RunRecord

# What a manifest says of a run that has not ended, or was killed.
_RUNNING = "running"


class Evaluated(NamedTuple):
    """A validation loss, and where it was found.

    Attributes:
        step: After which step.
        loss: In nats per token.
        bits_per_byte: The same in bits per byte of text.
    """

    step: int
    loss: float
    bits_per_byte: float


class RunSummary(NamedTuple):
    """A run in a few numbers.

    Attributes:
        seed: Its seed.
        n_steps: Steps that are on record.
        max_steps: Steps that it was to have.
        final: Its last validation loss; None: it has none.
        best: Its lowest validation loss.
        result: The one that counts: the best of a run that may stop early, else the last.
        tokens_per_second: The median over its steps; None: it is not on record.
        training_seconds: What its steps took, without evaluations and samples.
        wall_seconds: From start to end, over all its resumes; None: it has not ended once.
        is_wall_complete: Whether all of its starts have an end on record.
        outcome: How it ended, such as ``completed``, ``diverged`` or ``killed``.
        reason: Why, in words; None where that is plain.
        n_parameters: Parameters of its model; None where it was not recorded.
    """

    seed: int | None
    n_steps: int
    max_steps: int
    final: Evaluated | None
    best: Evaluated | None
    result: Evaluated | None
    tokens_per_second: float | None
    training_seconds: float
    wall_seconds: float | None
    is_wall_complete: bool
    outcome: str
    reason: str | None
    n_parameters: int | None


def summarise_run(run: RunRecord) -> RunSummary:
    """The numbers of a run."""
    losses = run.column("val_loss")
    places = np.flatnonzero(np.isfinite(losses))
    speeds = run.column("tokens_per_second")
    speeds = speeds[np.isfinite(speeds)]
    seconds = list(_session_seconds(run.manifest))
    known = [value for value in seconds if value is not None]
    n_parameters = run.manifest.get("n_parameters")
    final = _evaluated(run, places[-1]) if len(places) else None
    best = _evaluated(run, places[np.argmin(losses[places])]) if len(places) else None
    return RunSummary(
        seed=run.values.seed,
        n_steps=int(run.steps[-1]) if len(run.steps) else 0,
        max_steps=run.values.max_steps,
        final=final,
        best=best,
        result=final if run.values.early_stopping_evaluations is None else best,
        tokens_per_second=float(np.median(speeds)) if len(speeds) else None,
        training_seconds=float(training_seconds(run)[-1]) if len(run.steps) else 0.0,
        wall_seconds=sum(known) if known else None,
        is_wall_complete=len(known) == len(seconds),
        outcome=outcome(run),
        reason=_text(run.manifest.get("reason")),
        n_parameters=n_parameters if isinstance(n_parameters, int) else None,
    )


def outcome(run: RunRecord) -> str:
    """How a run ended, or that it has not.

    What the record calls running and nobody writes to was killed.
    """
    recorded = _text(run.manifest.get("outcome")) or "unknown"
    return "killed" if recorded == _RUNNING and run.is_held is False else recorded


def training_seconds(run: RunRecord) -> np.ndarray:
    """Seconds of training up to each recorded step, without evaluations and samples.

    A step whose speed is not on record is taken to be as long as the median one.
    """
    speeds = run.column("tokens_per_second")
    is_known = np.isfinite(speeds) & (speeds > 0)
    if not is_known.any():
        return np.zeros(len(speeds))
    seconds = run.n_tokens_a_step / np.where(is_known, speeds, np.median(speeds[is_known]))
    return np.cumsum(seconds * np.diff(run.steps, prepend=0.0))


def _evaluated(run: RunRecord, place: int) -> Evaluated:
    bits = float(run.column("bits_per_byte")[place])
    return Evaluated(int(run.steps[place]), float(run.column("val_loss")[place]), bits)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _session_seconds(manifest: Mapping[str, Any]) -> Iterator[float | None]:
    """For each start of a run the seconds to its end; None where there is none on record."""
    resumed = [entry for entry in manifest.get("resumed", []) if isinstance(entry, Mapping)]
    starts = [manifest.get("start"), *(entry.get("start") for entry in resumed)]
    before = [entry.get("before") for entry in resumed]
    ends = [entry.get("end") if isinstance(entry, Mapping) else None for entry in before]
    for start, end in zip(starts, [*ends, manifest.get("end")], strict=True):
        yield _seconds_between(start, end)


def _seconds_between(start: Any, end: Any) -> float | None:
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except (TypeError, ValueError):
        return None
