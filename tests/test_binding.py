import inspect

import gin
import pytest

from lm_core.config.binding import bind
from lm_core.config.hyperparameters import KEYS
from lm_core.config.names import RUNTIME_ARGUMENTS
from lm_core.config.resolution import ResolvedConfig
from lm_core.config.statements import Source
from lm_core.config.table import gin_parameter
from lm_core.config.training_config import TrainingConfig
from lm_core.data.corpus import load_corpus, split_corpus
from lm_core.data.tokenizer import build_tokenizer
from lm_core.evaluation import Evaluation
from lm_core.model.transformer import Transformer
from lm_core.reference.tables import CONSTRUCTORS
from lm_core.sampling import Sampler
from lm_core.training.trainer import Trainer


def resolved(**values):
    sources, names = {key: Source("test") for key in KEYS}, {key: key for key in KEYS}
    return ResolvedConfig(TrainingConfig(**values), sources, names, lines={})


@pytest.mark.parametrize("key", KEYS)
def test_each_constructor_has_the_tables_default(key):
    constructor, argument = gin_parameter(key).split(".")
    parameter = inspect.signature(CONSTRUCTORS[constructor]).parameters[argument]
    default = TrainingConfig.model_fields[key].default
    assert parameter.default == default
    assert type(parameter.default) is type(default)


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_every_argument_is_a_hyperparameter_or_given_at_run_time(name):
    signature = inspect.signature(CONSTRUCTORS[name])
    arguments = {f"{name}.{argument}" for argument in signature.parameters}
    assert arguments <= RUNTIME_ARGUMENTS | {gin_parameter(key) for key in KEYS}
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds


@pytest.mark.parametrize("parameter", sorted(RUNTIME_ARGUMENTS))
def test_gin_itself_refuses_to_bind_what_is_given_at_run_time(parameter):
    constructor, argument = parameter.split(".")
    assert argument in inspect.signature(CONSTRUCTORS[constructor]).parameters
    with pytest.raises(ValueError, match="denylisted"):
        gin.bind_parameter(parameter, 1)


def test_constructors_receive_the_values():
    bind(resolved(n_layers=2, d_model=24, n_heads=3, d_ff=10, max_seq_len=5, dropout=0.25))
    arguments = Transformer(7).arguments
    expected = {
        "vocab_size": 7,
        "n_layers": 2,
        "d_model": 24,
        "n_heads": 3,
        "d_ff": 10,
        "max_seq_len": 5,
        "dropout": 0.25,
    }
    assert {name: arguments[name] for name in expected} == expected


def test_functions_receive_the_values():
    bind(resolved(train_ratio=0.5, tokenizer="byte"))
    assert len(split_corpus(range(10))[0]) == 5
    assert build_tokenizer(load_corpus()).kind == "byte"


def test_the_trainer_and_the_sampler_receive_the_values():
    bind(
        resolved(
            d_model=8,
            n_heads=2,
            d_ff=8,
            max_seq_len=8,
            n_layers=1,
            max_steps=6,
            batch_size=3,
            eval_cadence=2,
            sampling_cadence=3,
            checkpoint_cadence=4,
            learning_rate=0.5,
            seed=7,
            sampling_temperature=0.25,
            sampling_prompt="Ab",
            sampling_max_length=5,
            sampling_seed=9,
            sampling_top_k=3,
            sampling_top_p=0.5,
        )
    )
    tokenizer = build_tokenizer(load_corpus())
    model = Transformer(tokenizer.vocab_size)
    sampler = Sampler(model, tokenizer)
    names = ("temperature", "prompt", "max_length", "seed", "top_k", "top_p")
    assert [getattr(sampler, name) for name in names] == [0.25, "Ab", 5, 9, 3, 0.5]
    evaluated, sampled = [], []
    trainer = Trainer(
        model,
        tokenizer.encode("the quick brown fox " * 9),
        evaluate=lambda: evaluated.append(trainer.step) or Evaluation(1.0, 1.0, 1.0, 1),
        sample=lambda: sampled.append(trainer.step) or "text",
    )
    trainer.train()
    assert (trainer.seed, trainer.max_steps) == (7, 6)
    assert evaluated == [2, 4, 6]
    assert sampled == [3, 6]


def test_what_was_bound_before_is_gone_and_what_is_bound_is_locked():
    bind(resolved(n_layers=2))
    bind(resolved(d_ff=10))
    assert gin.query_parameter("Transformer.n_layers") == 4
    with pytest.raises(RuntimeError, match="locked"):
        gin.bind_parameter("Transformer.n_layers", 3)
