"""The wiring: from a request to corpus, tokenizer, model and trainer, and to what is printed."""

import contextlib
import shlex
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from lm_core.assembly import Data, build_trainer, completed, load_data, sources_named
from lm_core.compute import chosen_device, threads_of
from lm_core.config.rendering import config_hash, gin_text
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
from lm_core.initial_weights import InitialWeights, save_start, weights_begun_with
from lm_core.inspection import announce_config, check_fit
from lm_core.manifest import describe_world
from lm_core.memory import memory_explained, require_memory
from lm_core.output import say, warn
from lm_core.parallel.group import Group, connected, losses_told
from lm_core.parallel.meeting import Meeting, meeting_here
from lm_core.parallel.world import World, world_here
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
    require_recorded_tokenizer,
    require_same_experiment,
    resolve_upon,
    tokenizer_sha256,
    weights_sha256,
    with_first_sources,
)
from lm_core.report.reporting import draw_ended
from lm_core.request import Request
from lm_core.resumption import failures_told, follow, go_on, take_up
from lm_core.run_lock import RunLock
from lm_core.sampling import Sampler, headings, printable
from lm_core.tensorboard_events import TensorBoardEvents, require_tensorboard
from lm_core.training.checkpoint_folder import best_checkpoint
from lm_core.training.reduction import require_shareable
from lm_core.training.signals import StopSignals
from lm_core.training.trainer import Trainer, TrainingResult


@dataclass(frozen=True)
class Parts:
    """Everything a training run is made of, built and checked, with nothing written yet."""

    config: ResolvedConfig
    data: Data
    trainer: Trainer


def train(request: Request) -> None:
    """Trains a model and leaves a complete record of it.

    Where several processes were started, they train it together: the first one decides, writes and
    prints, and the others do as it does.

    Raises:
        LabError: Anything a person should read; nothing half-made is left behind.
    """
    if request.tensorboard:
        require_tensorboard()
    with meeting_here(world_here()) as meeting:
        if meeting.world.is_first:
            _lead(request, meeting)
        else:
            _follow(request, meeting)


def _lead(request: Request, meeting: Meeting) -> None:
    """A run from its first to its last line, in the first process or the only one."""
    meeting.require_a_way_on()
    if meeting.remembered_run is not None:
        request = replace(request, run_dir=Path(meeting.remembered_run), resume=True)
    with RunLock() as lock:
        run = _run_to_resume(request, lock)
        recorded = read_record(run) if run else None
        begun_with = weights_begun_with(run, recorded.values.init_from) if run else None
        config = _config_of(run, recorded, request)
        _require_shareable(config, meeting.world)
        meeting.share(
            {
                "config": config.to_plain(),
                "resumes": run is not None,
                "tokenizer": run and tokenizer_sha256(run.manifest),
                "begun_with": begun_with and begun_with.shared(),
                "command_line": list(request.command_line),
            }
        )
        data = _data_of(config, request, meeting.world, run, recorded, begun_with)
        config = with_first_sources(config, run) if run else config
        with _together(meeting, config) as (group, shield):
            parts = Parts(config, data, build_trainer(config, data, group))
            manifest = _manifest(request, parts, group)
            goes_on = take_up(run, parts.trainer, manifest, group) if run else {}
            # Once the record says that the run runs, a signal must not keep its end out of it.
            with StopSignals() as signals:
                if run is None:
                    run = _create_run(request, parts, manifest, lock)
                meeting.remember_run(str(run.path.absolute()))
                with (
                    _ending_recorded(run, parts.trainer),
                    failures_told(parts.trainer),
                    losses_told(meeting),
                ):
                    if recorded is not None:
                        run.update_manifest(**goes_on)
                    if data.initial is not None and parts.trainer.saved_step is None:
                        save_start(run, parts.trainer.model.arguments, data.initial, config.values)
                    signals.let_through()
                    if recorded is not None:
                        go_on(run, recorded, parts.config, parts.trainer, manifest)
                    if request.tensorboard:
                        run.follower = TensorBoardEvents(run, parts.config.values.to_dict())
                    _announce(run, parts, group)
                    announce_config(parts.config, manifest["config_hash"], request.logs_all)
                    shield.act_on_received()
                    result = _train(run, parts.trainer)
        _finish(run, parts, result)


def _follow(request: Request, meeting: Meeting) -> None:
    """The share of another process in a run."""
    told = meeting.shared()
    if told["command_line"] != list(request.command_line):
        given, first = (shlex.join(line) for line in (request.command_line, told["command_line"]))
        raise InputError(
            f"it was started with other words than the first one: {given}, not {first}"
        )
    config = ResolvedConfig.from_plain(told["config"])
    begun_with = InitialWeights.from_shared(told["begun_with"])
    data = _data_of(config, request, meeting.world, begun_with=begun_with)
    require_recorded_tokenizer(data.tokenizer, told["tokenizer"])
    with _together(meeting, config) as (group, _):
        trainer = build_trainer(config, data, group)
        if told["resumes"]:
            follow(trainer, group)
        with memory_explained():
            trainer.train()


@contextlib.contextmanager
def _together(meeting: Meeting, config: ResolvedConfig) -> Iterator[tuple[Group, StopSignals]]:
    """Connects the processes of a run, once all of them have read its text.

    Yields:
        The processes, and the signals that came while they were not acted on: a launcher sends one
        to all processes as soon as one has failed, and what has happened is told all the same.
    """
    meeting.meet()
    is_shielded = meeting.world.is_first and not meeting.world.is_alone
    with (
        StopSignals() if is_shielded else contextlib.nullcontext(StopSignals()) as shield,
        threads_of(config.values.exact_reduction),
        sources_named(config),
        connected(meeting, chosen_device(config.values.device)) as group,
    ):
        yield group, shield


def _config_of(
    run: RunDirectory | None, recorded: Recorded | None, request: Request
) -> ResolvedConfig:
    if run is None or recorded is None:
        return completed(resolve(request.config, check_hooks, check_fit))
    config = resolve_upon(run, request.config, check_hooks, check_fit)
    return completed(as_begun(config, recorded.values.init_from))


def _require_shareable(config: ResolvedConfig, world: World) -> None:
    values = config.values
    sharing = values.batch_size, values.parallelism, values.exact_reduction
    with sources_named(config):
        require_shareable(world.n_processes, *sharing)


def _data_of(
    config: ResolvedConfig,
    request: Request,
    world: World,
    run: RunDirectory | None = None,
    recorded: Recorded | None = None,
    begun_with: InitialWeights | None = None,
) -> Data:
    """The text of a run; of one that goes on, once it is sure that it is the same experiment."""
    accept = partial(require_same_experiment, run, recorded, config) if run else None
    tokenizer = recorded_tokenizer(run) if run else None
    data = load_data(config, accept, request.verify_corpus, tokenizer, begun_with)
    require_memory(config.values, data.tokenizer.vocab_size, world=world)
    return data


def _manifest(request: Request, parts: Parts, group: Group) -> dict[str, Any]:
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
            group,
            parts.config.values.exact_reduction,
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


def _announce(run: RunDirectory, parts: Parts, group: Group) -> None:
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
    if not group.is_alone:
        way = "ddp" if values.parallelism == "auto" else values.parallelism
        way = "exact_reduction" if values.exact_reduction else way
        say(f"processes: {group.n_processes}, by {way}")
    if trainer.step:
        say(f"going on after step {trainer.step:,}")
    elif parts.data.initial is not None:
        say(f"beginning with the weights of {values.init_from}")


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
        draw_ended(run, outcome)


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
