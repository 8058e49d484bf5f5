"""The training loop, and only the loop."""

import math
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import gin
import numpy as np
import torch

from lm_core.config.checks import require_valid
from lm_core.data.batches import RandomBatches
from lm_core.data.tokenizer import Tokenizer
from lm_core.errors import DivergenceError, InputError, MachineError, StoppedError
from lm_core.evaluation import Evaluation
from lm_core.hooks import Hooks
from lm_core.metrics import MetricsBuffer
from lm_core.model.transformer import Transformer
from lm_core.progress import TrainingProgress
from lm_core.randomness import StepKey
from lm_core.record import RunDirectory
from lm_core.training.checkpoint import Checkpoint, save_checkpoint
from lm_core.training.optimizer import build_adamw, load_optimizer_tensors, optimizer_tensors
from lm_core.training.signals import StopSignals

# Drawn seeds are short enough to be typed again.
_DRAWN_SEEDS = 2**31
# The steps that a new run has done.
_NONE_DONE = 0
# Metrics are fetched from the device and written when this many seconds have passed.
_SECONDS_BETWEEN_FLUSHES = 1.0


def draw_seed() -> int:
    """A seed for a run whose configuration leaves it open."""
    return secrets.randbelow(_DRAWN_SEEDS)


class TrainingResult(NamedTuple):
    """How training ended.

    Attributes:
        step: Steps done in the whole run.
        evaluation: The evaluation after the last step, if there is an evaluator.
        sample: The sample after the last step, if samples are written.
    """

    step: int
    evaluation: Evaluation | None
    sample: str | None


@gin.configurable(denylist=["model", "tokens", "evaluate", "sample", "tokenizer"])
class Trainer:
    """Trains a model on windows of tokens, with AdamW at a constant learning rate.

    Step ``s`` is a function of the weights, the optimizer's state, the seed and ``s``: to go on
    from a checkpoint is to have never stopped.

    Args:
        model: The model; it is trained in place.
        tokens: The training part of the corpus, ``(n_tokens,)``.
        evaluate: Called at evaluations; None: there are none.
        sample: Called for samples; None: there are none.
        tokenizer: Stored in checkpoints, so that they can be used alone.
        learning_rate: Step size of AdamW.
        weight_decay: Decoupled weight decay, on matrices only.
        beta1: AdamW's decay of the mean of the gradient.
        beta2: AdamW's decay of the mean of the squared gradient.
        batch_size: Windows in a batch.
        max_steps: Steps in the whole run.
        checkpoint_cadence: Steps from one checkpoint to the next; an evaluation that is the best
            so far saves too, and so does the last step. None: only the last step.
        eval_cadence: Steps from one evaluation to the next; the last step evaluates too. None:
            only the last step.
        sampling_cadence: Steps from one sample to the next, and one after the last step. None:
            never.
        seed: Seed of batches and dropout. None: one is drawn.
        hooks: The table of hooks, ``{"forward": [...], "update": [...]}``.

    Attributes:
        step: Steps done so far.

    Raises:
        InputError: A value cannot work, the tokens are too few, or a hook does not fit.
    """

    def __init__(
        self,
        model: Transformer,
        tokens: np.ndarray,
        evaluate: Callable[[], Evaluation] | None = None,
        sample: Callable[[], str] | None = None,
        tokenizer: Tokenizer | None = None,
        learning_rate: float = 3e-4,
        weight_decay: float = 0.1,
        beta1: float = 0.9,
        beta2: float = 0.95,
        batch_size: int = 16,
        max_steps: int = 10_000,
        checkpoint_cadence: int | None = 1000,
        eval_cadence: int | None = None,
        sampling_cadence: int | None = None,
        seed: int | None = None,
        hooks: Mapping[str, Any] | None = None,
    ) -> None:
        require_valid(
            {
                "learning_rate": learning_rate,
                "weight_decay": weight_decay,
                "beta1": beta1,
                "beta2": beta2,
                "batch_size": batch_size,
                "max_steps": max_steps,
                "checkpoint_cadence": checkpoint_cadence,
                "eval_cadence": eval_cadence,
                "sampling_cadence": sampling_cadence,
                "seed": seed,
                "hooks": hooks,
            }
        )
        self.model = model
        self.seed = draw_seed() if seed is None else seed
        self.max_steps = max_steps
        self.step = _NONE_DONE
        self._evaluate, self._sample, self._tokenizer = evaluate, sample, tokenizer
        self._learning_rate = learning_rate
        self._checkpoint_cadence = checkpoint_cadence
        self._eval_cadence = eval_cadence
        self._sampling_cadence = sampling_cadence
        self._batches = RandomBatches(tokens, batch_size, model.max_seq_len, self.seed)
        self._tokens_a_step = batch_size * model.max_seq_len
        self._device = model.token_embedding.weight.device
        self._optimizer = build_adamw(model, learning_rate, weight_decay, beta1, beta2)
        self._hooks = Hooks(hooks, model)
        self._run: RunDirectory | None = None
        self._metrics = MetricsBuffer()
        self._last_flush = -math.inf
        self._best_loss = math.inf
        self._saved_step: int | None = None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes everything up where a checkpoint left it.

        Raises:
            InputError: The checkpoint is past ``max_steps``, or of another seed.
            MachineError: Its tensors do not fit this model.
        """
        if checkpoint.step > self.max_steps:
            raise InputError(
                f"the run is at step {checkpoint.step} already, past max_steps {self.max_steps}; "
                "a larger --max_steps goes on with it"
            )
        if checkpoint.state.get("seed") != self.seed:
            theirs = checkpoint.state.get("seed")
            raise InputError(f"the checkpoint's seed is {theirs}, the configuration's {self.seed}")
        try:
            self.model.load_state_dict(checkpoint.model)
        except RuntimeError as error:
            words = " ".join(str(error).split())
            raise MachineError(f"the checkpoint does not fit the model: {words}") from error
        load_optimizer_tensors(self._optimizer, self.model, checkpoint.optimizer)
        self._hooks.load_state(checkpoint.hooks)
        best = checkpoint.state.get("best_validation_loss")
        if not isinstance(best, float | None):
            raise MachineError(f"the checkpoint's best_validation_loss is {best!r}, no number")
        self._best_loss = math.inf if best is None else best
        self.step = self._saved_step = checkpoint.step

    def train(
        self,
        run: RunDirectory | None = None,
        progress: AbstractContextManager[TrainingProgress] | None = None,
    ) -> TrainingResult:
        """Runs all steps that are left.

        Args:
            run: Where metrics, samples and checkpoints go; None: nowhere.
            progress: Shows how it goes; None: nothing is shown.

        Raises:
            StoppedError: SIGINT or SIGTERM came; the last finished step has been saved. One that
                comes in the last step of all finds the run complete, and changes nothing.
            DivergenceError: The loss or the gradient is not finite; nothing was saved since.
            MachineError: A checkpoint or the record cannot be written.
        """
        self._run = run
        self.model.train()
        evaluation, sample = None, None
        with StopSignals() as signals, progress or nullcontext() as shown:
            first_step = self.step + 1
            while self.step < self.max_steps:
                self.train_step()
                if self.step == first_step:
                    # What a hook keeps and cannot be saved is told now, not at the first save.
                    self._hooks.state()
                evaluation, sample = self._after_step(shown)
                if signals.received is not None and self.step < self.max_steps:
                    self._stop(signals.received, shown)
        if evaluation is None and self._evaluate is not None:
            # A run that was already complete: nothing is trained or recorded, only told.
            evaluation = self._evaluate()
            sample = self._sample() if self._sample and self._sampling_cadence else None
        return TrainingResult(self.step, evaluation, sample)

    def train_step(self) -> None:
        """Forward, backward and update of the next step, and its row of metrics."""
        start = time.perf_counter()
        key = StepKey(self.seed, self.step + 1)
        inputs, targets = self._batches.batch(key.step)
        loss = self.model(inputs.to(self._device), targets.to(self._device), key=key)
        loss.backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._hooks.transform_gradients(key)
        self._update(key)
        self._optimizer.zero_grad(set_to_none=True)
        self.step = key.step
        self._metrics.add(
            {
                "step": key.step,
                "train_loss": loss.detach(),
                "learning_rate": self._learning_rate,
                "grad_norm": norm,
                "tokens_per_second": self._tokens_a_step / (time.perf_counter() - start),
                **self._hooks.drain_reports(),
            }
        )

    def _update(self, key: StepKey) -> None:
        if not self._hooks.transforms_updates:
            self._optimizer.step()
            return
        before = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self._optimizer.step()
        self._hooks.transform_updates(before, key)

    def _after_step(
        self, progress: TrainingProgress | None
    ) -> tuple[Evaluation | None, str | None]:
        """Evaluates, samples, records and saves what this step calls for."""
        evaluation, sample, is_best = None, None, False
        notes = []
        if self._evaluate is not None and self._is_due(self._eval_cadence, at_end=True):
            evaluation = self._evaluate()
            self._metrics.amend(val_loss=evaluation.loss, bits_per_byte=evaluation.bits_per_byte)
            self._metrics.amend(**self._hooks.drain_reports("evaluation/"))
            is_best = evaluation.loss < self._best_loss
            self._best_loss = min(self._best_loss, evaluation.loss)
            notes.append(f"step {self.step}  validation loss {evaluation}")
        samples_at_end = self._sampling_cadence is not None
        if self._sample is not None and self._is_due(self._sampling_cadence, samples_at_end):
            sample = self._sample()
            self._metrics.amend(**self._hooks.drain_reports("sampling/"))
            notes.append(f"step {self.step}  sample {sample!r}")
            self._record_sample(sample)
        self._flush(progress, force=bool(notes))
        for note in notes:
            if progress is not None:
                progress.note(note)
        saves_best = is_best and self._checkpoint_cadence is not None
        if saves_best or self._is_due(self._checkpoint_cadence, at_end=True):
            self._save(progress)
        return evaluation, sample

    def _is_due(self, cadence: int | None, at_end: bool) -> bool:
        if self.step == self.max_steps:
            return at_end
        return cadence is not None and self.step % cadence == 0

    def _record_sample(self, text: str) -> None:
        if self._run is not None:
            settings = {
                name: getattr(self._sample, name, None)
                for name in ("prompt", "seed", "temperature", "top_k", "top_p")
            }
            self._run.append_sample({"step": self.step, **settings, "text": text})

    def _flush(self, progress: TrainingProgress | None, force: bool = False) -> None:
        """Fetches and writes the metrics, if it is time to.

        Raises:
            DivergenceError: A loss or gradient norm among them is not finite.
        """
        now = time.perf_counter()
        if not force and now - self._last_flush < _SECONDS_BETWEEN_FLUSHES:
            return
        self._last_flush = now
        rows = self._metrics.flush()
        if not rows:
            return
        if self._run is not None:
            self._run.append_metrics(rows)
        for row in rows:
            if not (math.isfinite(row["train_loss"]) and math.isfinite(row["grad_norm"])):
                loss, norm = row["train_loss"], row["grad_norm"]
                what = f"step {row['step']}, with train_loss {loss} and grad_norm {norm}"
                raise DivergenceError(self._divergence(what))
        if progress is not None:
            last = rows[-1]
            progress.update(last["step"], last["train_loss"], last["tokens_per_second"])

    def _divergence(self, what: str) -> str:
        saved = "no checkpoint was saved before"
        if self._saved_step is not None:
            saved = f"the last good checkpoint is that of step {self._saved_step}"
        return (
            f"training diverged at {what}: not finite; {saved}. Try a smaller learning_rate "
            f"(now {self._learning_rate})"
        )

    def _save(self, progress: TrainingProgress | None) -> None:
        """Saves the state after this step, never before its metrics are safe.

        Raises:
            DivergenceError: The update of this step left the finite numbers; nothing is saved.
        """
        self._flush(progress, force=True)
        if self._run is None:
            return
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise DivergenceError(self._divergence(f"the weights after step {self.step}"))
        self._run.sync()
        state = {
            "step": self.step,
            "seed": self.seed,
            "model": self.model.arguments,
            "tokenizer": self._tokenizer.to_dict() if self._tokenizer else None,
            "best_validation_loss": self._best_loss if math.isfinite(self._best_loss) else None,
        }
        checkpoint = Checkpoint(
            step=self.step,
            model=dict(self.model.state_dict()),
            optimizer=optimizer_tensors(self._optimizer, self.model),
            hooks=self._hooks.state(),
            state=state,
        )
        save_checkpoint(self._run.checkpoints, checkpoint)
        self._saved_step = self.step

    def _stop(self, signal_number: int, progress: TrainingProgress | None) -> None:
        self._flush(progress, force=True)
        if self._run is None:
            raise StoppedError(f"stopped after step {self.step}", signal_number)
        if self._saved_step != self.step:
            self._save(progress)
        message = f"stopped after step {self.step}, which is saved; --resume goes on from there"
        raise StoppedError(message, signal_number)
