import math
import sys
from typing import Literal

import numpy as np
import pytest

from lm_core.config import checks, table
from lm_core.config.checks import allowed, check_value, require_valid
from lm_core.config.hyperparameters import KEYS, Hyperparameters
from lm_core.config.table import value_types


def sentences(key, value):
    return [f"{path}: {message}" for path, message in check_value(key, value)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_layers", 1),
        ("dropout", 0),
        ("dropout", 0.99),
        ("dropout", 0.5),
        ("learning_rate", 1000),
        ("learning_rate", 5e-324),
        ("weight_decay", 0),
        ("beta1", 0),
        ("seed", None),
        ("seed", 0),
        ("seed", 2**63 - 1),
        ("max_steps", 99_999_999),
        ("corpus", None),
        ("corpus", "a b"),
        ("tokenizer", "byte"),
        ("sampling_prompt", " "),
        ("sampling_temperature", 0),
        ("sampling_top_p", 1),
        ("checkpoint_cadence", None),
        ("hooks", None),
        ("hooks", {}),
        ("hooks", {"forward": [], "update": [{"name": "x", "enabled": False, "option": [1]}]}),
    ],
)
def test_good_values_pass(key, value):
    assert sentences(key, value) == []


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("n_layers", 0, "n_layers: 0 is less than 1 (allowed: an integer from 1 to 2147483647)"),
        ("n_layers", -3, "n_layers: -3 is less than 1"),
        ("n_layers", 1.5, "n_layers: 1.5 is no integer"),
        ("n_layers", 6.0, "n_layers: 6.0 is no integer, write 6"),
        ("n_layers", "six", "n_layers: 'six' is a text"),
        ("n_layers", "6", "n_layers: '6' is a text"),
        ("n_layers", True, "n_layers: true is a truth value"),
        ("n_layers", None, "n_layers: null is no value"),
        ("n_layers", [6], "n_layers: [6] is a list"),
        ("n_layers", {"a": 1}, "n_layers: {'a': 1} is a mapping"),
        ("n_layers", math.nan, "n_layers: nan is no integer"),
        ("n_layers", math.inf, "n_layers: inf is no integer"),
        ("max_steps", 10**8, "max_steps: 100000000 is greater than 99999999"),
        ("max_steps", 1e4, "max_steps: 10000.0 is no integer, write 10000"),
        ("dropout", 1.5, "dropout: 1.5 is not less than 1 (allowed: a number from 0 to below 1)"),
        ("dropout", -0.1, "dropout: -0.1 is less than 0"),
        ("dropout", "0.1", "dropout: '0.1' is a text"),
        ("dropout", False, "dropout: false is a truth value"),
        ("learning_rate", 0, "learning_rate: 0 is not greater than 0"),
        ("learning_rate", math.inf, "learning_rate: inf is not finite"),
        ("learning_rate", 10**400, "learning_rate: 1000"),
        ("train_ratio", 0, "train_ratio: 0 is not greater than 0"),
        ("train_ratio", 1, "train_ratio: 1 is not less than 1"),
        ("train_ratio", 1.5, "train_ratio: 1.5 is not less than 1"),
        ("beta2", 1, "beta2: 1 is not less than 1 (allowed: a number from 0 to below 1)"),
        ("seed", -1, "seed: -1 is less than 0"),
        ("seed", 2**63, "seed: 9223372036854775808 is greater than 9223372036854775807"),
        ("tokenizer", "bytes", "tokenizer: 'bytes' is an unknown tokenizer; did you mean byte?"),
        ("tokenizer", None, "tokenizer: null is an unknown tokenizer"),
        ("tokenizer", ["byte"], "tokenizer: ['byte'] is an unknown tokenizer"),
        ("corpus", "", "corpus: '' is empty (allowed: a text, not empty, or null)"),
        ("corpus", 3, "corpus: 3 is "),
        ("sampling_prompt", "", "sampling_prompt: '' is empty"),
        ("sampling_prompt", "\ud800", "sampling_prompt: holds half of a surrogate pair"),
        ("sampling_top_k", 0, "sampling_top_k: 0 is less than 1"),
        ("sampling_top_p", 0, "sampling_top_p: 0 is not greater than 0"),
        ("eval_cadence", 0, "eval_cadence: 0 is less than 1"),
        ("hooks", [], "hooks: [] is a list (allowed: a mapping with the keys forward and update"),
        ("hooks", {"foward": []}, "hooks.foward: unknown kind of hook; did you mean forward?"),
        ("hooks", {"forward": None}, "hooks.forward: null is not a list"),
        ("hooks", {"forward": [3]}, "hooks.forward[0]: 3 is not a mapping"),
        ("hooks", {"update": [{}]}, "hooks.update[0].name: is missing"),
        ("hooks", {"update": [{"name": "\ud800"}]}, "hooks.update[0].name: holds half of a surr"),
        (
            "hooks",
            {"update": [{"name": "x", "a": math.inf}]},
            "hooks.update[0].a: inf is not finite",
        ),
        ("hooks", {"update": [{"name": "x", "a": [1, math.nan]}]}, "hooks.update[0].a[1]: nan is"),
        ("hooks", {"update": [{"name": "x", "a": b"y"}]}, "hooks.update[0].a: b'y' is a bytes"),
        ("hooks", {"update": [{"name": 3}]}, "hooks.update[0].name: 3 is not a text"),
        (
            "hooks",
            {"update": [{"name": "x", "enabled": 1}]},
            "hooks.update[0].enabled: 1 is not true or false",
        ),
    ],
)
def test_wrong_values_are_told_in_words(key, value, sentence):
    (found,) = sentences(key, value)
    assert found.startswith(sentence)


def test_an_integer_too_long_to_print_is_told_all_the_same():
    (found,) = sentences("n_layers", 10**5000)
    assert found.startswith("n_layers: a huge integer is greater than 2147483647")
    (found,) = sentences("sampling_top_k", 10**5000)
    assert found == "sampling_top_k: a huge integer is too large to be written down"


def test_several_wrong_hooks_are_told_at_once():
    table = {"forward": [{}, {"name": 1}], "update": 3}
    assert len(check_value("hooks", table)) == 3


def test_what_is_allowed_is_said_in_words():
    assert allowed("batch_size") == "an integer from 1 to 2147483647"
    assert allowed("train_ratio") == "a number greater than 0 and below 1"
    assert allowed("sampling_top_p") == "a number greater than 0 and at most 1, or null"
    assert allowed("sampling_temperature") == "a number of at least 0"
    assert allowed("tokenizer") == "ascii, char, byte or bpe"


def test_a_constructors_check_tells_all_by_their_gin_names():
    with pytest.raises(ValueError, match=r"Transformer.n_layers: 0 .*\nTrainer.batch_size: 'x'"):
        require_valid({"n_layers": 0, "dropout": 0.1, "batch_size": "x"})


def test_a_constructors_check_tells_which_of_its_values_do_not_fit_each_other():
    with pytest.raises(ValueError, match=r"^Trainer.warmup_steps: 10 is more than decay_steps 5$"):
        require_valid({"warmup_steps": 10, "decay_steps": 5, "batch_size": 4})
    # What another constructor gets is not known here.
    require_valid({"early_stopping_evaluations": 2})


SIZES = (1, 0, 2**31 - 1, 2**31)
CADENCES = (1, 0, 99_999_999, 10**8)
SEEDS = (0, -1, 2**63 - 1, 2**63)
BELOW_1 = math.nextafter(1, 0)
BELOW_0 = math.nextafter(0, -1)
ABOVE_0 = math.nextafter(0, 1)
ABOVE_1 = math.nextafter(1, 2)
LARGEST = sys.float_info.max

# The lowest good value, a bad one just below, the highest good value, a bad one just above.
EDGES = {
    "n_layers": SIZES,
    "d_model": SIZES,
    "n_heads": SIZES,
    "d_ff": SIZES,
    "dropout": (0, BELOW_0, BELOW_1, 1),
    "max_seq_len": SIZES,
    "max_steps": CADENCES,
    "batch_size": SIZES,
    "learning_rate": (ABOVE_0, 0.0, LARGEST, math.inf),
    "logit_softcap": (1e-3, math.nextafter(1e-3, 0), 1e6, math.nextafter(1e6, 1e7)),
    "accumulation_steps": SIZES,
    "warmup_steps": (0, -1, 99_999_999, 100_000_000),
    "decay_steps": CADENCES,
    "decay_share": (ABOVE_0, 0.0, 1, ABOVE_1),
    "min_learning_rate_ratio": (0, BELOW_0, 1, ABOVE_1),
    "muon_learning_rate": (ABOVE_0, 0.0, LARGEST, math.inf),
    "muon_momentum": (0, BELOW_0, BELOW_1, 1.0),
    "max_grad_norm": (ABOVE_0, 0.0, LARGEST, math.inf),
    "label_smoothing": (0, BELOW_0, BELOW_1, 1.0),
    "z_loss": (0, BELOW_0, 1e6, math.nextafter(1e6, 1e7)),
    "ema_decay": (ABOVE_0, 0.0, BELOW_1, 1.0),
    "early_stopping_evaluations": CADENCES,
    "weight_decay": (0, BELOW_0, LARGEST, math.inf),
    "beta1": (0, BELOW_0, BELOW_1, 1.0),
    "beta2": (0, BELOW_0, BELOW_1, 1.0),
    "seed": SEEDS,
    "vocab_size": (257, 256, 2**20, 2**20 + 1),
    "train_ratio": (ABOVE_0, 0.0, BELOW_1, 1.0),
    "eval_cadence": CADENCES,
    "sampling_cadence": CADENCES,
    "sampling_temperature": (0, BELOW_0, LARGEST, math.inf),
    "sampling_max_length": SIZES,
    "sampling_seed": SEEDS,
    "sampling_num_samples": SIZES,
    "sampling_top_k": (1, 0, 2**31 - 1, -1),
    "sampling_top_p": (ABOVE_0, 0.0, 1, ABOVE_1),
    "checkpoint_cadence": CADENCES,
    "keep_checkpoints": CADENCES,
    "max_skipped_batches": (0, -1, 99_999_999, 100_000_000),
}


@pytest.mark.parametrize("key", EDGES)
def test_ranges_end_exactly_where_they_say(key):
    lowest, below, highest, above = EDGES[key]
    assert sentences(key, lowest) == sentences(key, highest) == []
    for value in (below, above):
        (found,) = sentences(key, value)
        assert found.endswith(f"(allowed: {allowed(key)})")


def test_every_number_of_the_table_has_its_edges_tested():
    numbers = {key for key in KEYS if {int, float} & set(value_types(key))}
    assert set(EDGES) == numbers


@pytest.mark.parametrize("key", EDGES)
@pytest.mark.parametrize("value", ["1", True, [1], {"a": 1}, math.nan])
def test_no_number_is_made_of_anything_else(key, value):
    assert len(sentences(key, value)) == 1


def test_null_is_a_value_of_these_keys_and_of_no_other():
    assert {key for key in KEYS if sentences(key, None) == []} == {
        "seed",
        "hooks",
        "init_from",
        "corpus",
        "tokenizer_file",
        "logit_softcap",
        "decay_steps",
        "max_grad_norm",
        "ema_decay",
        "early_stopping_evaluations",
        "eval_cadence",
        "sampling_cadence",
        "sampling_top_k",
        "sampling_top_p",
        "checkpoint_cadence",
        "keep_checkpoints",
    }


class Grown(Hyperparameters):
    """The table with kinds of values that it does not have yet."""

    activation: Literal["gelu", "relu"] = "gelu"
    clip: Literal["norm", "value"] | None = None
    norm: Literal["layer"] = "layer"
    tied: bool = True
    bias: bool | None = None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("activation", "gel", "'gel' is an unknown activation; did you mean gelu? (allowed: gelu"),
        ("activation", None, "null is an unknown activation (allowed: gelu or relu)"),
        ("clip", "norms", "'norms' is an unknown clip; did you mean norm? (allowed: norm or value"),
        ("clip", 3, "3 is an unknown clip (allowed: norm or value, or null)"),
        ("norm", "rms", "'rms' is an unknown norm (allowed: layer)"),
        ("tied", 1, "1 is an integer (allowed: true or false)"),
        ("tied", "true", "'true' is a text (allowed: true or false)"),
        ("bias", "x", "'x' is a text (allowed: true or false, or null)"),
    ],
)
def test_a_hyperparameter_of_any_kind_is_checked_by_its_type(monkeypatch, key, value, message):
    for module in (checks, table):
        monkeypatch.setattr(module, "Hyperparameters", Grown)
    (problem,) = check_value(key, value)
    assert problem.message.startswith(message)
    assert check_value(key, Grown.model_fields[key].default) == []


def deep(n):
    value = []
    for _ in range(n):
        value = [value]
    return {"update": [{"name": "x", "option": value}]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"update": [{"name": "x", "option": np.float64(0.2)}]}, "float64, which is no plain"),
        ({"update": [{"name": "x", "option": (1, 2)}]}, "tuple, which is no plain"),
        ({"update": [{"name": "x", "o" * 2000: 1}]}, "is longer than a name can be"),
        (deep(60), "is nested too deep"),
    ],
)
def test_what_a_record_could_not_give_back_is_refused(value, message):
    assert [p for p in check_value("hooks", value) if message in p.message]


def test_a_name_that_is_no_text_is_told_once():
    (problem,) = check_value("hooks", {1: []})
    assert problem == ("hooks", "1 is not a text, as the name of an option must be")
