"""Curves: thinned out where they have more points than anybody can see, and smoothed."""

import math
from typing import NamedTuple

import numpy as np

# The share of a run over which a smoothed curve averages: as much as takes most of the noise, and
# little enough to leave its shape.
SMOOTHED_SHARE = 0.02


class Series(NamedTuple):
    """A curve, either with all of its points or in buckets.

    Attributes:
        steps: Whole numbers that rise: of each point, or of the last in each bucket.
        values: Of each point the value, of each bucket the mean; all finite.
        low: Of each bucket the lowest value; None where there are no buckets.
        high: The highest.
        n: How many points there were.
    """

    steps: np.ndarray
    values: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    n: int


def series(steps: np.ndarray, values: np.ndarray, most_points: int) -> Series:
    """The curve of a column, without the lines that have no finite number.

    Args:
        steps: The step of each line.
        values: The value of each line, NaN where there is none.
        most_points: A curve of more points is put into as many buckets of equal numbers of points;
            what it has of extremes and of means stays.
    """
    is_finite = np.isfinite(values)
    steps, values = steps[is_finite], values[is_finite]
    n = len(values)
    if n <= most_points:
        return Series(steps, values, None, None, n)
    starts = np.linspace(0, n, most_points, endpoint=False).astype(np.int64)
    sizes = np.diff(starts, append=n)
    return Series(
        steps=steps[starts + sizes - 1],
        values=np.add.reduceat(values, starts) / sizes,
        low=np.minimum.reduceat(values, starts),
        high=np.maximum.reduceat(values, starts),
        n=n,
    )


def smoothed(steps: np.ndarray, values: np.ndarray, window: float) -> np.ndarray:
    """An exponential moving average, free of the bias towards its start (Kingma and Ba 2015, 3).

    A value ``window`` steps back counts ``1 / e`` of the newest.

    Args:
        steps: The step of each value, rising.
        values: The values.
        window: Steps; 0 gives the values themselves.
    """
    if window <= 0 or not len(values):
        return values
    averages = np.empty(len(values))
    total = weight = 0.0
    before = steps[0]
    for index, (step, value) in enumerate(zip(steps.tolist(), values.tolist(), strict=True)):
        kept = math.exp((before - step) / window)
        total, weight, before = kept * total + value, kept * weight + 1, step
        averages[index] = total / weight
    return averages
