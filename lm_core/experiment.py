"""The wiring: from a request to corpus, tokenizer, model and trainer, and to what is printed."""

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lm_core.assembly import Data, build_trainer, completed, load_data, sources_named
from lm_core.compute import chosen_device, threads_of
from lm_core.config.rendering import config_hash, gin_text
from lm_core.config.resolution import ResolvedConfig, resolve
from lm_core.data.tokenizer import tokenizer_from_dict
from lm_core.ending import ending_recorded, tell_result, time_now
from lm_core.errors import InputError
from lm_core.hooks import check_hooks
from lm_core.initial_weights import (
    FINE_TUNING,
    InitialWeights,
    save_start,
    weights_begun_with,
)
from lm_core.inspection import announce_config, check_fit
from lm_core.manifest import describe_world
from lm_core.memory import memory_explained, require_memory
from lm_core.output import say
from lm_core.parallel.group import Group, connected, losses_told
from lm_core.parallel.meeting import ALONE, Meeting
from lm_core.parallel.world import World
from lm_core.progress import training_progress
from lm_core.record import LATEST, RunDirectory, default_run_path, refuse_occupied
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
from lm_core.request import Request
from lm_core.resumption import failures_told, follow, go_on, take_up
from lm_core.run_lock import RunLock
from lm_core.tensorboard_events import TensorBoardEvents, require_tensorboard
from lm_core.training.reduction import require_shareable
from lm_core.training.signals import StopSignals
from lm_core.training.trainer import Trainer, TrainingResult


@dataclass(frozen=True)
class Parts:
    """Everything a training run is made of, built and checked, with nothing written yet."""

    config: ResolvedConfig
    data: Data
    trainer: Trainer


def train(request: Request, meeting: Meeting = ALONE) -> None:
    """Trains a model and leaves a complete record of it.

    Where several processes were started, they train it together: the first one decides, writes and
    prints, and the others do as it does.

    Args:
        request: What is asked for.
        meeting: The processes.

    Raises:
        LabError: Anything a person should read; nothing half-made is left behind.
    """
    if request.tensorboard:
        require_tensorboard()
    if meeting.world.is_first:
        _lead(request, meeting)
    else:
        _follow(request, meeting)


def _lead(request: Request, meeting: Meeting) -> None:
    """A run from its first to its last line, in the first process or the only one."""
    if meeting.remembered_run is not None:
        request = replace(request, run_dir=Path(meeting.remembered_run), resume=True)
    with RunLock() as lock:
        run = _run_to_resume(request, lock)
        if run is None and request.run_dir is not None:
            # A large text may take long to read.
            refuse_occupied(request.run_dir)
        recorded = read_record(run) if run else None
        begun_with = weights_begun_with(run, recorded.values.init_from) if run else None
        config = _config_of(run, recorded, request)
        _require_shareable(config, meeting.world)
        data = _data_of(config, request, meeting.world, run, recorded, begun_with)
        meeting.share(
            {
                "config": config.to_plain(),
                "tokenizer": data.tokenizer.to_dict(),
                "corpus": data.corpus.sha256,
                "resumes": run is not None,
                "command_line": list(request.command_line),
            }
        )
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
                    ending_recorded(run, parts.trainer),
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
        tell_result(run, config, data.validation, parts.trainer, result)


def _follow(request: Request, meeting: Meeting) -> None:
    """The share of another process in a run."""
    told = meeting.shared()
    if told["command_line"] != list(request.command_line):
        given, first = (shlex.join(line) for line in (request.command_line, told["command_line"]))
        message = "it was started with other words than the first one"
        raise InputError(f"{message}: {given}, not {first}")
    config = ResolvedConfig.from_plain(told["config"])
    tokenizer = tokenizer_from_dict(told["tokenizer"])
    # The weights that a run begins with come from the first process, which has found them.
    begun_with = InitialWeights(tokenizer, {}, {}, {})
    data = load_data(config, None, request.verify_corpus, tokenizer, begun_with)
    if data.corpus.sha256 != told["corpus"]:
        text = f"the text of {data.corpus.description}"
        raise InputError(f"{text} is another one here than where the first process is")
    with _together(meeting, config) as (group, shield):
        trainer = build_trainer(config, data, group)
        if told["resumes"]:
            follow(trainer, group)
        shield.act_on_received()
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
    alone = meeting.world.is_alone
    with (
        contextlib.nullcontext(StopSignals()) if alone else StopSignals() as shield,
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
    run: RunDirectory | None,
    recorded: Recorded | None,
    begun_with: InitialWeights | None,
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
        "start": time_now(),
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
    if run.is_imported:
        message = f"{run.path} was imported: it has no text and no steps to go on with"
        further = shlex.quote(f"--config={run.path / FINE_TUNING}")
        raise InputError(f"{message}; {further} trains it further, in another --run_dir")
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
    say(f"corpus: {parts.data.corpus.description}, {parts.data.corpus.extent}")
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
