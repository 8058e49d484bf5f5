"""Steps one after another, each judged by its numbers before it changes a parameter."""

import math
import time
from collections.abc import Mapping

import torch

from lm_core.errors import DivergenceError
from lm_core.hooks import Hooks
from lm_core.randomness import StepKey
from lm_core.training.divergence import advice_to_skip, are_finite, divergence_told, named
from lm_core.training.recorder import Recorder
from lm_core.training.run_state import RunState
from lm_core.training.update import Gradient, Update

# The steps that a new run has done.
_NONE_DONE = 0


class Steps:
    """Does the steps of a run, and leaves out, or ends at, those that are not finite.

    On a CPU the numbers of a step are there with its gradient, and are looked at before it is
    applied. A GPU works on while the host is behind, and would stand still if the host waited for
    numbers in each step: there, the GPU itself leaves out what is not finite and all that follows,
    and the host looks at the numbers of many steps at once and goes back to the first bad one.

    Args:
        update: Computes and applies gradients.
        hooks: May change gradients and report numbers.
        recorder: Gets a row of metrics for each step.
        seed: The run's seed.
        max_skipped_batches: How many batches may be left out.

    Attributes:
        step: Steps done so far.
        state: What the run knows at this step.
        looks_late: Whether numbers are looked at some steps later.
    """

    def __init__(
        self,
        update: Update,
        hooks: Hooks,
        recorder: Recorder,
        seed: int,
        max_skipped_batches: int,
    ) -> None:
        self._update, self._hooks, self._recorder = update, hooks, recorder
        self._seed = seed
        self._max_skipped_batches = max_skipped_batches
        self._unseen: list[Gradient] = []
        self.step, self.state = _NONE_DONE, RunState()
        # What hooks do cannot be taken back.
        self.looks_late = update.is_on_gpu and not hooks.are_any

    def go_on_from(self, step: int, state: RunState) -> None:
        """Takes up what was done before."""
        self.step, self.state = step, state

    def do_next(self) -> None:
        """The next step, and its row of metrics.

        Raises:
            DivergenceError: Its loss or the norm of its gradient is not finite, and no more batches
                may be left out; no parameter has been touched.
        """
        start = time.perf_counter()
        gradient = self._update.gradient(StepKey(self._seed, self.step + 1))
        n_skipped = None
        if self.looks_late:
            self._update.apply_if_finite(gradient)
            self._unseen.append(gradient)
        else:
            n_skipped = self._apply(gradient)
        self._finish(gradient, n_skipped, time.perf_counter() - start)

    def look_at_numbers(self) -> None:
        """Looks at the numbers of the steps that were done since the last look.

        Where one of them is not finite, it and those after it have changed nothing, and are undone
        by counting: ``step`` is that of the bad one, if it may be left out.

        Raises:
            DivergenceError: It may not.
        """
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return
        numbers = torch.stack([torch.stack([g.loss, g.norm]) for g in unseen])
        soundness = numbers.isfinite().all(1).tolist()
        if all(soundness):
            self.note_finite_loss(self.step)
            return
        bad = unseen[soundness.index(False)]
        self.step = bad.key.step - 1
        if bad is not unseen[0]:
            self.note_finite_loss(self.step)
        self._recorder.drop_after(self.step)
        self._update.switch_on()
        self._finish(bad, self._apply(bad), math.inf)

    def _apply(self, gradient: Gradient) -> int | None:
        """Applies a gradient, or leaves it out.

        Returns:
            How many were left out so far, if this one was, else None.

        Raises:
            DivergenceError: It is not finite, and no more may be left out.
        """
        key = gradient.key
        # Before these numbers are known, no parameter is touched: the host waits for them.
        numbers = {"train_loss": gradient.loss, "grad_norm": gradient.norm}
        is_sound = are_finite(*numbers.values())
        if is_sound and self._hooks.transforms_gradients:
            self._hooks.transform_gradients(key)
            gradient = gradient._replace(norm=self._update.norm())
            numbers["grad_norm after hooks"] = gradient.norm
            is_sound = are_finite(*numbers.values())
        if is_sound or are_finite(gradient.loss):
            self.note_finite_loss(key.step)
        if is_sound:
            self._update.apply(gradient)
            return None
        self._leave_out(key.step, numbers)
        self._update.end_step(key)
        return self.state.skipped_batches

    def _finish(self, gradient: Gradient, n_skipped: int | None, seconds: float) -> None:
        """Counts a step and adds its row of metrics."""
        self.step = gradient.key.step
        self.state.evaluated = self.state.sampled = False
        self._recorder.add(
            {
                "step": self.step,
                "train_loss": gradient.loss,
                **self._update.learning_rates(self.step),
                "grad_norm": gradient.norm,
                "tokens_per_second": self._update.n_tokens / seconds,
                **({} if n_skipped is None else {"skipped_batches": n_skipped}),
                **self._hooks.drain_reports(),
            }
        )

    def _leave_out(self, step: int, numbers: Mapping[str, torch.Tensor]) -> None:
        """Leaves out a batch whose numbers are not finite.

        Raises:
            DivergenceError: No more may be left out.
        """
        what = named(numbers)
        n_skipped, most = self.state.skipped_batches, self._max_skipped_batches
        if n_skipped >= most:
            row = {name: numbers[name] for name in ("train_loss", "grad_norm")}
            self._recorder.add({"step": step, **row})
            self._recorder.flush(force=True)
            advice = advice_to_skip(step, n_skipped, self.state.good_before)
            found = f"step {step}, with {what}: not finite"
            raise DivergenceError(self.divergence(found, advice))
        self.state.skipped_batches = n_skipped + 1
        if self.state.good_before == step:
            # The same weights, which have given a finite loss, stay.
            self.state.good_before = step + 1
        self._recorder.note(f"step {step}  batch skipped, {n_skipped + 1} of {most}: {what}")

    def note_finite_loss(self, step: int) -> None:
        """Notes that the weights before a step's update have given a finite loss.

        Now a checkpoint of them is worth more than older ones, and not before.
        """
        self.state.good_before = step
        self._recorder.remove_superseded()

    def divergence(self, what: str, more_advice: str = "") -> str:
        """What a person is told when the run has diverged.

        Args:
            what: Where, and by which values.
            more_advice: More to try, after a smaller learning rate.
        """
        good = self._recorder.good_checkpoint(self.state.good_before)
        return divergence_told(what, good, self._update.highest_learning_rates, more_advice)
