"""``TrainingConfig``: a value for every hyperparameter of the table."""

import copy
from collections.abc import Mapping
from typing import Any, Self

from lm_core.config.checks import check_table
from lm_core.config.hyperparameters import Hyperparameters
from lm_core.errors import InputError, shown


class TrainingConfig(Hyperparameters):
    """A configuration: every hyperparameter with its value; ``TrainingConfig()`` is the default.

    What each means, its type and its range stand in the table that this is made from.
    """

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The configuration of some values; the keys that are left out have their defaults.

        Args:
            values: Keys of the table with plain values, as YAML or JSON gives them.

        Raises:
            InputError: Anything is wrong; the message has one line for each problem.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"{shown(values)} is no mapping of hyperparameters to values")
        problems = check_table(values)
        if problems:
            raise InputError("\n".join(f"{path}: {message}" for path, message in problems))
        # What the caller does with his lists later must not reach a configuration that is frozen.
        return cls(**copy.deepcopy(dict(values)))

    def to_dict(self) -> dict[str, Any]:
        """Every key with its value, as plain data of its own; ``from_dict`` takes it back."""
        return self.model_dump()
