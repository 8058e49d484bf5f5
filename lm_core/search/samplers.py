"""Which values a trial gets: a function of the study's seed, its number, and earlier trials.

A sampler is made anew for each trial, from a seed of its own, so that a study that was killed goes
on as it would have, and nothing has to be stored but the trials themselves.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lm_core.config.rendering import canonical
from lm_core.data.permutation import permuted
from lm_core.randomness import keyed_generator
from lm_core.search.space import Range, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

# Trials at random before TPE and its model begin: half of what Optuna takes, since the studies of
# people who wait for each trial have twenty or thirty of them.
_STARTUP_TRIALS = 5
# So often the sampler may suggest what was tried before, which would give the same loss again.
_TRIES = 10
# And so often chance may; after that, what is left is counted.
_RANDOM_TRIES = 100
# numpy's older generator, which Optuna and cmaes have, takes seeds of 32 bits.
_SEEDS_OF_NUMPY = 2**32
# Combinations that are shuffled in one go, as many as a study commonly has.
_AT_ONCE = 1024
# What the third index of a key tells apart: shuffled grids, seeds of the winner, suggestions.
_GRID, _FRESH_SEED, _SUGGESTION = 0, 1, 2
# The first step of CMA-ES, of a range that is 1 wide: Optuna's own choice.
_FIRST_SIGMA = 1 / 6
# The middle of a range that goes from 0 to 1.
_MIDDLE = 0.5
# The ends of such a range.
_BOUNDS = (0.0, 1.0)
# Seeds that are short enough to be typed again.
_DRAWN_SEEDS = 2**31


def fresh_seed(seed: int, index: int) -> int:
    """A seed for a further run of the winner, which is not the study's own.

    Args:
        seed: The study's.
        index: Which one, from 0.
    """
    generator = keyed_generator(seed, "search", _FRESH_SEED, index)
    while (drawn := int(generator.integers(_DRAWN_SEEDS))) == seed:
        pass
    return drawn


def suggest(
    sampler: str, seed: int, space: Space, study: "Study", trial: "FrozenTrial"
) -> dict[str, Any]:
    """Values for a trial that no earlier one has, as long as there are such.

    Args:
        sampler: One of ``SAMPLERS``.
        seed: The study's.
        space: What is searched.
        study: Optuna's, with all earlier trials.
        trial: The trial, in the study already.
    """
    others = [other for other in study.get_trials(deepcopy=False) if other.number < trial.number]
    others = [other for other in others if set(other.params) == set(space)]
    seen = {canonical(other.params) for other in others}
    if sampler == "grid":
        return next(_unseen(seed, space, seen))
    kinds = [sampler] * _TRIES + ["random"] * _RANDOM_TRIES
    for attempt, kind in enumerate(kinds):
        key = keyed_generator(seed, "search", _SUGGESTION, trial.number, attempt)
        values = _suggested(kind, int(key.integers(_SEEDS_OF_NUMPY)), space, study, trial, others)
        if canonical(values) not in seen:
            return values
    return next(_unseen(seed, space, seen), values)


def _unseen(seed: int, space: Space, seen: set[str]) -> Iterator[dict[str, Any]]:
    """The combinations that no trial has, shuffled by the seed; none of a continuum."""
    if any(distribution.size is None for distribution in space.values()):
        return
    # The combinations are shuffled, not the values of each: so some of them are spread over all.
    columns = [distribution.values for distribution in space.values()]
    sizes = [len(column) for column in columns]
    n_all = math.prod(sizes)
    for start in range(0, n_all, _AT_ONCE):
        places = np.arange(start, min(start + _AT_ONCE, n_all))
        chosen = np.unravel_index(permuted(places, n_all, seed, "search", _GRID), sizes)
        for combination in zip(*chosen, strict=True):
            picked = (
                column[int(place)] for column, place in zip(columns, combination, strict=True)
            )
            values = dict(zip(space, picked, strict=True))
            if canonical(values) not in seen:
                yield values


def _suggested(
    kind: str,
    seed: int,
    space: Space,
    study: "Study",
    trial: "FrozenTrial",
    others: Sequence["FrozenTrial"],
) -> dict[str, Any]:
    if kind == "cmaes":
        return _by_cmaes(seed, space, others)
    sampler = _optuna_sampler(kind, seed)
    distributions = {key: distribution.of_optuna() for key, distribution in space.items()}
    # Of all trials, not of those of one bracket of Hyperband: a study has too few for that.
    values = sampler.sample_relative(study, trial, dict(distributions))
    return {
        key: values[key] if key in values else sampler.sample_independent(study, trial, key, one)
        for key, one in distributions.items()
    }


def _optuna_sampler(kind: str, seed: int) -> "BaseSampler":
    from optuna.samplers import RandomSampler, TPESampler

    if kind == "random":
        return RandomSampler(seed=seed)
    return TPESampler(
        seed=seed,
        n_startup_trials=_STARTUP_TRIALS,
        multivariate=True,
        # What other workers are trying counts as bad, so that not all try the same.
        constant_liar=True,
    )


def _by_cmaes(seed: int, space: Space, others: Sequence["FrozenTrial"]) -> dict[str, Any]:
    """The next point of CMA-ES, told all finished trials again.

    Optuna's own keeps its state as a pickle in the storage, and nothing is unpickled here. What it
    would know is a function of the trials; telling them again takes milliseconds.
    """
    from cmaes import CMA

    ranges = {key: one for key, one in space.items() if isinstance(one, Range)}
    optimizer = CMA(
        mean=np.full(len(ranges), _MIDDLE),
        sigma=_FIRST_SIGMA,
        bounds=np.tile(_BOUNDS, (len(ranges), 1)),
        seed=seed,
    )
    told = [
        (
            np.array([one.share(other.params[key]) for key, one in ranges.items()]),
            math.inf if other.value is None else other.value,
        )
        for other in others
        if other.state.name in ("COMPLETE", "PRUNED")
    ]
    n = optimizer.population_size
    for start in range(0, len(told) - n + 1, n):
        # In the order of their numbers, whenever each ended.
        optimizer.tell(told[start : start + n])
    shares = dict(zip(ranges, map(float, optimizer.ask()), strict=True))
    return {key: one.at(shares[key]) for key, one in ranges.items()}
