"""What a few numbers, one a seed, say and do not say about a difference."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lm_core.randomness import keyed_generator

# The share of intervals that hold the true value: the custom of the field.
CONFIDENCE = 0.95
# With fewer pairs no interval is worth its name: of two, Student's factor is 12.7.
FEWEST_PAIRS = 3
# Many enough that the ends of an interval move by a hundredth of its width from one seed to
# another: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 14.3.
_RESAMPLES = 10_000
# The resampling of equal numbers gives equal intervals, whoever asks.
_SEED = 0
# Halvings of an interval of factors, after which its ends are one float64.
_HALVINGS = 200
# No confidence that anybody asks for needs a larger factor, but for a single degree of freedom.
_LARGEST_FACTOR = 1e6


class Summary(NamedTuple):
    """What is known about the mean of some results, in their unit.

    Attributes:
        n: How many results.
        mean: Their mean.
        sd: Their standard deviation, with n - 1; None for one result.
        low: The lower end of the bootstrap interval of the mean; None for one result.
        high: The upper end.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


class Difference(NamedTuple):
    """The difference of two groups, in the unit of their results.

    Attributes:
        n: Pairs of one seed, or results of the smaller group where there are no pairs.
        is_paired: Whether results of one seed were compared with each other.
        mean: The second group's results less the first group's, on average.
        sd: The standard deviation of the differences of the pairs; None where there are no pairs.
        low: The lower end of Student's interval; None with too few results.
        high: The upper end.
        exceeds_noise: Whether the interval leaves out 0; None: too few results to tell.
    """

    n: int
    is_paired: bool
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    exceeds_noise: bool | None


def summarise(values: Sequence[float]) -> Summary:
    """Mean, standard deviation, and the bootstrap interval of the mean.

    The interval is the percentile interval (Efron and Tibshirani 1993, chapter 13) of
    ``CONFIDENCE``. It knows nothing but the values: with fewer than about ten it is too narrow,
    and its ends are never beyond the smallest and the largest of them.

    Args:
        values: At least one finite number.
    """
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if len(array) == 1:
        return Summary(1, mean, None, None, None)
    generator = keyed_generator(_SEED, "bootstrap", len(array))
    chosen = generator.integers(len(array), size=(_RESAMPLES, len(array)))
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(array[chosen].mean(axis=1), [outside, 1 - outside])
    return Summary(len(array), mean, float(array.std(ddof=1)), float(low), float(high))


def difference(
    first: Mapping[int, float], second: Mapping[int, float], confidence: float = CONFIDENCE
) -> Difference:
    """How the results of a second group differ from those of a first, and whether that is noise.

    Where at least half of the results are of seeds that both have, those are compared pair by
    pair, which takes out what the seed does to both; the interval is Student's. Elsewhere it is
    Welch's (1947, Biometrika 34, "The generalization of 'Student's' problem"), with the degrees of
    freedom rounded down.

    Args:
        first: For each seed, a result.
        second: The same of the other group.
        confidence: Of the interval.
    """
    seeds = sorted(first.keys() & second.keys())
    n_fewer = min(len(first), len(second))
    is_enough = len(seeds) >= FEWEST_PAIRS and len(seeds) * 2 >= n_fewer
    # Where most seeds differ, all results together say more than the few pairs.
    if is_enough or (seeds and n_fewer < FEWEST_PAIRS):
        pairs = np.array([second[seed] - first[seed] for seed in seeds])
        return _paired(pairs, confidence)
    one, other = (np.array([*group.values()]) for group in (first, second))
    return _unpaired(one, other, confidence)


def _paired(differences: np.ndarray, confidence: float) -> Difference:
    n, mean = len(differences), float(differences.mean())
    sd = float(differences.std(ddof=1)) if n > 1 else None
    if sd is None or n < FEWEST_PAIRS:
        return Difference(n, True, mean, sd, None, None, None)
    half = student_factor(n - 1, confidence) * sd / math.sqrt(n)
    return Difference(n, True, mean, sd, mean - half, mean + half, abs(mean) > half)


def _unpaired(one: np.ndarray, other: np.ndarray, confidence: float) -> Difference:
    n, mean = min(len(one), len(other)), float(other.mean() - one.mean())
    if n < FEWEST_PAIRS:
        return Difference(n, False, mean, None, None, None, None)
    parts = [group.var(ddof=1) / len(group) for group in (one, other)]
    variance = sum(parts)
    half = 0.0
    if variance > 0:
        weights = [
            part**2 / (len(group) - 1) for part, group in zip(parts, (one, other), strict=True)
        ]
        freedom = max(1, math.floor(variance**2 / sum(weights)))
        half = student_factor(freedom, confidence) * math.sqrt(variance)
    return Difference(n, False, mean, None, mean - half, mean + half, abs(mean) > half)


def student_factor(freedom: int, confidence: float = CONFIDENCE) -> float:
    """How many standard errors on both sides of a mean hold it with some confidence.

    Args:
        freedom: Degrees of freedom, at least 1.
        confidence: Between 0 and 1.
    """
    low, high = 0.0, _LARGEST_FACTOR
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _student_within(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return high


def _student_within(t: float, freedom: int) -> float:
    """The probability that Student's t lies between -t and t.

    Abramowitz and Stegun 1964, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = freedom % 2 == 1
    term = cosine if is_odd else 1
    total = term if freedom > 1 else 0
    for k in range(3 if is_odd else 2, freedom - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    if is_odd:
        return 2 / math.pi * (angle + sine * total)
    return sine * total
