"""The curves of runs as data for a page: what is drawn, and the numbers to draw it from."""

import base64
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lm_core.analysis.comparison import Comparison, Group
from lm_core.analysis.records import RunRecord
from lm_core.analysis.statistics import FEWEST_PAIRS, student_factor
from lm_core.analysis.summary import training_seconds
from lm_core.record import COLUMNS
from lm_core.report.series import SMOOTHED_SHARE, Series, series
from lm_core.training.schedule import planned_rates

# Training losses of all runs together: 50 runs of 10,000 steps, whose page stays below 5 MB.
_MOST_LOSSES = 500_000
# Points of all other curves together.
_MOST_OTHERS = 80_000
# A bucket of points takes so many numbers: its step, its mean and its extremes.
_NUMBERS_A_BUCKET = 4
# No curve is thinned out to fewer points than this: as many as a small chart has pixels.
_FEWEST_POINTS = 100
# Places where the time of a run is known exactly; between them it is taken to pass evenly.
_CLOCK_POINTS = 200
# Points of a schedule that is drawn as planned.
_PLANNED_POINTS = 400


class Chart(NamedTuple):
    """Something that is drawn.

    Attributes:
        name: A short name without spaces.
        title: Its heading.
        unit: What its numbers are.
        columns: The metrics that it draws.
        is_log: Whether its heights are logarithms at first.
        is_from_zero: Whether 0 is among its heights where they are not.
        is_of_hook: Whether hooks reported it.
    """

    name: str
    title: str
    unit: str
    columns: tuple[str, ...]
    is_log: bool = False
    is_from_zero: bool = False
    is_of_hook: bool = False


# Metrics that are no matter of chance, and drawn as they are.
EXACT = ("val_loss", "learning_rate", "muon_learning_rate", "skipped_batches")
# What a metric is called beside others of one chart.
NAMES = {"train_loss": "training", "val_loss": "validation", "muon_learning_rate": "Muon"}
_RATES = ("learning_rate", "muon_learning_rate")
_BOTH_LOSSES = Chart("loss", "Loss", "nats per token", ("train_loss", "val_loss"))
_LOSSES = (
    Chart("validation-loss", "Validation loss", "nats per token", ("val_loss",)),
    Chart("training-loss", "Training loss", "nats per token", ("train_loss",)),
)
_OTHERS = (
    Chart("learning-rate", "Learning rate", "per step", _RATES, is_from_zero=True),
    Chart("gradient-norm", "Norm of the gradient", "before clipping", ("grad_norm",), is_log=True),
    Chart("speed", "Speed", "tokens per second", ("tokens_per_second",), is_from_zero=True),
)
_SKIPPED = Chart("skipped", "Skipped batches", "batches so far", ("skipped_batches",))


def charts(runs: Sequence[RunRecord]) -> list[Chart]:
    """What there is to draw of some runs."""
    found = [*((_BOTH_LOSSES,) if len(runs) == 1 else _LOSSES), *_OTHERS]
    if any(np.nanmax(run.column("skipped_batches"), initial=0) > 0 for run in runs):
        found.append(_SKIPPED)
    reported = dict.fromkeys(name for run in runs for name in run.columns if name not in COLUMNS)
    found += [
        Chart(f"hook-{number}", name, "reported by a hook", (name,), is_of_hook=True)
        for number, name in enumerate(reported)
    ]
    return [chart for chart in found if any(_has_any(run, chart.columns) for run in runs)]


def _has_any(run: RunRecord, columns: Iterable[str]) -> bool:
    return any(np.isfinite(run.column(name)).any() for name in columns)


def curves_of(runs: Sequence[RunRecord], drawn: Sequence[Chart]) -> list[dict[str, Series]]:
    """The curves of each run, by the metric, thinned out so that all of them fit into a page."""
    columns = {column for chart in drawn for column in chart.columns}
    n_losses = sum(len(run.steps) for run in runs)
    n_others = len(runs) * max(1, len(columns) - 1)
    in_buckets = _MOST_LOSSES // (_NUMBERS_A_BUCKET * len(runs))
    most_losses = _MOST_LOSSES if n_losses <= _MOST_LOSSES else in_buckets
    most_others = max(_FEWEST_POINTS, _MOST_OTHERS // n_others)
    return [
        {
            column: series(
                run.steps,
                run.column(column),
                most_losses if column == "train_loss" else most_others,
            )
            for column in columns
            if column in run.columns
        }
        for run in runs
    ]


def page_data(comparison: Comparison) -> dict[str, Any]:
    """Everything that a page draws, as plain data."""
    records = [run.record for run in comparison.runs]
    drawn = charts(records)
    n_steps = max((int(record.steps[-1]) for record in records if len(record.steps)), default=1)
    return {
        "charts": [chart._asdict() for chart in drawn],
        "exact": EXACT,
        "names": NAMES,
        "window": max(1, round(SMOOTHED_SHARE * n_steps)),
        "steps": n_steps,
        "runs": [
            {
                "label": run.label,
                "tokens_a_step": run.record.n_tokens_a_step,
                "clock": _clock(run.record),
                "planned": {name: _encoded(curve) for name, curve in planned(run.record).items()},
                "curves": {name: _encoded(curve) for name, curve in curves.items() if curve.n},
            }
            for run, curves in zip(comparison.runs, curves_of(records, drawn), strict=True)
        ],
        "groups": _groups(comparison),
        "factors": _factors(max(len(group.runs) for group in comparison.groups)),
    }


def members(comparison: Comparison, group: Group) -> tuple[list[int], list[int]]:
    """The runs of a group whose mean is drawn, and those that are drawn for themselves.

    A run that diverged or was stopped would cut the mean of the others off where it ended.
    """
    completed = [
        place for place in group.runs if comparison.runs[place].summary.outcome == "completed"
    ]
    if not completed:
        return list(group.runs), []
    return completed, [place for place in group.runs if place not in completed]


def _groups(comparison: Comparison) -> list[dict[str, Any]]:
    """Runs that share a colour, and which of them are drawn as a mean."""
    found = []
    for group in comparison.groups:
        together, apart = members(comparison, group)
        alone = comparison.runs[group.runs[0]].label
        label = group.label if comparison.has_seeds else alone
        found.append({"label": label, "runs": group.runs, "mean": together, "apart": apart})
    return found


def _factors(n: int) -> list[float | None]:
    """For each number of runs up to one, the factor of the band around their mean; None: none."""
    return [
        student_factor(k - 1) / math.sqrt(k) if k >= FEWEST_PAIRS else None for k in range(n + 1)
    ]


def _clock(run: RunRecord) -> dict[str, Any]:
    """Steps and the seconds of training until then, at some places."""
    if not len(run.steps):
        return {"steps": [], "seconds": []}
    places = np.unique(np.linspace(0, len(run.steps) - 1, _CLOCK_POINTS).round().astype(np.int64))
    seconds = training_seconds(run)[places]
    return {
        "steps": [0, *run.steps[places].astype(np.int64).tolist()],
        "seconds": [0, *(round(value, 2) for value in seconds.tolist())],
    }


def planned(run: RunRecord) -> dict[str, Series]:
    """The learning rates that a run was to have over all of its steps, by their metric."""
    n = min(_PLANNED_POINTS, run.values.max_steps)
    steps = np.unique(np.linspace(1, run.values.max_steps, n).round().astype(np.int64))
    rates = planned_rates(run.values, steps.tolist())
    return {
        name: Series(steps, np.array(values), None, None, len(steps))
        for name, values in rates.items()
    }


def _encoded(curve: Series) -> dict[str, Any]:
    """A curve as JSON takes it: numbers of 32 bits in base64, steps by their stride."""
    steps = curve.steps.astype(np.int64)
    strides = np.unique(np.diff(steps))
    encoded: dict[str, Any] = {"n": curve.n, "values": _base64(curve.values)}
    if len(strides) <= 1:
        stride = int(strides[0]) if len(strides) else 1
        encoded["steps"] = {"first": int(steps[0]), "stride": stride, "n": len(steps)}
    else:
        encoded["steps"] = base64.b64encode(steps.astype("<i4").tobytes()).decode()
    if curve.low is not None and curve.high is not None:
        encoded |= {"low": _base64(curve.low), "high": _base64(curve.high)}
    return encoded


def _base64(values: np.ndarray) -> str:
    # What is finite as float64 may be infinite as float32, which no page can draw.
    limits = np.finfo(np.float32)
    clipped = np.clip(values, limits.min, limits.max)
    return base64.b64encode(clipped.astype("<f4").tobytes()).decode()
