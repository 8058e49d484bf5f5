import pytest

from lm_core.config.hyperparameters import KEYS
from lm_core.config.table import default
from lm_core.config.training_config import TrainingConfig
from lm_core.errors import InputError

DEFAULTS = {key: default(key) for key in KEYS}
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
    with pytest.raises(InputError) as error:
        TrainingConfig.from_dict({"dropout": 2, "d_model": 250, "n_layer": 3})
    assert "d_model: 250 is not divisible by n_heads 4" in error.value.message.splitlines()
    with pytest.raises(InputError) as error:
        TrainingConfig.from_dict({"n_heads": 0, "d_model": 250})
    assert len(error.value.message.splitlines()) == 1
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
