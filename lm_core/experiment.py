"""The wiring: from a request to corpus, tokenizer, model and trainer, and to what is printed."""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from lm_core.assembly import Parts, build, completed
from lm_core.config.rendering import config_hash, gin_text, rows
from lm_core.config.resolution import ResolvedConfig, resolve
from lm_core.errors import (
    DivergenceError,
    InputError,
    LabError,
    StoppedAtOnce,
    StoppedError,
)
from lm_core.evaluation import Evaluator
from lm_core.examination import restored
from lm_core.hooks import check_hooks
from lm_core.initial_weights import save_start, weights_begun_with
from lm_core.inspection import check_fit
from lm_core.manifest import describe_world
from lm_core.memory import memory_explained
from lm_core.output import say, warn
from lm_core.progress import training_progress
from lm_core.record import LATEST, RunDirectory, default_run_path
from lm_core.recorded_config import (
    Recorded,
    as_begun,
    read_record,
    record_sources,
    record_tokenizer,
    record_yaml,
    recorded_tokenizer,
    require_same_experiment,
    resolve_upon,
    weights_sha256,
    with_first_sources,
)
from lm_core.report.reporting import write_report_of
from lm_core.request import Request
from lm_core.resumption import failures_told, go_on, take_up
from lm_core.run_lock import RunLock
from lm_core.sampling import Sampler, headings, printable
from lm_core.tensorboard_events import TensorBoardEvents, require_tensorboard
from lm_core.training.checkpoint_folder import best_checkpoint
from lm_core.training.signals import StopSignals
from lm_core.training.trainer import Trainer, TrainingResult


def train(request: Request) -> None:
    """Trains a model and leaves a complete record of it.

    Raises:
        LabError: Anything a person should read; nothing half-made is left behind.
    """
    if request.tensorboard:
        require_tensorboard()
    with RunLock() as lock:
        run = _run_to_resume(request, lock)
        recorded = read_record(run) if run else None
        parts = _parts_of_new(request) if run is None else _parts_of(run, recorded, request)
        manifest = _manifest(request, parts)
        goes_on = take_up(run, parts.trainer, manifest) if run else {}
        # Once the record says that the run is running, a signal must not keep its end out of it.
        with StopSignals() as signals:
            if run is None:
                run = _create_run(request, parts, manifest, lock)
            with _ending_recorded(run, parts.trainer), failures_told(parts.trainer):
                if recorded is not None:
                    run.update_manifest(**goes_on)
                if parts.data.initial is not None and parts.trainer.saved_step is None:
                    save_start(run, parts.trainer.model, parts.data.tokenizer, parts.config.values)
                signals.let_through()
                if recorded is not None:
                    go_on(run, recorded, parts.config, parts.trainer, manifest)
                if request.tensorboard:
                    run.follower = TensorBoardEvents(run, parts.config.values.to_dict())
                _announce(run, parts)
                _announce_config(parts.config, manifest["config_hash"], request.logs_all)
                result = _train(run, parts.trainer)
        _finish(run, parts, result)


def _parts_of_new(request: Request) -> Parts:
    config = completed(resolve(request.config, check_hooks, check_fit))
    return build(config, verify_corpus=request.verify_corpus)


def _parts_of(run: RunDirectory, recorded: Recorded, request: Request) -> Parts:
    """The parts of a run that is to go on, once it is sure that they make the same experiment."""
    config = resolve_upon(run, request.config, check_hooks, check_fit)
    config = as_begun(config, recorded.values.init_from)
    accept = partial(require_same_experiment, run, recorded, config)
    begun_with = weights_begun_with(run, recorded.values.init_from)
    tokenizer = recorded_tokenizer(run)
    parts = build(completed(config), accept, request.verify_corpus, tokenizer, begun_with)
    return replace(parts, config=with_first_sources(parts.config, run))


def _manifest(request: Request, parts: Parts) -> dict[str, Any]:
    """What is known about a run before its first step."""
    corpus, tokenizer = parts.data.corpus, record_tokenizer(parts.data.tokenizer)
    initial = parts.data.initial
    begun_with = {} if initial is None else {"init_from": initial.record}
    digests = corpus.sha256, tokenizer["sha256"], weights_sha256(begun_with)
    return {
        **describe_world(
            request.config.allowed_imports,
            parts.trainer.model.device.type,
            parts.trainer.precision,
        ),
        "command_line": list(request.command_line),
        "corpus": corpus.record(),
        "tokenizer": tokenizer,
        **begun_with,
        "config_hash": config_hash(parts.config.values.to_dict(), *digests),
        "sources": record_sources(parts.config),
        "n_parameters": parts.trainer.model.n_parameters,
        "start": _now(),
        "end": None,
        "outcome": "running",
        "reason": None,
    }


def _run_to_resume(request: Request, lock: RunLock) -> RunDirectory | None:
    if not request.resume:
        return None
    if request.run_dir is None:
        raise InputError("--resume needs --run_dir, to know which run to go on with")
    if not RunDirectory.is_at(request.run_dir):
        return None
    run = RunDirectory.open(request.run_dir)
    lock.take(run.path)
    run.lock = lock
    return run


def _create_run(
    request: Request, parts: Parts, manifest: dict[str, Any], lock: RunLock
) -> RunDirectory:
    files = request.config.files
    name = Path(files[-1].name).stem if files else "base"
    while True:
        path = request.run_dir or default_run_path(name)
        if path.name == LATEST and _is_linked(path):
            message = f"{path} is the link to the newest run, and there is none yet"
            raise InputError(f"{message}; --run_dir takes any other name")
        forms = record_yaml(parts.config, path), gin_text(parts.config)
        # Of the tokenizers, byte-level BPE alone is a file to others.
        tokenizer_json = parts.data.tokenizer.to_dict().get("json")
        try:
            run = RunDirectory.create(path, *forms, manifest, lock, tokenizer_json)
            break
        except InputError as error:
            # Another run that started in the same second may have taken the name: then the next.
            if not path.exists():
                raise
            if _run_to_resume(request, lock) is not None:
                message = f"another process has just made {path}"
                again = "the same command, given again, goes on with it"
                raise InputError(f"{message}; {again}") from error
            if request.run_dir:
                raise
    if _is_linked(path):
        run.link_latest()
    return run


def _is_linked(path: Path) -> bool:
    """Whether the link ``latest`` points at a new run there."""
    return path.parent.resolve() == Path("runs").resolve()


def _announce(run: RunDirectory, parts: Parts) -> None:
    values, trainer = parts.config.values, parts.trainer
    n_tokens = values.batch_size * values.max_seq_len
    passes = n_tokens * trainer.max_steps / len(parts.data.training)
    steps = "step" if trainer.max_steps == 1 else "steps"
    say(f"run directory: {run.path}")
    say(f"corpus: {parts.data.corpus.description}, {parts.data.corpus.n_bytes:,} bytes")
    say(f"model: {trainer.model.n_parameters:,} parameters")
    say(
        f"training: {trainer.max_steps:,} {steps} of {n_tokens:,} tokens, "
        f"{passes:.3g} passes over the training part; seed {trainer.seed}"
    )
    if trainer.step:
        say(f"going on after step {trainer.step:,}")
    elif parts.data.initial is not None:
        say(f"beginning with the weights of {values.init_from}")


def _announce_config(config: ResolvedConfig, name: str, logs_all: bool) -> None:
    table = [row for section in rows(config).values() for row in section]
    n_changed = sum(row.differs for row in table)
    say(f"configuration {name}: {n_changed} of {len(table)} values differ from the default")
    for row in table:
        if row.differs or logs_all:
            say(f"  {row.key}: {row.value} ({row.source})")


def _train(run: RunDirectory, trainer: Trainer) -> TrainingResult:
    with memory_explained():
        return trainer.train(run, training_progress(trainer.step + 1, trainer.max_steps))


@contextlib.contextmanager
def _ending_recorded(run: RunDirectory, trainer: Trainer) -> Iterator[None]:
    """Notes in the manifest how a run ended, and passes on what ended it."""
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
            _record_end(run, outcome=outcome, reason=reason, end=_now(), **steps)
        except LabError as error:
            # Where something went wrong before, that is what a person has to read.
            if outcome == "completed":
                warn(f"{error.message}; the run is {outcome} all the same")
        run.follower.ended(outcome, trainer.step)
        _draw(run, outcome)


def _draw(run: RunDirectory, outcome: str) -> None:
    """Writes the page of a run that has ended, however it did."""
    try:
        run.require_own()
        say(f"report: {write_report_of(run.path)}")
    except Exception as error:  # Whatever is wrong with a picture of a run, the run is not.
        is_told = isinstance(error, LabError)
        reason = error.message if is_told else f"{type(error).__name__}: {error}"
        # Where something went wrong before, that is what a person has to read.
        if outcome != "failed":
            warn(f"there is no report of this run: {reason}")


def _record_end(run: RunDirectory, **fields: Any) -> None:
    """Sets fields of the manifest, whatever signals come in the meantime, but for a third."""
    try:
        with StopSignals():
            run.update_manifest(**fields)
    except StoppedAtOnce:
        run.update_manifest(**fields)
        raise


def _finish(run: RunDirectory, parts: Parts, result: TrainingResult) -> None:
    if parts.config.values.early_stopping_evaluations is not None:
        result = _best_result(run, parts, result)
    for name, text in zip(headings(result.samples or ()), result.samples or (), strict=True):
        say(f"{name}:\n{printable(text)}")
    say(f"final validation loss: {result.evaluation}")
    say(f"run directory: {run.path}")


def _best_result(run: RunDirectory, parts: Parts, last: TrainingResult) -> TrainingResult:
    """The result of the best checkpoint, of a run that may stop early."""
    if parts.trainer.has_stopped_early:
        say(f"stopped early after step {last.step:,}: the validation loss gets no better")
    checkpoint = best_checkpoint(run.checkpoints, warn)
    values = parts.config.values
    is_sampled = values.sampling_cadence is not None
    if checkpoint is None:
        return last
    if checkpoint.step == last.step and (last.samples or not is_sampled):
        return last
    say(f"the result is the checkpoint of step {checkpoint.step:,}")
    model, tokenizer = restored(checkpoint, parts.config)
    with memory_explained():
        evaluation = Evaluator(model, parts.data.validation, tokenizer, values.precision)()
        samples = Sampler(model, tokenizer)() if is_sampled else None
    return TrainingResult(checkpoint.step, evaluation, samples)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
