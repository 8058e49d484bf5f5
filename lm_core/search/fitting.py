"""One combination of searched values that fit each other, to stand for all in the base."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lm_core.config.hyperparameters import broken_rules
from lm_core.search.space import Distribution, Range, Space

# Enough for every pair of sizes that somebody may try; they are looked at in some milliseconds.
_MOST_COMBINATIONS = 2000


def fitting_values(
    space: Space, values: Mapping[str, Any], unknown: Collection[str]
) -> dict[str, Any]:
    """The first values of a space that fit each other and the values beside them.

    Args:
        space: What is searched.
        values: Every key with its value; of those that are searched, any.
        unknown: Keys of which nobody knows what they were meant to be.

    Returns:
        A value for each key of the space. Where none of a good number of combinations fits, the
        first of each, of which it can be told why not.
    """
    firsts = {key: one.first for key, one in space.items()}
    broken = _broken(space, {**values, **firsts}, unknown)
    if not broken:
        return firsts
    # Those that are at odds, and then all: a rule may look at more than the two that it names.
    for keys in ([key for key in space if key in broken], list(space)):
        columns = [_candidates(space[key]) for key in keys]
        for combination in itertools.islice(itertools.product(*columns), _MOST_COMBINATIONS):
            chosen = {**firsts, **dict(zip(keys, combination, strict=True))}
            if not _broken(space, {**values, **chosen}, unknown):
                return chosen
    return firsts


def _candidates(one: Distribution) -> Sequence[Any]:
    if not isinstance(one, Range):
        return one.options
    if not one.is_integer:
        return (one.low, one.high)
    return range(int(one.low), int(min(one.high, one.low + _MOST_COMBINATIONS)) + 1)


def _broken(space: Space, values: Mapping[str, Any], unknown: Collection[str]) -> set[str]:
    """The keys of the broken rules that have to do with what is searched."""
    pairs = [{rule.key, rule.other_key} for rule in broken_rules(values)]
    ours = [pair for pair in pairs if pair & set(space) and not pair & set(unknown)]
    return set().union(*ours)
