"""What a run knows at a step beside its tensors; stored in every checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lm_core.errors import MachineError, shown

# What fits into 64 bits: no metric is a larger integer, and none becomes too large for a float.
_LARGEST_INTEGER = 2**63 - 1
# Checkpoints of format 2 have the row only of a step that is still to be evaluated or sampled.
_FORMER_NAME_OF_ROW = "unfinished_row"


@dataclass
class RunState:
    """What a run knows at a step beside its tensors.

    Attributes:
        best_validation_loss: The smallest so far, in nats per token; None before the first.
        best_step: The step it was found at.
        best_at_cadence: The smallest of those evaluations that the cadence calls for, so that when
            a run stops early does not depend on where it ended in the meantime.
        evaluations_since_best: Such evaluations since then, none of which was better.
        good_before: The weights after any earlier step than this have given a finite loss, or were
            followed by some that have.
        skipped_batches: How many batches were left out, since a number of theirs was not finite.
        row: The metrics of this step, should it still have to be evaluated or sampled: after a
            signal, or because the run is to end here. Its speed, another one in each run, is null.
        evaluated: Whether this step has been evaluated.
        sampled: Whether a sample has been written after this step.
    """

    best_validation_loss: float | None = None
    best_step: int | None = None
    best_at_cadence: float | None = None
    evaluations_since_best: int = 0
    good_before: int = 0
    skipped_batches: int = 0
    row: dict[str, Any] | None = None
    evaluated: bool = False
    sampled: bool = False

    @property
    def best_is_somewhere(self) -> bool:
        """Whether there is a best step, and which is not known: format 1 stored its loss alone."""
        return self.best_validation_loss is not None and self.best_step is None

    def take(self, step: int, validation_loss: float, at_cadence: bool = True) -> bool:
        """Notes an evaluation, and tells whether it is the best so far; one of NaN never is.

        Args:
            step: The step.
            validation_loss: Its loss, in nats per token.
            at_cadence: Whether the cadence calls for it, and not only the end of the run.
        """
        if at_cadence:
            self.evaluations_since_best += 1
            if _is_better(validation_loss, self.best_at_cadence):
                self.best_at_cadence, self.evaluations_since_best = validation_loss, 0
        if not _is_better(validation_loss, self.best_validation_loss):
            return False
        self.best_validation_loss, self.best_step = validation_loss, step
        return True

    def to_json(self) -> dict[str, Any]:
        """The state as a checkpoint stores it; a row as pairs, whose order JSON keeps."""
        row = None if self.row is None else list(map(list, self.row.items()))
        return {**asdict(self), "row": row}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], step: int) -> "RunState":
        """The state from a checkpoint; what an older lab did not store is as in a new run.

        Args:
            stored: Everything in the checkpoint that is no tensor.
            step: The checkpoint's step.

        Raises:
            MachineError: Something there is not what it has to be.
        """
        # Where no batch was skipped, every step before has given a finite loss.
        good_before = 0 if stored.get("skipped_batches") else step
        row = stored.get(_FORMER_NAME_OF_ROW)
        best = stored.get("best_validation_loss")
        stored = {"row": row, "good_before": good_before, "best_at_cadence": best, **stored}
        state = cls(**{name: stored.get(name, getattr(cls, name)) for name in asdict(cls())})
        row = state.row = _row(state.row)
        sound = {
            "best_validation_loss": _is_loss(state.best_validation_loss),
            "best_step": _is_count(state.best_step, step) or state.best_step is None,
            "best_at_cadence": _is_loss(state.best_at_cadence),
            "evaluations_since_best": _is_count(state.evaluations_since_best, step),
            "good_before": _is_count(state.good_before, step + 1),
            "skipped_batches": _is_count(state.skipped_batches, step),
            "row": row is None or _is_row(row, step),
            "evaluated": isinstance(state.evaluated, bool),
            "sampled": isinstance(state.sampled, bool),
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


def _is_better(loss: float, best: float | None) -> bool:
    return loss < (math.inf if best is None else best)


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
