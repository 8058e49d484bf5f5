"""Which hyperparameters of a study mattered, by functional ANOVA, and how sure that is."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lm_core.randomness import keyed_generator
from lm_core.search.space import Range, Space
from lm_core.search.trial_records import TrialRecord

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# With fewer trials a forest of trees has nothing to learn from.
_FEWEST_TRIALS = 8
# So many of the trials at least have to have a loss after the step that is looked at.
_SHARE_OF_TRIALS = 0.8
# The trials are drawn anew so often; with 20 the ends of an interval are steady enough to look at.
_RESAMPLES = 20
# Trees of a forest: half of Optuna's default, whose noise is far below that of the resampling.
_TREES = 32
# How far the place of an option reaches on both sides.
_HALF = 0.5
# Leaves of a tree double with its depth, and the time of an analysis grows with their square.
_DEPTH = 8
# The ends of a range that is measured by the share of it that lies below.
_ENDS = (0.0, 1.0)
# The interval leaves out so much on each side.
_OUTSIDE = 0.05


class Share(NamedTuple):
    """How much of the variance of the loss a hyperparameter explains alone.

    Attributes:
        key: The hyperparameter.
        mean: The share, from 0 to 1, on average over resamples of the trials.
        low: The lower end of the 90 % bootstrap interval.
        high: The upper end.
    """

    key: str
    mean: float
    low: float
    high: float


class Importance(NamedTuple):
    """What mattered in a study.

    Attributes:
        step: The step whose loss is explained.
        n_trials: Trials that have a loss there.
        shares: The hyperparameters, the most important first.
    """

    step: int
    n_trials: int
    shares: list[Share]


def importance(space: Space, records: Sequence[TrialRecord], seed: int) -> Importance | None:
    """Which hyperparameters mattered for the loss.

    Functional ANOVA (Hutter, Hoos and Leyton-Brown 2014, "An Efficient Approach for Assessing
    Hyperparameter Importance") by Optuna, over the searched ranges as they are searched: in
    logarithms where they are. Where trials were pruned, the loss that is explained is that after
    the last step that most trials reached, so that good and bad ones are compared at one step.
    How sure it is, is told by doing it again on trials that are drawn anew with replacement
    (Efron and Tibshirani 1993, chapter 6).

    Args:
        space: What was searched.
        records: The trials.
        seed: Of the study.

    Returns:
        None: there are too few trials, or all have one loss.
    """
    step = _common_step(records)
    if step is None or len(space) < 2:
        return None
    found = [record for record in records if step in record.losses]
    losses = np.array([record.losses[step] for record in found])
    if len(found) < _FEWEST_TRIALS or np.ptp(losses) == 0:
        return None
    points = [_point(space, record) for record in found]
    estimates = []
    for index in range(_RESAMPLES):
        generator = keyed_generator(seed, "bootstrap", index)
        chosen = generator.integers(len(found), size=len(found))
        drawn = [points[place] for place in chosen]
        # Where those that were drawn differ in nothing, there is nothing to explain.
        with contextlib.suppress(RuntimeError):
            estimates.append(_anova(space, drawn, losses[chosen].tolist(), index))
    if not estimates:
        return None
    shares = [_share(key, [estimate[key] for estimate in estimates]) for key in space]
    shares.sort(key=lambda share: -share.mean)
    return Importance(step, len(found), shares)


def _common_step(records: Sequence[TrialRecord]) -> int | None:
    """The last step at which most trials with any loss have one."""
    evaluated = [record for record in records if record.losses]
    counts = Counter(step for record in evaluated for step in record.losses)
    common = [step for step, n in counts.items() if n >= _SHARE_OF_TRIALS * len(evaluated)]
    return max(common, default=None)


def _point(space: Space, record: TrialRecord) -> dict[str, float | int]:
    """Where a trial lies: of a range the share from its low end, of a choice the place."""
    return {
        key: one.share(record.values[key])
        if isinstance(one, Range)
        else one.values.index(record.values[key])
        for key, one in space.items()
    }


def _anova(
    space: Space, points: Sequence[dict[str, float | int]], losses: Sequence[float], seed: int
) -> dict[str, float]:
    """The share of each hyperparameter by one forest.

    Raises:
        RuntimeError: The trees see no variance at all.
    """
    import optuna

    # Trees split the options of a choice by their places, each of which is equally wide.
    distributions: dict[str, BaseDistribution] = {
        key: optuna.distributions.FloatDistribution(*_ENDS)
        if isinstance(one, Range)
        else optuna.distributions.FloatDistribution(-_HALF, one.size - _HALF)
        for key, one in space.items()
    }
    study = optuna.create_study()
    study.add_trials(
        optuna.trial.create_trial(params=point, distributions=distributions, value=loss)
        for point, loss in zip(points, losses, strict=True)
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(
        n_trees=_TREES, max_depth=_DEPTH, seed=seed
    )
    return evaluator.evaluate(study)


def _share(key: str, estimates: Sequence[float]) -> Share:
    finite = [estimate for estimate in estimates if np.isfinite(estimate)] or [0.0]
    low, high = np.quantile(finite, [_OUTSIDE, 1 - _OUTSIDE])
    return Share(key, float(np.mean(finite)), float(low), float(high))
