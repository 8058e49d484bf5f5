"""The wiring: from a request to corpus, tokenizer, model and trainer, and to what is printed."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from lm_core.config.binding import bind
from lm_core.config.hyperparameters import KEYS, TrainingConfig
from lm_core.config.rendering import gin_text
from lm_core.config.resolution import ConfigSources, ResolvedConfig, resolve
from lm_core.config.statements import display_name
from lm_core.config.table import gin_parameter
from lm_core.data.corpus import Corpus, absolute_path, load_corpus, split_corpus
from lm_core.data.token_store import encode_corpus
from lm_core.data.tokenizer import Tokenizer, build_tokenizer, tokenizer_from_dict
from lm_core.errors import (
    DivergenceError,
    InputError,
    LabError,
    MachineError,
    Problem,
    StoppedError,
)
from lm_core.evaluation import Evaluator
from lm_core.hooks import Hooks, check_hooks
from lm_core.manifest import config_hash, describe_world
from lm_core.memory import memory_explained, require_memory
from lm_core.model.transformer import Transformer
from lm_core.output import say, warn
from lm_core.progress import training_progress
from lm_core.record import RunDirectory, default_run_path
from lm_core.resumption import read_record, record_yaml, take_up
from lm_core.sampling import Sampler, printable
from lm_core.training.checkpoint import (
    Checkpoint,
    newest_sound_checkpoint,
)
from lm_core.training.trainer import Trainer, TrainingResult, draw_seed


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        config: Where the configuration comes from.
        run_dir: The run directory; None: a new one under ``runs``.
        resume: Go on with the run in ``run_dir``, if there is one.
        corpus: Text to evaluate on, in place of the run's own validation part.
        command_line: The words of the command, for the record.
    """

    config: ConfigSources
    run_dir: Path | None = None
    resume: bool = False
    corpus: str | None = None
    command_line: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Parts:
    """Everything a training run is made of, built and checked, with nothing written yet."""

    config: ResolvedConfig
    corpus: Corpus
    tokenizer: Tokenizer
    n_training_tokens: int
    trainer: Trainer


def train(request: Request) -> None:
    """Trains a model and leaves a complete record of it.

    Raises:
        LabError: Anything a person should read; nothing half-made is left behind.
    """
    run = _run_to_resume(request)
    recorded = read_record(run) if run else None
    base = run.path / "config.yaml" if run else None
    config = resolve(replace(request.config, base=base), check_hooks)
    parts = _build(_completed(config))
    table = parts.config.values.model_dump()
    manifest = {
        **describe_world(),
        "command_line": list(request.command_line),
        "corpus": {
            "path": parts.corpus.path,
            "sha256": parts.corpus.sha256,
            "bytes": parts.corpus.n_bytes,
        },
        "config_hash": config_hash(table, parts.corpus.sha256),
        "n_parameters": parts.trainer.model.n_parameters,
        "start": _now(),
        "end": None,
        "outcome": "running",
    }
    if run is None or recorded is None:
        run = _create_run(request, parts.config, manifest)
    else:
        take_up(run, recorded, parts.config, parts.corpus, parts.trainer, manifest)
    _announce(run, parts)
    _finish(run, _train_and_record(run, parts.trainer))


def _run_to_resume(request: Request) -> RunDirectory | None:
    if not request.resume:
        return None
    if request.run_dir is None:
        raise InputError("--resume needs --run_dir, to know which run to go on with")
    if not (request.run_dir / "manifest.json").exists():
        return None
    return RunDirectory.open(request.run_dir)


def _completed(config: ResolvedConfig) -> ResolvedConfig:
    """The configuration with what only the start of a run can fill in."""
    if config.values.seed is None:
        config = config.with_value("seed", draw_seed(), "drawn")
    path = config.values.corpus
    if path is not None:
        # The record has to find the text again from any working directory.
        config = config.with_value("corpus", absolute_path(path), str(config.sources["corpus"]))
    return config


def _build(config: ResolvedConfig) -> _Parts:
    """All parts of a run, through gin.

    Raises:
        InputError: A part cannot be built as configured; says where the value was set.
        MachineError: The machine has too little memory.
    """
    bind(config)
    with _sources_named(config), memory_explained():
        corpus = load_corpus()
        tokenizer = build_tokenizer(corpus)
        training, validation = split_corpus(encode_corpus(corpus, tokenizer))
        require_memory(config.values, tokenizer.vocab_size)
        model = Transformer(tokenizer.vocab_size, seed=config.values.seed)
        evaluator = Evaluator(model, validation, tokenizer)
        sampler = Sampler(model, tokenizer) if _is_sampled(config) else None
        trainer = Trainer(model, training, evaluator, sampler, tokenizer)
    return _Parts(config, corpus, tokenizer, len(training), trainer)


def _is_sampled(config: ResolvedConfig) -> bool:
    """Whether the prompt has to work: not where it is the default's and nobody asks for samples.

    A corpus in another script trains with a tokenizer that knows no "The".
    """
    values, default = config.values, TrainingConfig()
    return values.sampling_cadence is not None or values.sampling_prompt != default.sampling_prompt


@contextlib.contextmanager
def _sources_named(config: ResolvedConfig) -> Iterator[None]:
    """Puts the source in front of an error that begins with the path of a hyperparameter."""
    try:
        yield
    except InputError as error:
        path, _, message = error.message.partition(": ")
        if path.replace("[", ".").split(".")[0] not in KEYS:
            raise InputError(error.message) from error
        raise InputError(config.sentence(Problem(path, message))) from error


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


def _announce(run: RunDirectory, parts: _Parts) -> None:
    values, trainer = parts.config.values, parts.trainer
    n_tokens = values.batch_size * values.max_seq_len
    passes = n_tokens * trainer.max_steps / parts.n_training_tokens
    steps = "step" if trainer.max_steps == 1 else "steps"
    say(f"run directory: {run.path}")
    say(f"corpus: {parts.corpus.description}, {parts.corpus.n_bytes:,} bytes")
    say(f"model: {trainer.model.n_parameters:,} parameters")
    say(
        f"training: {trainer.max_steps:,} {steps} of {n_tokens:,} tokens, "
        f"{passes:.3g} passes over the training part; seed {trainer.seed}"
    )
    if trainer.step:
        say(f"going on after step {trainer.step:,}")


def _train_and_record(run: RunDirectory, trainer: Trainer) -> TrainingResult:
    outcome = "failed"
    try:
        with memory_explained():
            progress = training_progress(trainer.step + 1, trainer.max_steps)
            result = trainer.train(run, progress)
        outcome = "completed"
    except StoppedError as error:
        outcome = f"stopped by {signal.Signals(error.exit_code - 128).name}"
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
    with _sources_named(config), memory_explained():
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
    config = resolve(replace(request.config, base=run.path / "config.yaml"), check_hooks)
    checkpoint = newest_sound_checkpoint(run.checkpoints, warn)
    if checkpoint is None:
        raise InputError(f"{run.path} holds no checkpoint yet")
    return run, config, checkpoint


def _restored(checkpoint: Checkpoint, config: ResolvedConfig) -> tuple[Transformer, Tokenizer]:
    """The model and tokenizer of a checkpoint, as they are stored there and nowhere else."""
    try:
        with memory_explained():
            model = Transformer(**checkpoint.state["model"])
        model.load_state_dict(checkpoint.model)
        tokenizer = tokenizer_from_dict(checkpoint.state["tokenizer"])
        if tokenizer.vocab_size != model.vocab_size:
            raise ValueError(f"its {tokenizer.kind} tokenizer does not fit its model")
    except MachineError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        words = " ".join(str(error).split())
        raise MachineError(f"step {checkpoint.step}: no checkpoint of this lab: {words}") from error
    with _sources_named(config):
        Hooks(config.values.hooks, model).load_state(checkpoint.hooks)
    return model.eval(), tokenizer


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
