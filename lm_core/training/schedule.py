"""The learning rate over a run: a factor for each step, a function of the step alone."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lm_core.config.training_config import TrainingConfig

# The factor of a learning rate that nothing lowers, and the share of a decay that is over.
_WHOLE = 1.0


def end_of_decay(decay_steps: int | None, warmup_steps: int, max_steps: int) -> int:
    """The step in which the learning rate is smallest, where none may be given.

    Args:
        decay_steps: That step; None: the last one.
        warmup_steps: Steps of warm-up, which comes first in any case, also in a run of fewer steps.
        max_steps: Steps of the run.
    """
    return max(max_steps, warmup_steps) if decay_steps is None else decay_steps


@dataclass(frozen=True)
class Schedule:
    """What the learning rates are multiplied by in each step.

    In step ``s`` of the first ``warmup_steps``, the factor is ``s / warmup_steps``. Then, with
    ``p`` rising from 0 after warm-up to 1 in step ``decay_steps``, and 1 from there on:

    - ``constant``: 1.
    - ``linear``: ``min_ratio + (1 - min_ratio) (1 - p)``.
    - ``cosine``: ``min_ratio + (1 - min_ratio) (1 + cos(pi p)) / 2`` (Loshchilov and Hutter 2017,
      "SGDR", equation 5, without restarts).
    - ``warmup_stable_decay``: 1 until the last ``decay_share`` of ``decay_steps``, which is linear
      (Hu et al. 2024, "MiniCPM"; Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training
      Beyond Fixed Training Durations").

    Attributes:
        shape: ``constant``, ``linear``, ``cosine`` or ``warmup_stable_decay``.
        warmup_steps: Steps in which the factor rises to 1.
        decay_steps: The step in which the smallest factor is reached.
        decay_share: Share of ``decay_steps``, at their end, in which ``warmup_stable_decay`` falls.
        min_ratio: The smallest factor, 0 to 1.
    """

    shape: str
    warmup_steps: int
    decay_steps: int
    decay_share: float
    min_ratio: float

    def __call__(self, step: int) -> float:
        """The factor of a step, counted from 1."""
        if step <= self.warmup_steps:
            return step / self.warmup_steps
        if self.shape == "constant":
            return _WHOLE
        start = self.warmup_steps
        if self.shape == "warmup_stable_decay":
            start = max(start, round(self.decay_steps * (1 - self.decay_share)))
        progress = self._progress(step, start)
        is_cosine = self.shape == "cosine"
        left = (1 + math.cos(math.pi * progress)) / 2 if is_cosine else 1 - progress
        # At both ends, this is exact.
        return left + (1 - left) * self.min_ratio

    def _progress(self, step: int, start: int) -> float:
        """How much of the decay that follows a step is over: 0 to 1."""
        if step >= self.decay_steps:
            return _WHOLE
        # What begins in its last step has no steps between.
        return (step - start) / (self.decay_steps - start) if step > start else 0.0


def planned_rates(values: TrainingConfig, steps: Iterable[int]) -> dict[str, list[float]]:
    """The learning rates that a configuration plans, by their names in the metrics.

    Args:
        values: The configuration.
        steps: In which steps.
    """
    end = end_of_decay(values.decay_steps, values.warmup_steps, values.max_steps)
    curve = values.decay_share, values.min_learning_rate_ratio
    schedule = Schedule(values.learning_rate_schedule, values.warmup_steps, end, *curve)
    rates = {"learning_rate": values.learning_rate}
    if values.optimizer == "muon":
        rates["muon_learning_rate"] = values.muon_learning_rate
    factors = [schedule(step) for step in steps]
    return {name: [rate * factor for factor in factors] for name, rate in rates.items()}
