import copy
import inspect

import gin
import pytest
import torch

from lm_core.compute import DTYPES
from lm_core.config.binding import bind
from lm_core.config.hyperparameters import KEYS
from lm_core.config.names import RUNTIME_ARGUMENTS
from lm_core.config.table import gin_parameter
from lm_core.config.training_config import TrainingConfig
from lm_core.data.corpus import load_corpus
from lm_core.data.splitting import split_corpus
from lm_core.data.tokenizer import build_tokenizer
from lm_core.evaluation import Evaluation
from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey
from lm_core.reference.tables import CONSTRUCTORS
from lm_core.sampling import Sampler
from lm_core.training.trainer import Trainer
from tests import config_sources
from tests.tiny_trainer import new_run, optimizer_of, saved_steps


def resolved(**values):
    return config_sources.resolved(TrainingConfig(**values))


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
    assert split_corpus(load_corpus()).train_ratio == 0.5
    assert build_tokenizer(split_corpus(load_corpus())).kind == "byte"


def test_the_tokenizer_receives_the_values(tmp_path):
    bind(resolved(tokenizer="bpe", vocab_size=300))
    tokenizer = build_tokenizer(split_corpus(load_corpus()))
    assert (tokenizer.kind, tokenizer.vocab_size) == ("bpe", 300)
    (tmp_path / "tokenizer.json").write_text(tokenizer.json)
    gin.clear_config()
    bind(resolved(tokenizer="bpe", tokenizer_file=str(tmp_path / "tokenizer.json")))
    assert build_tokenizer(split_corpus(load_corpus())) == tokenizer


def trainer_of(**values):
    """A trainer as the wiring builds it, of a model that is small, and what it did when."""
    sizes = {"d_model": 8, "n_heads": 2, "d_ff": 8, "max_seq_len": 8, "n_layers": 1}
    bind(resolved(**{**sizes, **values}))
    tokenizer = build_tokenizer(split_corpus(load_corpus()))
    evaluated, sampled = [], []
    trainer = Trainer(
        Transformer(tokenizer.vocab_size),
        tokenizer.encode("the quick brown fox " * 9),
        evaluate=lambda check_stop: evaluated.append(trainer.step) or Evaluation(1.0, 1.0, 1.0, 1),
        sample=lambda check_stop: sampled.append(trainer.step) or "text",
    )
    return trainer, evaluated, sampled


def test_the_sampler_receives_the_values():
    trainer_of(
        sampling_temperature=0.25,
        sampling_prompt="Ab",
        sampling_max_length=5,
        sampling_seed=9,
        sampling_top_k=3,
        sampling_top_p=0.5,
    )
    tokenizer = build_tokenizer(split_corpus(load_corpus()))
    sampler = Sampler(Transformer(tokenizer.vocab_size), tokenizer)
    names = ("temperature", "prompt", "max_length", "seed", "top_k", "top_p")
    assert [getattr(sampler, name) for name in names] == [0.25, "Ab", 5, 9, 3, 0.5]


def test_the_trainer_receives_the_values(tmp_path):
    trainer, evaluated, sampled = trainer_of(
        max_steps=6, batch_size=3, eval_cadence=2, sampling_cadence=3, checkpoint_cadence=4, seed=7
    )
    run = new_run(tmp_path / "run")
    trainer.train(run)
    assert (trainer.seed, trainer.max_steps) == (7, 6)
    assert evaluated == [2, 4, 6]
    assert sampled == [3, 6]
    # The evaluation of step 2 was the best so far; later ones were no better.
    assert saved_steps(run) == [2, 4, 6]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_step_sees_a_batch_of_the_configured_size(monkeypatch, batch_size):
    trainer, _, _ = trainer_of(max_steps=1, batch_size=batch_size)
    seen = []
    forward = Transformer.forward
    monkeypatch.setattr(
        Transformer,
        "forward",
        lambda self, *a, **k: seen.append(a[0].shape) or forward(self, *a, **k),
    )
    trainer.train()
    assert seen == [(batch_size, 8)]


def test_the_optimizer_and_the_hooks_receive_the_values():
    values = {"learning_rate": 0.02, "weight_decay": 0.3, "beta1": 0.7, "beta2": 0.6, "seed": 5}
    hooks = {"update": [{"name": "freeze", "parameters": "token_embedding.*"}]}
    trainer, _, _ = trainer_of(max_steps=3, batch_size=2, dropout=0.0, hooks=hooks, **values)
    model = copy.deepcopy(trainer.model)
    frozen = model.token_embedding.weight
    batches = trainer._steps._update._batches
    given = {name: value for name, value in values.items() if name != "seed"}
    optimizer = optimizer_of(model, **given)
    for step in (1, 2, 3):
        inputs, targets = batches.batch(step)
        optimizer.forget_gradients()
        model(inputs, targets, key=StepKey(5, step), dtype=DTYPES[trainer.precision]).backward()
        frozen.grad = None
        optimizer.step()
    trainer.train()
    trained = dict(trainer.model.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(trained[name], parameter), name


def test_what_was_bound_before_is_gone_and_what_is_bound_is_locked():
    bind(resolved(n_layers=2))
    bind(resolved(d_ff=10))
    assert gin.query_parameter("Transformer.n_layers") == 4
    with pytest.raises(RuntimeError, match="locked"):
        gin.bind_parameter("Transformer.n_layers", 3)
