import pytest

from lm_core.config.fields import CATEGORIES
from lm_core.config.hyperparameters import KEYS, broken_rules
from lm_core.config.table import (
    KEY_OF_GIN_PARAMETER,
    SECTIONS,
    entry,
    gin_parameter,
    keys_by_section,
    meaning,
)
from lm_core.config.training_config import TrainingConfig

DEFAULTS = {
    "n_layers": 4,
    "d_model": 256,
    "n_heads": 4,
    "d_ff": 1024,
    "dropout": 0.1,
    "max_seq_len": 256,
    "max_steps": 10_000,
    "batch_size": 16,
    "learning_rate": 3e-4,
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.95,
    "max_skipped_batches": 0,
    "precision": "auto",
    "device": "auto",
    "compile": False,
    "seed": None,
    "hooks": None,
    "corpus": None,
    "tokenizer": "ascii",
    "train_ratio": 0.95,
    "eval_cadence": None,
    "sampling_cadence": None,
    "sampling_temperature": 1.0,
    "sampling_prompt": "The",
    "sampling_max_length": 100,
    "sampling_seed": 42,
    "sampling_num_samples": 1,
    "sampling_top_k": None,
    "sampling_top_p": None,
    "checkpoint_cadence": 1000,
    "keep_checkpoints": 3,
}


def test_the_defaults_are_the_published_ones():
    assert TrainingConfig().model_dump() == DEFAULTS


def test_every_key_binds_a_gin_parameter_of_its_own():
    assert len(KEY_OF_GIN_PARAMETER) == len(KEYS)
    assert gin_parameter("corpus") == "load_corpus.path"
    assert gin_parameter("sampling_top_k") == "Sampler.top_k"


def test_every_key_has_a_category_and_a_meaning():
    for key in KEYS:
        assert entry(key).category in CATEGORIES
        assert all(entry(key)), key
        assert meaning(key).endswith("."), key


def test_a_width_that_heads_do_not_divide_breaks_a_rule():
    assert broken_rules(DEFAULTS) == []
    (broken,) = broken_rules({**DEFAULTS, "d_model": 250})
    assert broken == ("d_model", "is not divisible by", "n_heads")
    with pytest.raises(ValueError, match="d_model 250 is not divisible by n_heads 4"):
        TrainingConfig(d_model=250)


def test_a_prompt_beyond_ascii_breaks_a_rule_with_the_ascii_tokenizer():
    (broken,) = broken_rules({**DEFAULTS, "sampling_prompt": "é"})
    assert broken == ("sampling_prompt", "has characters unknown to", "tokenizer")
    assert broken_rules({**DEFAULTS, "sampling_prompt": "é", "tokenizer": "char"}) == []


def test_unknown_keys_are_refused():
    with pytest.raises(ValueError, match="n_layer"):
        TrainingConfig(n_layer=3)


def test_every_key_stands_in_one_section_and_every_category_too():
    assert sorted(key for keys in keys_by_section().values() for key in keys) == sorted(KEYS)
    assert sorted(c for categories in SECTIONS.values() for c in categories) == sorted(CATEGORIES)
