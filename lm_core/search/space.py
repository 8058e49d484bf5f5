"""The values that a search tries for a hyperparameter: a range of numbers, or a list."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# A whole number stands for all that would be rounded to it.
_HALF = 0.5
# What each kind of range is, by the name it has in a study: whether in logarithms, whether whole.
RANGES = {
    "uniform": (False, False),
    "log_uniform": (True, False),
    "int": (False, True),
    "int_log": (True, True),
}
CHOICE = "choice"
KINDS = (*RANGES, CHOICE)


@dataclass(frozen=True)
class Range:
    """The numbers from one to another, both among them.

    Attributes:
        low: The smallest.
        high: The largest.
        is_log: Whether equal ratios count as equal, instead of equal differences.
        is_integer: Whether there are only whole numbers.
    """

    low: float
    high: float
    is_log: bool = False
    is_integer: bool = False

    @property
    def kind(self) -> str:
        """Its name in a study."""
        kinds = {what: kind for kind, what in RANGES.items()}
        return kinds[self.is_log, self.is_integer]

    @property
    def first(self) -> float:
        """The value that stands for all where one is needed."""
        return self.low

    @property
    def size(self) -> int | None:
        """How many values there are; None: without number."""
        return int(self.high - self.low + 1) if self.is_integer else None

    @property
    def values(self) -> list[Any]:
        """All of them, of a range of whole numbers."""
        return list(range(int(self.low), int(self.high) + 1))

    def plain(self) -> dict[str, Any]:
        """What a study says of it."""
        return {self.kind: [self.low, self.high]}

    def share(self, value: float) -> float:
        """How far a value lies from the low end to the high one, from 0 to 1."""
        low, high = self._ends
        return (self._measured(value) - low) / (high - low)

    def at(self, share: float) -> float:
        """The value that lies so far from the low end to the high one."""
        low, high = self._ends
        measured = low + share * (high - low)
        value = math.exp(measured) if self.is_log else measured
        value = min(max(value, self.low), self.high)
        return round(value) if self.is_integer else value

    @property
    def _ends(self) -> tuple[float, float]:
        margin = _HALF if self.is_integer else 0.0
        return self._measured(self.low - margin), self._measured(self.high + margin)

    def _measured(self, value: float) -> float:
        return math.log(value) if self.is_log else value

    def of_optuna(self) -> "BaseDistribution":
        """The same for Optuna."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.is_integer:
            return IntDistribution(int(self.low), int(self.high), log=self.is_log)
        return FloatDistribution(self.low, self.high, log=self.is_log)


@dataclass(frozen=True)
class Choice:
    """A list of plain values, without an order."""

    options: tuple[Any, ...]

    @property
    def kind(self) -> str:
        """Its name in a study."""
        return CHOICE

    @property
    def first(self) -> Any:
        """The value that stands for all where one is needed."""
        return self.options[0]

    @property
    def size(self) -> int:
        """How many values there are."""
        return len(self.options)

    @property
    def values(self) -> list[Any]:
        """All of them."""
        return list(self.options)

    def plain(self) -> dict[str, Any]:
        """What a study says of it."""
        return {CHOICE: list(self.options)}

    def of_optuna(self) -> "BaseDistribution":
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.options)


Distribution = Range | Choice
# The keys that are searched, each with its values.
Space = Mapping[str, Distribution]


def n_combinations(space: Space) -> int | None:
    """How many combinations of values there are; None: without number."""
    sizes: Sequence[int | None] = [distribution.size for distribution in space.values()]
    if None in sizes:
        return None
    return math.prod(size for size in sizes if size is not None)


def plain_space(space: Space) -> dict[str, Any]:
    """A space as a study states it."""
    return {key: distribution.plain() for key, distribution in space.items()}
