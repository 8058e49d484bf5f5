import pytest

from lm_core.config.fields import CATEGORIES
from lm_core.config.hyperparameters import KEYS, TrainingConfig, broken_rules
from lm_core.config.table import (
    KEY_OF_GIN_PARAMETER,
    SECTIONS,
    default,
    entry,
    gin_parameter,
    is_text,
    keys_by_section,
    meaning,
)
from lm_core.errors import InputError

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
    "sampling_top_k": None,
    "sampling_top_p": None,
    "checkpoint_cadence": 1000,
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


def test_unknown_keys_are_refused():
    with pytest.raises(ValueError, match="n_layer"):
        TrainingConfig(n_layer=3)


def test_keys_whose_values_are_words_are_known():
    assert {key for key in KEYS if is_text(key)} == {"corpus", "tokenizer", "sampling_prompt"}


def test_every_key_stands_in_one_section_and_every_category_too():
    assert sorted(key for keys in keys_by_section().values() for key in keys) == sorted(KEYS)
    assert sorted(c for categories in SECTIONS.values() for c in categories) == sorted(CATEGORIES)


OLDEST = {
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "beta1": 0.8,
    "beta2": 0.99,
    "batch_size": 8,
    "max_steps": 50,
    "eval_cadence": 10,
    "checkpoint_cadence": 20,
    "sampling_cadence": 25,
    "sampling_temperature": 0.7,
    "sampling_prompt": "Once",
    "sampling_max_length": 30,
    "sampling_seed": 7,
    "hooks": {"forward": [], "update": [{"name": "identity", "enabled": True}]},
}


def test_a_dictionary_with_only_the_oldest_keys_gives_them_and_defaults():
    assert len(OLDEST) == 14
    assert TrainingConfig.from_dict(OLDEST).to_dict() == {**DEFAULTS, **OLDEST}


def test_an_empty_dictionary_gives_the_default():
    assert TrainingConfig.from_dict({}) == TrainingConfig()


@pytest.mark.parametrize("key", KEYS)
def test_any_single_key_may_be_given(key):
    config = TrainingConfig.from_dict({key: default(key)})
    assert config.to_dict() == DEFAULTS


def test_a_dictionary_tells_everything_that_is_wrong_at_once():
    with pytest.raises(InputError) as error:
        TrainingConfig.from_dict({"n_layer": 6, "dropout": 2, "hooks": {"updat": []}})
    assert error.value.message.splitlines() == [
        "n_layer: unknown hyperparameter; did you mean n_layers?",
        "dropout: 2 is not less than 1 (allowed: a number from 0 to below 1)",
        "hooks.updat: unknown kind of hook; did you mean update? (there are forward and update)",
    ]
    with pytest.raises(InputError, match=r"^d_model: 250 is not divisible by n_heads 4$"):
        TrainingConfig.from_dict({"d_model": 250})
    for no_table in (None, [], "n_layers"):
        with pytest.raises(InputError, match="is no mapping of hyperparameters to values"):
            TrainingConfig.from_dict(no_table)
    with pytest.raises(InputError, match=r"^3: unknown hyperparameter$"):
        TrainingConfig.from_dict({3: 4})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_layers", True),
        ("n_layers", "6"),
        ("n_layers", 6.0),
        ("dropout", True),
        ("dropout", "0.1"),
        ("dropout", float("nan")),
        ("learning_rate", float("inf")),
        ("seed", False),
        ("sampling_prompt", 3),
        ("sampling_prompt", None),
        ("corpus", ["a.txt"]),
        ("hooks", []),
    ],
)
def test_types_are_strict(key, value):
    with pytest.raises(InputError, match=f"^{key}: "):
        TrainingConfig.from_dict({key: value})


def test_an_integer_is_a_fine_number():
    config = TrainingConfig.from_dict({"dropout": 0, "sampling_temperature": 1})
    assert type(config.dropout) is float
    assert config == TrainingConfig(dropout=0.0)


def test_what_the_caller_does_with_a_dictionary_later_changes_no_configuration():
    table = {"update": [{"name": "identity"}]}
    config = TrainingConfig.from_dict({"hooks": table})
    table["update"].clear()
    config.to_dict()["hooks"]["update"].clear()
    assert config.hooks == {"update": [{"name": "identity"}]}
