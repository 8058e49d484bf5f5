"""How a run ends: on record, as a page, and in words for the person who watches."""

import contextlib
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np

from lm_core.config.resolution import ResolvedConfig
from lm_core.errors import DivergenceError, LabError, StoppedAtOnce, StoppedError
from lm_core.evaluation import Evaluator
from lm_core.examination import restored
from lm_core.memory import memory_explained
from lm_core.output import say, warn
from lm_core.record import RunDirectory
from lm_core.report.reporting import draw_ended
from lm_core.sampling import Sampler, headings, printable
from lm_core.training.checkpoint_folder import best_checkpoint
from lm_core.training.signals import StopSignals
from lm_core.training.trainer import Trainer, TrainingResult


@contextlib.contextmanager
def ending_recorded(run: RunDirectory, trainer: Trainer) -> Iterator[None]:
    """Notes in the manifest how a run ended, draws it, and passes on what ended it.

    Args:
        run: The run.
        trainer: Trains it in the meantime.
    """
    outcome, reason = "failed", None
    try:
        yield
        outcome = "completed"
    except StoppedError as error:
        stopped = f"stopped by {signal.Signals(error.signal_number).name}"
        outcome, reason = "completed" if trainer.is_complete else stopped, error.message
        raise
    except KeyboardInterrupt as error:
        outcome = "stopped at once"
        if isinstance(error, StoppedAtOnce):
            outcome += f" by {signal.Signals(error.signal_number).name}"
        outcome = "completed" if trainer.is_complete else outcome
        saved = trainer.saved_step
        reason = f"nothing was saved after step {saved}" if saved else "nothing was saved"
        raise
    except LabError as error:
        outcome = "completed" if trainer.is_complete else "failed"
        outcome = "diverged" if isinstance(error, DivergenceError) else outcome
        reason = error.message
        raise
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        try:
            steps = {"last_step": trainer.step, "saved_step": trainer.saved_step}
            _record_end(run, outcome=outcome, reason=reason, end=time_now(), **steps)
        except LabError as error:
            # Where something went wrong before, that is what a person has to read.
            if outcome == "completed":
                warn(f"{error.message}; the run is {outcome} all the same")
        run.follower.ended(outcome, trainer.step)
        draw_ended(run, outcome)


def _record_end(run: RunDirectory, **fields: Any) -> None:
    """Sets fields of the manifest, whatever signals come in the meantime, but for a third."""
    try:
        with StopSignals():
            run.update_manifest(**fields)
    except StoppedAtOnce:
        run.update_manifest(**fields)
        raise


def tell_result(
    run: RunDirectory,
    config: ResolvedConfig,
    validation: np.ndarray,
    trainer: Trainer,
    result: TrainingResult,
) -> None:
    """Prints what came of a run: that of its best checkpoint, if it may stop early.

    Args:
        run: The run.
        config: Its configuration.
        validation: Its held-out tokens, ``(n_tokens,)``.
        trainer: What has trained it.
        result: What training ended with.
    """
    if config.values.early_stopping_evaluations is not None:
        result = _best_result(run, config, validation, trainer, result)
    for name, text in zip(headings(result.samples or ()), result.samples or (), strict=True):
        say(f"{name}:\n{printable(text)}")
    say(f"final validation loss: {result.evaluation}")
    say(f"run directory: {run.path}")


def _best_result(
    run: RunDirectory,
    config: ResolvedConfig,
    validation: np.ndarray,
    trainer: Trainer,
    last: TrainingResult,
) -> TrainingResult:
    """The result of the best checkpoint, of a run that may stop early."""
    if trainer.has_stopped_early:
        say(f"stopped early after step {last.step:,}: the validation loss gets no better")
    checkpoint = best_checkpoint(run.checkpoints, warn)
    values = config.values
    is_sampled = values.sampling_cadence is not None
    if checkpoint is None:
        return last
    if checkpoint.step == last.step and (last.samples or not is_sampled):
        return last
    say(f"the result is the checkpoint of step {checkpoint.step:,}")
    model, tokenizer = restored(checkpoint, config)
    with memory_explained():
        evaluation = Evaluator(model, validation, tokenizer, values.precision)()
        samples = Sampler(model, tokenizer)() if is_sampled else None
    return TrainingResult(checkpoint.step, evaluation, samples)


def time_now() -> str:
    """The time as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
