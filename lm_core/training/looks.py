"""What a run looks at between two steps: evaluations and samples."""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from lm_core.errors import DivergenceError
from lm_core.evaluation import Evaluation
from lm_core.training.cadences import Cadences
from lm_core.training.run_state import RunState
from lm_core.training.signals import CheckStop
from lm_core.training.trained import Trained


class Look(NamedTuple):
    """What was found after a step.

    Attributes:
        evaluation: The evaluation, if one was due.
        samples: The samples, if any were due.
        metrics: What belongs into the step's line of metrics.
        seconds: How long it took.
    """

    evaluation: Evaluation | None
    samples: list[str] | None
    metrics: dict[str, Any]
    seconds: float


class TrainingResult(NamedTuple):
    """How training ended.

    Attributes:
        step: Steps done in the whole run.
        evaluation: The evaluation after the last step, if there is an evaluator.
        samples: The samples after the last step, if there are to be any.
    """

    step: int
    evaluation: Evaluation | None
    samples: list[str] | None


class Due(NamedTuple):
    """What a step calls for."""

    evaluation: bool
    sample: bool


class Looks:
    """Evaluates and samples after the steps that call for it.

    Args:
        cadences: Which steps do.
        trained: The model that is looked at, and the hooks that may report something about it.
        evaluate: Called for an evaluation; None: there are none.
        sample: Called for the samples of a step; None: there are none.
    """

    def __init__(
        self,
        cadences: Cadences,
        trained: Trained,
        evaluate: Callable[[CheckStop], Evaluation] | None,
        sample: Callable[[CheckStop], list[str]] | None,
    ) -> None:
        self.evaluate, self.sample = evaluate, sample
        self._cadences, self._trained = cadences, trained

    def due(self, step: int, state: RunState | None = None) -> Due:
        """What is due after a step.

        Args:
            step: The step.
            state: What the run knows at this step: what is done already is left out. None: nothing
                is left out.
        """
        evaluated, sampled = (state.evaluated, state.sampled) if state else (False, False)
        return Due(
            self.evaluate is not None and self._cadences.evaluates(step) and not evaluated,
            self.sample is not None and self._cadences.samples(step) and not sampled,
        )

    def are_left_by(self, state: RunState, step: int) -> bool:
        """Whether an evaluation or a sample of a step is still to be done.

        It was given up for a signal, or is due only now that ``max_steps`` or a cadence is another.

        Args:
            state: What the run knows at this step.
            step: The step.
        """
        return state.row is not None and any(self.due(step, state))

    def look(self, due: Due, check_stop: CheckStop) -> Look:
        """Does what is due, on the weights that are the model to everybody else.

        Raises:
            StopRequested: ``check_stop`` did. No trace is left but in hooks that keep state.
            DivergenceError: The validation loss is not finite, or the model gives no numbers to
                sample from.
        """
        with self._trained.shown() if any(due) else contextlib.nullcontext():
            return self._look(due, check_stop)

    def _look(self, due: Due, check_stop: CheckStop) -> Look:
        evaluation, samples, metrics = None, None, {}
        start = time.perf_counter()
        if due.evaluation:
            evaluation = self.evaluate(check_stop)
            if not math.isfinite(evaluation.loss):
                raise DivergenceError(f"the validation loss is {evaluation.loss}")
            metrics = {"val_loss": evaluation.loss, "bits_per_byte": evaluation.bits_per_byte}
            metrics |= self._trained.hooks.drain_reports("evaluation/")
        if due.sample:
            samples = self.sample(check_stop)
            metrics |= self._trained.hooks.drain_reports("sampling/")
        return Look(evaluation, samples, metrics, time.perf_counter() - start)
