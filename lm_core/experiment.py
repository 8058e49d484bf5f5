"""The wiring: from a request to corpus, tokenizer, model and trainer, and to what is printed."""

import contextlib
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from lm_core.assembly import Parts, build, completed, sources_named
from lm_core.config.binding import bind
from lm_core.config.files import display_name
from lm_core.config.hyperparameters import KEYS
from lm_core.config.rendering import config_hash, gin_text, rows
from lm_core.config.resolution import ResolvedConfig, resolve
from lm_core.config.table import gin_parameter
from lm_core.data.corpus import load_corpus, split_corpus
from lm_core.data.token_store import encode_corpus
from lm_core.data.tokenizer import Tokenizer, tokenizer_from_dict
from lm_core.errors import (
    DivergenceError,
    InputError,
    LabError,
    MachineError,
    StoppedError,
)
from lm_core.evaluation import Evaluator
from lm_core.hooks import Hooks, check_hooks
from lm_core.inspection import check_fit
from lm_core.manifest import describe_world
from lm_core.memory import memory_explained
from lm_core.model.transformer import Transformer
from lm_core.output import say, warn
from lm_core.progress import training_progress
from lm_core.record import RunDirectory, default_run_path
from lm_core.recorded_config import (
    read_record,
    record_sources,
    record_yaml,
    resolve_upon,
    with_first_sources,
)
from lm_core.request import Request
from lm_core.resumption import take_up
from lm_core.sampling import Sampler, printable
from lm_core.training.checkpoint import (
    Checkpoint,
    newest_sound_checkpoint,
)
from lm_core.training.trainer import Trainer, TrainingResult


def train(request: Request) -> None:
    """Trains a model and leaves a complete record of it.

    Raises:
        LabError: Anything a person should read; nothing half-made is left behind.
    """
    run = _run_to_resume(request)
    recorded = read_record(run) if run else None
    if run is None:
        config = resolve(request.config, check_hooks, check_fit)
    else:
        config = resolve_upon(run, request.config, check_hooks, check_fit)
    parts = build(completed(config))
    if run is not None:
        parts = replace(parts, config=with_first_sources(parts.config, run))
    table = parts.config.values.to_dict()
    manifest = {
        **describe_world(request.config.allowed_imports),
        "command_line": list(request.command_line),
        "corpus": {
            "path": parts.data.corpus.path,
            "sha256": parts.data.corpus.sha256,
            "bytes": parts.data.corpus.n_bytes,
        },
        "config_hash": config_hash(table, parts.data.corpus.sha256),
        "sources": record_sources(parts.config),
        "n_parameters": parts.trainer.model.n_parameters,
        "start": _now(),
        "end": None,
        "outcome": "running",
    }
    if run is None or recorded is None:
        run = _create_run(request, parts.config, manifest)
    else:
        take_up(run, recorded, parts.config, parts.data.corpus, parts.trainer, manifest)
    _announce(run, parts)
    _announce_config(parts.config, manifest["config_hash"], request.logs_all)
    _finish(run, _train_and_record(run, parts.trainer))


def _run_to_resume(request: Request) -> RunDirectory | None:
    if not request.resume:
        return None
    if request.run_dir is None:
        raise InputError("--resume needs --run_dir, to know which run to go on with")
    if not (request.run_dir / "manifest.json").exists():
        return None
    return RunDirectory.open(request.run_dir)


def _create_run(request: Request, config: ResolvedConfig, manifest: dict[str, Any]) -> RunDirectory:
    files = request.config.files
    name = Path(files[-1].name).stem if files else "base"
    while True:
        path = request.run_dir or default_run_path(name)
        try:
            run = RunDirectory.create(path, record_yaml(config, path), gin_text(config), manifest)
            break
        except InputError:
            # Another run that started in the same second may have taken the name: then the next.
            if request.run_dir or not path.exists():
                raise
    if path.resolve().parent == Path("runs").resolve():
        run.link_latest()
    return run


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


def _announce_config(config: ResolvedConfig, name: str, logs_all: bool) -> None:
    table = [row for section in rows(config).values() for row in section]
    n_changed = sum(row.differs for row in table)
    say(f"configuration {name}: {n_changed} of {len(table)} values differ from the default")
    for row in table:
        if row.differs or logs_all:
            say(f"  {row.key}: {row.value} ({row.source})")


def _train_and_record(run: RunDirectory, trainer: Trainer) -> TrainingResult:
    outcome = "failed"
    try:
        with memory_explained():
            first_step = trainer.step + 1
            progress = training_progress(first_step, trainer.max_steps)
            result = trainer.train(run, progress)
        outcome = "completed"
    except StoppedError as error:
        outcome = f"stopped by {signal.Signals(error.signal_number).name}"
        raise
    except DivergenceError:
        outcome = "diverged"
        raise
    except KeyboardInterrupt:
        outcome = "stopped at once"
        raise
    finally:
        # What went wrong first is what a person has to read.
        with contextlib.suppress(LabError):
            run.update_manifest(outcome=outcome, end=_now(), last_step=trainer.step)
    return result


def _finish(run: RunDirectory, result: TrainingResult) -> None:
    if result.sample is not None:
        say(f"sample:\n{printable(result.sample)}")
    say(f"final validation loss: {result.evaluation}")
    say(f"run directory: {run.path}")


def evaluate(request: Request) -> None:
    """Prints the loss of a run's newest checkpoint.

    Raises:
        LabError: Anything a person should read.
    """
    run, config, checkpoint = _open_run(request)
    model, tokenizer = _restored(checkpoint, config)
    with memory_explained():
        tokens, name = _tokens_to_evaluate(request, run, config, tokenizer)
        evaluation = Evaluator(model, tokens, tokenizer)()
    print(f"checkpoint: step {checkpoint.step:,} of {run.path}")
    print(f"text: {name}, {evaluation.n_targets:,} targets")
    print(f"validation loss: {evaluation}")


def _tokens_to_evaluate(
    request: Request, run: RunDirectory, config: ResolvedConfig, tokenizer: Tokenizer
) -> tuple[np.ndarray, str]:
    if request.corpus is not None:
        corpus = load_corpus(request.corpus)
        tokens, needed = encode_corpus(corpus, tokenizer), config.values.max_seq_len + 1
        if len(tokens) < needed:
            message = f"{corpus.description} has {len(tokens):,} tokens"
            raise InputError(f"{message}; one window of this run's model needs {needed:,}")
        return tokens, corpus.description
    corpus = load_corpus(config.values.corpus)
    if corpus.sha256 != run.manifest["corpus"]["sha256"]:
        message = f"the text of {corpus.description} is another one than the run was trained on"
        raise InputError(f"{message}; --corpus evaluates on any text")
    tokens = encode_corpus(corpus, tokenizer)
    validation = split_corpus(tokens, train_ratio=config.values.train_ratio)[1]
    return validation, f"the validation part of {corpus.description}"


def sample(request: Request) -> None:
    """Writes the prompt and what the newest checkpoint makes of it to standard output.

    Raises:
        LabError: Anything a person should read.
    """
    run, config, checkpoint = _open_run(request)
    _refuse_other_bindings(run, config)
    model, tokenizer = _restored(checkpoint, config)
    bind(config)
    with sources_named(config), memory_explained():
        text = Sampler(model, tokenizer)()
    # A program gets the exact text and nothing else, a person gets what a terminal can show.
    sys.stdout.write(printable(text) + "\n" if sys.stdout.isatty() else text)


def _refuse_other_bindings(run: RunDirectory, config: ResolvedConfig) -> None:
    """Refuses values from outside the run's record that a sample has no use for."""
    record = display_name(run.path / "config.yaml")
    sampler = [gin_parameter(key) for key in KEYS if gin_parameter(key).startswith("Sampler.")]
    for key in KEYS:
        source, parameter = config.sources[key], gin_parameter(key)
        if source.place not in (record, "default") and parameter not in sampler:
            message = f"{source}: {parameter} does not apply to --mode=sample"
            raise InputError(f"{message}, which takes {', '.join(sampler)}")


def _open_run(request: Request) -> tuple[RunDirectory, ResolvedConfig, Checkpoint]:
    if request.run_dir is None:
        raise InputError("--run_dir is missing: it names the run to look at, such as runs/latest")
    run = RunDirectory.open(request.run_dir)
    read_record(run)
    config = resolve_upon(run, request.config, check_hooks)
    checkpoint = newest_sound_checkpoint(run.checkpoints, warn)
    if checkpoint is None:
        raise InputError(f"{run.path} holds no checkpoint yet")
    return run, config, checkpoint


def _restored(checkpoint: Checkpoint, config: ResolvedConfig) -> tuple[Transformer, Tokenizer]:
    """The model and tokenizer of a checkpoint, as they are stored there and nowhere else."""
    try:
        with memory_explained():
            model = Transformer(**checkpoint.state["model"], seed=None)
        model.load_state_dict(checkpoint.model)
        tokenizer = tokenizer_from_dict(checkpoint.state["tokenizer"])
        if tokenizer.vocab_size != model.vocab_size:
            raise ValueError(f"its {tokenizer.kind} tokenizer does not fit its model")
    except MachineError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        words = " ".join(str(error).split())
        raise MachineError(f"step {checkpoint.step}: no checkpoint of this lab: {words}") from error
    with sources_named(config):
        Hooks(config.values.hooks, model).load_state(checkpoint.hooks)
    return model.eval(), tokenizer


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
