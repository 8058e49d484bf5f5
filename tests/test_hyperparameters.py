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
    "position": "learned",
    "norm": "layernorm",
    "activation": "gelu",
    "qk_norm": False,
    "tie_embeddings": True,
    "bias": True,
    "logit_softcap": None,
    "max_steps": 10_000,
    "batch_size": 16,
    "accumulation_steps": 1,
    "optimizer": "adamw",
    "learning_rate": 3e-4,
    "learning_rate_schedule": "constant",
    "warmup_steps": 0,
    "decay_steps": None,
    "decay_share": 0.2,
    "min_learning_rate_ratio": 0.1,
    "muon_learning_rate": 0.02,
    "muon_momentum": 0.95,
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.95,
    "max_grad_norm": None,
    "label_smoothing": 0.0,
    "z_loss": 0.0,
    "ema_decay": None,
    "max_skipped_batches": 0,
    "precision": "auto",
    "device": "auto",
    "compile": False,
    "parallelism": "auto",
    "exact_reduction": False,
    "seed": None,
    "init_from": None,
    "hooks": None,
    "corpus": None,
    "text_key": "text",
    "tokenizer": "ascii",
    "vocab_size": 4096,
    "tokenizer_file": None,
    "train_ratio": 0.95,
    "split_by": "position",
    "data_order": "random",
    "eval_cadence": None,
    "early_stopping_evaluations": None,
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


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"batch_size": 6, "accumulation_steps": 4}, "6 is not divisible by accumulation_steps 4"),
        ({"warmup_steps": 5, "decay_steps": 4}, "warmup_steps 5 is more than decay_steps 4"),
        (
            {"position": "rope", "d_model": 12, "n_heads": 4},
            "d_model 12 makes heads 3 wide, which position rope cannot rotate in pairs, with n_he",
        ),
        (
            {"early_stopping_evaluations": 3},
            "3 needs evaluations while it trains, and there are none with eval_cadence None",
        ),
    ],
)
def test_values_that_do_not_fit_each_other_break_a_rule(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrainingConfig(**values)


def test_values_that_just_fit_each_other_break_none():
    TrainingConfig(batch_size=8, accumulation_steps=8, warmup_steps=4, decay_steps=4)
    TrainingConfig(position="rope", d_model=8, n_heads=4, warmup_steps=20_000)
    TrainingConfig(early_stopping_evaluations=3, eval_cadence=10)


def test_a_width_that_heads_do_not_divide_breaks_a_rule():
    assert broken_rules(DEFAULTS) == []
    (broken,) = broken_rules({**DEFAULTS, "d_model": 250})
    assert broken == ("d_model", "is not divisible by", "n_heads")
    with pytest.raises(ValueError, match="d_model 250 is not divisible by n_heads 4"):
        TrainingConfig(d_model=250)


def test_a_file_of_bpe_breaks_a_rule_with_other_tokenizers():
    (broken,) = broken_rules({**DEFAULTS, "tokenizer_file": "tokenizer.json"})
    assert broken == ("tokenizer_file", "is for bpe, and not for", "tokenizer")
    given = {"tokenizer": "bpe", "tokenizer_file": "tokenizer.json"}
    assert broken_rules({**DEFAULTS, **given}) == []


def test_exact_sums_need_whole_gradients():
    (broken,) = broken_rules({**DEFAULTS, "exact_reduction": True, "parallelism": "fsdp"})
    assert (broken.key, broken.other_key) == ("exact_reduction", "parallelism")
    assert broken_rules({**DEFAULTS, "exact_reduction": True, "parallelism": "ddp"}) == []


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
