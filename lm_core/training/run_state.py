"""What a run knows at a step beside its tensors; stored in every checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lm_core.errors import MachineError, shown

# What fits into 64 bits: no metric is a larger integer, and none becomes too large for a float.
_LARGEST_INTEGER = 2**63 - 1


@dataclass
class RunState:
    """What a run knows at a step beside its tensors.

    Attributes:
        best_validation_loss: The smallest so far, in nats per token; None before the first.
        best_step: The step it was found at.
        skipped_batches: How many batches were left out, since a number of theirs was not finite.
        unfinished_row: The metrics of this step, where its evaluation, its sample or both were
            given up for a signal and are still to be done; None where the step is done with.
    """

    best_validation_loss: float | None = None
    best_step: int | None = None
    skipped_batches: int = 0
    unfinished_row: dict[str, Any] | None = None

    def take(self, step: int, validation_loss: float) -> bool:
        """Notes an evaluation, and tells whether it is the best so far; one of NaN never is.

        Args:
            step: The step.
            validation_loss: Its loss, in nats per token.
        """
        best = math.inf if self.best_validation_loss is None else self.best_validation_loss
        if not validation_loss < best:
            return False
        self.best_validation_loss, self.best_step = validation_loss, step
        return True

    def to_json(self) -> dict[str, Any]:
        """The state as a checkpoint stores it; a row as pairs, whose order JSON keeps."""
        row = None if self.unfinished_row is None else list(map(list, self.unfinished_row.items()))
        return {**asdict(self), "unfinished_row": row}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], step: int) -> "RunState":
        """The state from a checkpoint; what an older lab did not store is as in a new run.

        Args:
            stored: Everything in the checkpoint that is no tensor.
            step: The checkpoint's step.

        Raises:
            MachineError: Something there is not what it has to be.
        """
        state = cls(**{name: stored.get(name, getattr(cls, name)) for name in asdict(cls())})
        row = state.unfinished_row = _row(state.unfinished_row)
        sound = {
            "best_validation_loss": _is_loss(state.best_validation_loss),
            "best_step": _is_count(state.best_step, step) or state.best_step is None,
            "skipped_batches": _is_count(state.skipped_batches, step),
            "unfinished_row": row is None or _is_row(row, step),
        }
        for name, is_sound in sound.items():
            if not is_sound:
                value = shown(getattr(state, name))
                raise MachineError(f"the checkpoint's {name} is {value}, which cannot be")
        return state


def _row(pairs: Any) -> Any:
    """The row that pairs make, or whatever stands there instead."""
    try:
        return None if pairs is None else dict(pairs)
    except (TypeError, ValueError):
        return pairs


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _is_loss(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isfinite(value))


def _is_row(row: Any, step: int) -> bool:
    """Whether this is the row of a step: with what every row has, and numbers alone, or null."""
    return (
        isinstance(row, dict)
        and {"step", "train_loss", "tokens_per_second"} <= row.keys()
        and type(row["step"]) is int
        and row["step"] == step
        and all(map(_is_number, row.values()))
    )


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) <= _LARGEST_INTEGER
    return value is None or type(value) is float
