"""At which steps a run evaluates, samples and saves."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cadences:
    """At which steps a run evaluates, samples and saves; each cadence is a number of steps.

    Attributes:
        max_steps: The last step of the run.
        checkpoint: From one checkpoint to the next; None: only the last step saves.
        evaluation: From one evaluation to the next; None: only the last step evaluates.
        sampling: From one sample to the next, and one after the last step; None: there are none.
        most_fruitless: Evaluations without a better one after which a run is over before its last
            step; None: any number.
    """

    max_steps: int
    checkpoint: int | None = None
    evaluation: int | None = None
    sampling: int | None = None
    most_fruitless: int | None = None

    def saves(self, step: int) -> bool:
        """Whether a step saves, its evaluation aside."""
        return self._is_due(step, self.checkpoint, at_end=True)

    def evaluates(self, step: int) -> bool:
        """Whether a step evaluates."""
        return self._is_due(step, self.evaluation, at_end=True)

    def calls_for_evaluation(self, step: int) -> bool:
        """Whether a step evaluates wherever the run ends."""
        return self._is_due(step, self.evaluation, at_end=False)

    def samples(self, step: int) -> bool:
        """Whether a step samples."""
        return self._is_due(step, self.sampling, at_end=self.sampling is not None)

    @property
    def save_the_best(self) -> bool:
        """Whether an evaluation that is the best so far saves."""
        # Where a run may be over early, the best checkpoint is its result.
        return self.checkpoint is not None or self.most_fruitless is not None

    def stops_after(self, n_fruitless: int) -> bool:
        """Whether a run is over, after some evaluations in a row without a better one."""
        return self.most_fruitless is not None and n_fruitless >= self.most_fruitless

    def _is_due(self, step: int, cadence: int | None, at_end: bool) -> bool:
        return (at_end and step == self.max_steps) or (cadence is not None and step % cadence == 0)
