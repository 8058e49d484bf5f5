"""From a resolved configuration to everything that a run is made of, through gin."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lm_core.compute import AUTO, chosen_device, chosen_precision
from lm_core.config.binding import bind
from lm_core.config.resolution import ResolvedConfig
from lm_core.config.statements import Source
from lm_core.config.training_config import TrainingConfig
from lm_core.data.batches import require_window
from lm_core.data.corpus import Corpus, absolute_path, load_corpus
from lm_core.data.splitting import split_corpus
from lm_core.data.token_store import encode_split
from lm_core.data.tokenizer import Tokenizer, build_tokenizer
from lm_core.errors import InputError
from lm_core.evaluation import Evaluator
from lm_core.initial_weights import InitialWeights, load_initial_weights
from lm_core.memory import memory_explained
from lm_core.model.transformer import Transformer
from lm_core.output import warn
from lm_core.parallel.group import Group
from lm_core.randomness import draw_seed
from lm_core.recorded_config import resolved_path
from lm_core.sampling import Sampler
from lm_core.training.schedule import end_of_decay
from lm_core.training.trainer import Trainer

# A process without others.
_ALONE = Group()


class Data(NamedTuple):
    """The text of a run and its tokens.

    Attributes:
        corpus: The text.
        tokenizer: What made tokens of it.
        training: The tokens that are trained on, ``(n_tokens,)``.
        validation: The tokens that are held out, ``(n_tokens,)``.
        initial: The weights that training begins with; None: they are random.
    """

    corpus: Corpus
    tokenizer: Tokenizer
    training: np.ndarray
    validation: np.ndarray
    initial: InitialWeights | None = None


def completed(config: ResolvedConfig) -> ResolvedConfig:
    """The configuration with what only the start of a run can fill in.

    That is the seed, the precision, the end of the learning rate's decay, and absolute paths.

    Args:
        config: A checked configuration.

    Raises:
        InputError: The device is not there; says where it was set.
    """
    if config.values.precision == AUTO:
        with sources_named(config):
            device = chosen_device(config.values.device)
        source = Source(f"auto on this {device.type}")
        config = config.with_value("precision", chosen_precision(AUTO, device), source)
    if config.values.seed is None:
        config = config.with_value("seed", draw_seed(), Source("drawn"))
    values = config.values
    if values.decay_steps is None and values.learning_rate_schedule != "constant":
        # A run that goes on with more steps keeps its curve.
        end = end_of_decay(None, values.warmup_steps, values.max_steps)
        source = Source("max_steps" if end == values.max_steps else "warmup_steps")
        config = config.with_value("decay_steps", end, source)
    # The record has to find its files again from any working directory.
    if values.corpus is not None:
        path = absolute_path(values.corpus)
        config = config.with_value("corpus", path, config.sources["corpus"])
    if values.tokenizer_file is not None:
        path = os.path.abspath(Path(values.tokenizer_file).expanduser())  # noqa: PTH100 -- keeps links
        config = config.with_value("tokenizer_file", path, config.sources["tokenizer_file"])
    if values.init_from is not None:
        path = resolved_path(values.init_from)
        config = config.with_value("init_from", path, config.sources["init_from"])
    return config


def load_data(
    config: ResolvedConfig,
    accept: Callable[[Corpus], None] | None = None,
    verify_corpus: bool = False,
    tokenizer: Tokenizer | None = None,
    begun_with: InitialWeights | None = None,
) -> Data:
    """The text of a configuration and its tokens; the configuration becomes gin's.

    Args:
        config: The configuration.
        accept: Called with the text before anything is made of it; may refuse it.
        verify_corpus: Whether to believe nothing that is kept about the text.
        tokenizer: That of a run that goes on; None: the one that the configuration describes.
        begun_with: Of a run that goes on, what it began with; None: what the configuration says.

    Raises:
        InputError: There is no such text, the tokenizer does not take it, or it is too short.
    """
    bind(config)
    with sources_named(config), memory_explained():
        corpus = load_corpus(verify=verify_corpus)
    if accept is not None:
        accept(corpus)
    initial = _initial_weights(config) if begun_with is None else begun_with
    with sources_named(config), memory_explained():
        split = split_corpus(corpus)
        if tokenizer is None and initial is not None:
            tokenizer = initial.tokenizer
        if tokenizer is None:
            tokenizer = build_tokenizer(split, verify=verify_corpus)
            _warn_of_another_size(config, tokenizer)
        training, validation = encode_split(split, tokenizer, verify=verify_corpus)
        require_window(training, config.values.max_seq_len, "training")
        require_window(validation, config.values.max_seq_len, "validation")
    return Data(corpus, tokenizer, training, validation, initial)


def _initial_weights(config: ResolvedConfig) -> InitialWeights | None:
    """The weights of the configuration that is gin's, if they are to be of another run."""
    with sources_named(config), memory_explained():
        initial = load_initial_weights()
    if initial is not None:
        initial.require_fit(config)
    return initial


def _warn_of_another_size(config: ResolvedConfig, tokenizer: Tokenizer) -> None:
    """Tells where the vocabulary has not the size that was asked for."""
    values, asked = config.values, config.values.vocab_size
    place = f"vocab_size {asked} ({config.sources['vocab_size']})"
    if values.tokenizer == "bpe" and values.tokenizer_file is None:
        if tokenizer.vocab_size < asked:
            found = f"the text gives no more than {tokenizer.vocab_size:,} tokens"
            warn(f"{place}: {found}: no pair of them stands in it twice")
    elif asked != TrainingConfig().vocab_size:
        what = f"tokenizer {values.tokenizer}"
        what = what if values.tokenizer_file is None else "tokenizer_file"
        warn(f"{place} means nothing with {what}, which has {tokenizer.vocab_size:,} tokens")


def build_trainer(config: ResolvedConfig, data: Data, group: Group = _ALONE) -> Trainer:
    """Model, evaluator, sampler and trainer of the configuration that is gin's.

    Args:
        config: The configuration.
        data: Its text.
        group: The processes that train together.

    Raises:
        InputError: A part cannot be built as configured; says where the value was set.
        MachineError: The machine has too little memory.
    """
    with sources_named(config), memory_explained():
        weights = {}
        if config.values.init_from is not None:
            # The first process has them, unless the run goes on from a checkpoint of its own.
            found = data.initial.cut_to(config.values.max_seq_len) if data.initial else {}
            weights = group.shared_tensors(found)
        seed = None if weights else config.values.seed
        model = Transformer(data.tokenizer.vocab_size, seed=seed)
        if weights:
            model.load(weights)
        validated = data.validation, data.tokenizer, config.values.precision
        evaluator = Evaluator(model, *validated, group)
        sampler = Sampler(model, data.tokenizer) if _is_sampled(config) else None
        return Trainer(model, data.training, evaluator, sampler, data.tokenizer, group=group)


def _is_sampled(config: ResolvedConfig) -> bool:
    """Whether the prompt has to work: not where it is the default's and nobody asks for samples.

    A corpus in another script trains with a tokenizer that knows no "The".
    """
    values, default = config.values, TrainingConfig()
    return values.sampling_cadence is not None or values.sampling_prompt != default.sampling_prompt


@contextlib.contextmanager
def sources_named(config: ResolvedConfig) -> Iterator[None]:
    """Puts the sources in front of what an error says about hyperparameters.

    Raises:
        InputError: There was one.
    """
    try:
        yield
    except InputError as error:
        raise InputError(config.with_places(error.message)) from error
