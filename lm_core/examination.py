"""Examining a run: the loss of a checkpoint on a text, and what its model makes up."""

import math
import sys
from collections.abc import Sequence

import numpy as np
import torch

from lm_core.assembly import sources_named
from lm_core.compute import AUTO, chosen_device
from lm_core.config.binding import bind
from lm_core.config.files import display_name
from lm_core.config.hyperparameters import KEYS
from lm_core.config.resolution import ResolvedConfig
from lm_core.config.table import gin_parameter
from lm_core.data.corpus import load_corpus
from lm_core.data.splitting import Split
from lm_core.data.token_store import encode_corpus, encode_split
from lm_core.data.tokenizer import Tokenizer, depends_on_documents
from lm_core.errors import DivergenceError, InputError
from lm_core.evaluation import Evaluator
from lm_core.hooks import Hooks, check_hooks
from lm_core.memory import memory_explained
from lm_core.model.transformer import Transformer
from lm_core.output import warn
from lm_core.record import RunDirectory
from lm_core.recorded_config import read_record, resolve_upon
from lm_core.request import Request
from lm_core.results import result_of
from lm_core.sampling import Sampler, written_out
from lm_core.training.checkpoint import Checkpoint
from lm_core.training.restoring import restored_model


def evaluate(request: Request) -> None:
    """Prints the loss of a run's checkpoint, the newest where no other is asked for.

    Raises:
        LabError: Anything a person should read.
    """
    run, config, checkpoint = open_run(request)
    _refuse_other_bindings(run, config, "evaluate", [gin_parameter("text_key")])
    model, tokenizer = restored(checkpoint, config)
    with memory_explained():
        tokens, name = _tokens_to_evaluate(request, run, config, tokenizer)
        evaluation = Evaluator(model, tokens, tokenizer, config.values.precision)()
    if not math.isfinite(evaluation.loss):
        message = f"the checkpoint of step {checkpoint.step} gives no finite loss on {name}"
        raise DivergenceError(f"{message}, but {evaluation.loss}; --checkpoint takes another one")
    print(f"checkpoint: step {checkpoint.step:,} of {run.path}")
    print(f"text: {name}, {evaluation.n_targets:,} targets")
    print(f"validation loss: {evaluation}")


def _tokens_to_evaluate(
    request: Request, run: RunDirectory, config: ResolvedConfig, tokenizer: Tokenizer
) -> tuple[np.ndarray, str]:
    verify, needed = request.verify_corpus, config.values.max_seq_len + 1
    text_key = config.values.text_key
    if request.corpus is not None:
        corpus = load_corpus(request.corpus, verify, text_key=text_key)
        tokens = encode_corpus(corpus, tokenizer, verify=verify)
        if len(tokens) < needed:
            message = f"{corpus.description} has {len(tokens):,} tokens"
            raise InputError(f"{message}; one window of this run's model needs {needed:,}")
        return tokens, corpus.description
    corpus = load_corpus(config.values.corpus, verify, text_key=text_key)
    with_documents = depends_on_documents(tokenizer.kind, config.values.split_by)
    if not corpus.is_recorded_in(run.manifest["corpus"], with_documents):
        message = f"the text of {corpus.description} is another one than the run was trained on"
        raise InputError(f"{message}; --corpus evaluates on any text")
    split = Split(corpus, config.values.train_ratio, config.values.split_by)
    validation = encode_split(split, tokenizer, verify=verify)[1]
    return validation, f"the validation part of {corpus.description}"


def sample(request: Request) -> None:
    """Writes the prompt and what a run's checkpoint makes of it to standard output, once or often.

    Raises:
        LabError: Anything a person should read.
    """
    run, config, checkpoint = open_run(request)
    sampler = [gin_parameter(key) for key in KEYS if gin_parameter(key).startswith("Sampler.")]
    _refuse_other_bindings(run, config, "sample", sampler)
    model, tokenizer = restored(checkpoint, config)
    bind(config)
    with sources_named(config), memory_explained():
        texts = Sampler(model, tokenizer)()
    sys.stdout.write(written_out(texts, for_a_terminal=sys.stdout.isatty()))


def _refuse_other_bindings(
    run: RunDirectory, config: ResolvedConfig, mode: str, taken: Sequence[str]
) -> None:
    """Refuses values from outside the run's record that a mode has no use for.

    Args:
        run: The run.
        config: Its configuration, with what is changed in it.
        mode: The mode.
        taken: The gin parameters that it takes.
    """
    record = display_name(run.path / "config.yaml")
    for key in KEYS:
        source, parameter = config.sources[key], gin_parameter(key)
        if source.place not in (record, "default") and parameter not in taken:
            message = f"{source}: {parameter} does not apply to --mode={mode}"
            raise InputError(f"{message}, which takes {', '.join(taken)}")


def open_run(request: Request) -> tuple[RunDirectory, ResolvedConfig, Checkpoint]:
    """The run that is asked for, its configuration with what is changed in it, and its checkpoint.

    Raises:
        LabError: There is none, or it is not as it was recorded.
    """
    if request.run_dir is None:
        raise InputError("--run_dir is missing: it names the run to look at, such as runs/latest")
    run = RunDirectory.open(request.run_dir)
    read_record(run)
    config = resolve_upon(run, request.config, check_hooks)
    return run, config, result_of(run, config.values, request.checkpoint)


def restored(checkpoint: Checkpoint, config: ResolvedConfig) -> tuple[Transformer, Tokenizer]:
    """The model and tokenizer of a checkpoint, with its hooks."""
    with memory_explained():
        model, tokenizer = restored_model(checkpoint)
        model.to(_device_here(config))
    with sources_named(config):
        hooks = Hooks(config.values.hooks, model)
        if checkpoint.step:
            # Before the first step, hooks are as they are made, and nothing of them was saved.
            hooks.load_state(checkpoint.hooks)
    return model.eval(), tokenizer


def _device_here(config: ResolvedConfig) -> torch.device:
    """The run's device, or another where a run is looked at on a machine without it."""
    try:
        return chosen_device(config.values.device)
    except InputError as error:
        device = chosen_device(AUTO)
        warn(f"{error.message}; the run is looked at on the {device.type}")
        return device
