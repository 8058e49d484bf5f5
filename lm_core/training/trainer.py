"""The training loop, and only the loop."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NoReturn

import gin
import numpy as np
import torch

from lm_core.compute import DTYPES, chosen_device, chosen_precision, threads_of
from lm_core.config.checks import require_valid
from lm_core.config.hyperparameters import KEYS
from lm_core.config.table import gin_parameter
from lm_core.data.batches import ORDERS
from lm_core.data.tokenizer import Tokenizer
from lm_core.errors import DivergenceError, StoppedError
from lm_core.evaluation import Evaluation
from lm_core.hooks import Hooks
from lm_core.model.transformer import Transformer
from lm_core.parallel.group import Group
from lm_core.progress import TrainingProgress, shown_progress
from lm_core.randomness import draw_seed
from lm_core.record import RunDirectory
from lm_core.training.averaging import WeightAverage
from lm_core.training.cadences import Cadences
from lm_core.training.checkpoint import Checkpoint
from lm_core.training.looks import Due, Look, Looks, TrainingResult
from lm_core.training.objective import Objective
from lm_core.training.optimizer import OptimizerSettings, build_optimizer
from lm_core.training.recorder import Recorder
from lm_core.training.reduction import build_reduction
from lm_core.training.restoring import restore_training
from lm_core.training.run_state import RunState
from lm_core.training.schedule import Schedule, end_of_decay
from lm_core.training.shared_signals import SharedSignals
from lm_core.training.signals import CheckStop, StopRequested
from lm_core.training.steps import Steps
from lm_core.training.trained import Trained
from lm_core.training.update import Update, UpdateSettings


@gin.configurable(denylist=["model", "tokens", "evaluate", "sample", "tokenizer", "group"])
class Trainer:
    """Trains a model on windows of tokens.

    Step ``s`` is a function of the weights, the optimizer's state, the seed and ``s``: to go on
    from a checkpoint is to have never stopped.

    Args:
        model: The model; it is trained in place, and moved to the device.
        tokens: The training part of the corpus, ``(n_tokens,)``.
        evaluate: Called at evaluations; None: there are none.
        sample: Called for the samples of a step; None: there are none.
        tokenizer: Stored in checkpoints, so that they can be used alone.
        optimizer: ``adamw``, or ``muon`` for the matrices of the blocks and AdamW for all others.
        learning_rate: Step size of AdamW.
        learning_rate_schedule: What both step sizes do over the run, by a name of ``Schedule``.
        warmup_steps: Steps in which they rise from 0, before.
        decay_steps: The step in which they are smallest. None: ``max_steps``.
        decay_share: Share of ``decay_steps`` in which ``warmup_stable_decay`` falls, at the end.
        min_learning_rate_ratio: The smallest, as a share of the largest.
        muon_learning_rate: Step size of Muon.
        muon_momentum: Muon's decay of the mean of the gradient.
        weight_decay: Decoupled weight decay, on matrices only.
        beta1: AdamW's decay of the mean of the gradient.
        beta2: AdamW's decay of the mean of the squared gradient.
        max_grad_norm: Gradients of a larger norm are scaled down to it. None: none are.
        ema_decay: Decay of an average of the weights, which is evaluated, sampled from and saved as
            the model. None: there is none.
        label_smoothing: Share of the probability that a target gives to all tokens alike.
        z_loss: Factor of the squared logarithm of the softmax's normaliser.
        batch_size: Windows in a batch.
        accumulation_steps: Parts of a batch that are computed one after the other.
        data_order: Of windows: ``random`` ones, or ``shuffled``, each once an epoch.
        max_steps: Steps in the whole run.
        checkpoint_cadence: Steps from one checkpoint to the next; an evaluation that is the best
            so far saves too, and so does the last step. None: only the last step.
        eval_cadence: Steps from one evaluation to the next; the last step evaluates too. None:
            only the last step.
        sampling_cadence: Steps from one sample to the next, and one after the last step. None:
            never.
        early_stopping_evaluations: So many without a better one end training. None: none do.
        keep_checkpoints: How many of the newest checkpoints stay, and the one of the best
            evaluation besides. None: all.
        max_skipped_batches: How many batches a run may leave out, whose loss or gradient norm is
            not finite, before it stops as diverged.
        precision: Of matrix products: ``float32``, ``bfloat16``, or ``auto``, whichever is faster
            on the device. Weights, gradients and the optimizer are in float32.
        device: Where to train: ``cpu``, ``cuda``, ``mps``, or ``auto``, a GPU if there is one.
        compile: Whether PyTorch compiles the model.
        parallelism: What several processes keep of the model: ``ddp`` all of it, ``fsdp`` a share.
            ``none``: there is one. ``auto``: ``ddp``.
        exact_reduction: Whether 1, 2, 4 and 8 processes leave the same bits, on one thread each.
        seed: Seed of batches and dropout. None: one is drawn.
        hooks: The table of hooks, ``{"forward": [...], "update": [...]}``.
        group: The processes that train the model together.

    Attributes:
        model, max_steps, seed: As given; the seed as it was drawn.
        precision: As it was chosen.

    Raises:
        InputError: A value cannot work, the tokens are too few, or a hook does not fit.
    """

    def __init__(
        self,
        model: Transformer,
        tokens: np.ndarray,
        evaluate: Callable[[CheckStop], Evaluation] | None = None,
        sample: Callable[[CheckStop], list[str]] | None = None,
        tokenizer: Tokenizer | None = None,
        optimizer: str = "adamw",
        learning_rate: float = 3e-4,
        learning_rate_schedule: str = "constant",
        warmup_steps: int = 0,
        decay_steps: int | None = None,
        decay_share: float = 0.2,
        min_learning_rate_ratio: float = 0.1,
        muon_learning_rate: float = 0.02,
        muon_momentum: float = 0.95,
        weight_decay: float = 0.1,
        beta1: float = 0.9,
        beta2: float = 0.95,
        max_grad_norm: float | None = None,
        ema_decay: float | None = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        batch_size: int = 16,
        accumulation_steps: int = 1,
        data_order: str = "random",
        max_steps: int = 10_000,
        checkpoint_cadence: int | None = 1000,
        eval_cadence: int | None = None,
        early_stopping_evaluations: int | None = None,
        sampling_cadence: int | None = None,
        keep_checkpoints: int | None = 3,
        max_skipped_batches: int = 0,
        precision: str = "auto",
        device: str = "auto",
        compile: bool = False,
        parallelism: str = "auto",
        exact_reduction: bool = False,
        seed: int | None = None,
        hooks: Mapping[str, Any] | None = None,
        group: Group = Group(),  # noqa: B008 -- it cannot change
    ) -> None:
        given = locals()
        require_valid({key: given[key] for key in KEYS if gin_parameter(key) == f"Trainer.{key}"})
        self.model = model.to(chosen_device(device))
        self.precision = chosen_precision(precision, model.device)
        self.seed = draw_seed() if seed is None else seed
        self.max_steps = max_steps
        self._tokenizer = tokenizer
        cadences = checkpoint_cadence, eval_cadence, sampling_cadence, early_stopping_evaluations
        self._cadences = Cadences(max_steps, *cadences)
        self._group, self._is_exact = group, exact_reduction
        self._hooks = Hooks(hooks, model)
        shares = batch_size, accumulation_steps, parallelism, exact_reduction
        reduction = build_reduction(model, group, *shares)
        momenta = beta1, beta2, muon_learning_rate, muon_momentum
        steps_of = OptimizerSettings(optimizer, learning_rate, weight_decay, *momenta)
        updating = build_optimizer(model, steps_of, DTYPES[self.precision])
        average = None if ema_decay is None else WeightAverage(model, ema_decay)
        self._trained = Trained(model, updating, self._hooks, average, group)
        self._looks = Looks(self._cadences, self._trained, evaluate, sample)
        self._recorder = Recorder(keep_checkpoints, writes=group.is_first)
        end = end_of_decay(decay_steps, warmup_steps, max_steps)
        curve = learning_rate_schedule, warmup_steps, end, decay_share, min_learning_rate_ratio
        objective = Objective(label_smoothing, z_loss)
        choices = self.precision, compile, objective, max_grad_norm, Schedule(*curve)
        batches = ORDERS[data_order](tokens, batch_size, model.max_seq_len, self.seed)
        update = Update(self._trained, batches, reduction, UpdateSettings(*choices))
        self._steps = Steps(update, self._hooks, self._recorder, self.seed, max_skipped_batches)
        # The last step that the newest checkpoint knows to be done with.
        self._safe_step: int | None = None

    @property
    def step(self) -> int:
        """Steps done so far."""
        return self._steps.step

    @property
    def _state(self) -> RunState:
        return self._steps.state

    @property
    def saved_step(self) -> int | None:
        """The step of the newest checkpoint; None: there is none."""
        return self._recorder.saved_step

    @property
    def recorded_step(self) -> int:
        """The last step that is evaluated and sampled as far as it is to be."""
        is_unfinished = self._looks.are_left_by(self._state, self.step)
        return self.step - 1 if is_unfinished else self.step

    @property
    def has_stopped_early(self) -> bool:
        """Whether there were as many evaluations without a better one as there may be."""
        return self._cadences.stops_after(self._state.evaluations_since_best)

    @property
    def _is_over(self) -> bool:
        return self.step == self.max_steps or self.has_stopped_early

    @property
    def is_complete(self) -> bool:
        """Whether all is done and saved."""
        return self._is_over and self._safe_step == self.step

    def rewind(self, run: RunDirectory) -> int:
        """Takes a run's record back to where the trainer is.

        Returns:
            How many steps up to there have no line of metrics any more.

        Raises:
            MachineError: It cannot be written.
        """
        row, is_done = self._state.row, self.recorded_step == self.step
        # A sample that the checkpoint knows nothing of belongs to what is done anew.
        has_sample = row is None or self._state.sampled
        return run.rewind(
            self.recorded_step,
            sampled_step=self.step if has_sample else self.step - 1,
            row=row if is_done else None,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes everything up where a checkpoint left it.

        Raises:
            InputError: The checkpoint is past ``max_steps``, or of another experiment.
            MachineError: Its tensors do not fit this model.
        """
        parts: dict[str, Any] = {"seed": self.seed}
        if self._tokenizer:
            parts["tokenizer"] = self._tokenizer.to_dict()
        state = restore_training(checkpoint, self._trained, self.max_steps, **parts)
        self._steps.go_on_from(checkpoint.step, state)
        self._recorder.go_on_from(self.step, self._state)
        self._safe_step = self.recorded_step
        if self.recorded_step < self.step:
            row = self._state.row
            self._recorder.add({k: math.nan if v is None else v for k, v in row.items()})

    def train(
        self,
        run: RunDirectory | None = None,
        progress: AbstractContextManager[TrainingProgress] | bool | None = None,
    ) -> TrainingResult:
        """Runs all steps that are left.

        Args:
            run: Where metrics, samples and checkpoints go; None: nowhere.
            progress: Shows how it goes; True: a bar on a terminal or in a notebook; None: nothing.

        Raises:
            StoppedError: A signal came; the last finished step has been saved.
            DivergenceError: A loss, a gradient or a weight is not finite; nothing was saved since.
            MachineError: A checkpoint or the record cannot be written.
        """
        self.model.train()
        result = None
        with (
            threads_of(self._is_exact),
            SharedSignals(self._group) as signals,
            shown_progress(progress, self.step, self.max_steps) as shown,
            self._recorder.recording(run, shown),
        ):
            if self.recorded_step < self.step:
                result = self._after_step(signals)
            first_step = self.step + 1
            while not self._is_over:
                self.train_step()
                if self.step == first_step:
                    # What a hook keeps and cannot be saved is told now, not at the first save.
                    self._hooks.state()
                result = self._after_step(signals)
            due = self._looks.due(self.step)
            if result is None or due != (result.evaluation is not None, result.samples is not None):
                # What was done before is not recorded again, only told.
                try:
                    look = self._look(due, signals)
                except StopRequested:
                    self._stop(signals)
                if look.evaluation is not None:
                    self._steps.note_finite_loss(self.step + 1)
                result = TrainingResult(self.step, look.evaluation, look.samples)
        return result

    def train_step(self) -> None:
        """Forward, backward and update of the next step, and its row of metrics.

        Raises:
            DivergenceError: The loss or the norm of the gradient is not finite, and no more batches
                may be skipped; no parameter has been touched.
        """
        self._steps.do_next()

    def _after_step(self, signals: SharedSignals) -> TrainingResult:
        """Evaluates, samples, records and saves what this step calls for.

        Raises:
            StoppedError: A signal came. An evaluation or a sample that it met is given up, and done
                anew by the run that goes on from here.
        """
        (is_time,) = signals.agree(self._recorder.is_time)
        if self._needs_numbers(is_time or signals.agreed is not None):
            self._steps.look_at_numbers()
        due = self._looks.due(self.step, self._state)
        hooks_before = self._hooks.state() if any(due) else {}
        try:
            look = self._look(due, signals)
        except StopRequested:
            self._save(hooks_before)
            self._stop(signals)
        self._state.evaluated |= due.evaluation
        self._state.sampled |= due.sample
        self._recorder.amend(look.metrics, look.seconds)
        is_best = False
        if look.evaluation is not None:
            self._state.good_before = self.step + 1
            at_cadence = self._cadences.calls_for_evaluation(self.step)
            is_best = self._state.take(self.step, look.evaluation.loss, at_cadence)
            self._recorder.note(f"step {self.step}  validation loss {look.evaluation}")
        if look.samples is not None:
            self._recorder.add_samples(self.step, look.samples, self._looks.sample)
        self._recorder.flush()
        is_kept = is_best and self._cadences.save_the_best
        is_saved = is_kept or self._is_over or self._cadences.saves(self.step)
        if is_saved:
            self._save(self._hooks.state())
        if self._state.good_before > self.step:
            self._recorder.remove_superseded()
        if is_saved or any(due) or self._group.is_alone:
            # That took its time.
            signals.agree()
        if signals.agreed is not None:
            self._stop(signals)
        return TrainingResult(self.step, look.evaluation, look.samples)

    def _needs_numbers(self, is_asked: bool) -> bool:
        """Whether anything that follows this step needs to know that its numbers are finite."""
        is_next = any(self._looks.due(self.step, self._state)) or self._cadences.saves(self.step)
        return is_next or is_asked

    def _look(self, due: Due, signals: SharedSignals) -> Look:
        """Evaluates and samples.

        Raises:
            StopRequested: A signal came.
            DivergenceError: The weights give no finite numbers.
        """
        try:
            return self._looks.look(due, signals.check)
        except DivergenceError as error:
            self._recorder.flush(force=True)
            what = f"step {self.step}: {error.message}"
            raise DivergenceError(self._steps.divergence(what)) from error

    def _save(self, hooks: dict[str, torch.Tensor]) -> None:
        """Saves the state after this step.

        Args:
            hooks: What hooks keep.

        Raises:
            DivergenceError: The update of this step left the finite numbers; nothing is saved.
            MachineError: It cannot be saved.
        """
        self._recorder.flush(force=True)
        if not self._trained.is_finite:
            found = f"the weights after step {self.step}: not finite"
            raise DivergenceError(self._steps.divergence(found))
        self._state.row = self._recorder.newest_row
        state = {
            "seed": self.seed,
            "model": self.model.arguments,
            "tokenizer": self._tokenizer.to_dict() if self._tokenizer else None,
            **self._state.to_json(),
        }
        checkpoint = Checkpoint(step=self.step, hooks=hooks, state=state, **self._trained.tensors())
        self._recorder.save(checkpoint, self._state)
        if self.saved_step == self.step:
            self._safe_step = self.recorded_step

    def _stop(self, signals: SharedSignals) -> NoReturn:
        """Saves, if that is not done yet, and ends the run."""
        if self.saved_step != self.step:
            self._save(self._hooks.state())
        message = f"stopped after step {self.step}"
        if self.is_complete:
            message += ", the last one: everything is done and saved"
        elif self.saved_step is not None:
            message += ", which is saved; --resume goes on from there"
        raise StoppedError(message, signals.agreed)
