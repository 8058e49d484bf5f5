"""Sentences about names that are no hyperparameter."""

import pytest

from lm_core.config import names
from lm_core.config.hyperparameters import KEYS
from lm_core.config.names import meant_parameter, unknown_key, unknown_parameter, unused_macro
from lm_core.config.table import KEY_OF_GIN_PARAMETER


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("n_layer", "n_layers"),
        ("lr", "learning_rate"),
        ("LR", "learning_rate"),
        ("n_embd", "d_model"),
        ("block_size", "max_seq_len"),
        ("max_new_tokens", "sampling_max_length"),
        ("temperature", "sampling_temperature"),
        ("decay_weight", "weight_decay"),
        ("Transformer.n_layers", "n_layers"),
    ],
)
def test_a_key_of_another_name_leads_to_the_right_one(name, meant):
    assert unknown_key(name) == f"unknown hyperparameter; did you mean {meant}?"


@pytest.mark.parametrize(
    ("selector", "argument", "meant"),
    [
        ("Trainer", "lr", "Trainer.learning_rate"),
        ("Trainer", "block_size", "Transformer.max_seq_len"),
        ("Transformer", "num_hidden_layers", "Transformer.n_layers"),
        ("Sampler", "max_new_tokens", "Sampler.max_length"),
    ],
)
def test_a_parameter_of_another_name_leads_to_the_right_one(selector, argument, meant):
    assert unknown_parameter(selector, argument) == f"unknown parameter; did you mean {meant}?"


def test_a_macro_that_looks_like_a_hyperparameter_leads_to_it():
    assert unused_macro("lr").endswith("nothing uses; did you mean Trainer.learning_rate?")
    assert unused_macro("n_layer").endswith("nothing uses; did you mean Transformer.n_layers?")
    assert unused_macro("width").endswith("nothing uses")


@pytest.mark.parametrize("name", ["zzz", "epochs", "n_workers_x", "no-such-name"])
def test_a_name_that_means_nothing_here_leads_nowhere(name):
    assert meant_parameter(name) is None


def test_every_other_name_leads_to_a_hyperparameter_and_is_none_itself():
    others = names._KEY_OF_OTHER_NAME
    assert set(others.values()) <= set(KEYS)
    own = {*KEYS, *KEY_OF_GIN_PARAMETER, *names._KEYS_OF_ARGUMENT}
    assert not own & set(others)
    assert list(others) == sorted(others)


def test_a_section_of_hyperparameters_is_told_from_a_misspelled_one():
    assert unknown_key("model", inside=["d_model"]) == (
        "unknown hyperparameter; all of them stand in one list, without sections"
    )
    assert unknown_key("model", inside=["n_layer"]).endswith("in one list, without sections")
    assert unknown_key("hook", inside=["forward"]).endswith("did you mean hooks?")


@pytest.mark.parametrize("name", ["include", "defaults", "Base"])
def test_what_others_call_inheriting_leads_to_extends(name):
    assert unknown_key(name, ["extends"]).endswith("did you mean extends?")
    assert "extends" not in unknown_key(name)


def test_what_the_program_gives_to_one_constructor_may_be_a_hyperparameter_of_another():
    told = unknown_parameter("Transformer", "seed")
    assert told.startswith("is not a hyperparameter: the program itself gives it a value")
    assert told.endswith("; did you mean Trainer.seed?")
    assert unknown_parameter("Trainer", "tokenizer").endswith("did you mean Tokenizer.kind?")
    told = unknown_parameter("Transformer", "vocab_size")
    assert told.endswith("did you mean Tokenizer.vocab_size?")
    assert "did you mean" not in unknown_parameter("Sampler", "model")
