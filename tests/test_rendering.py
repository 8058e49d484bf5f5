import gin
import pytest
from hypothesis import given, settings

import lm_core.experiment  # noqa: F401 -- defines the configurables that gin knows
from lm_core.config.binding import bind
from lm_core.config.hyperparameters import KEYS
from lm_core.config.rendering import canonical, config_hash, gin_text, yaml_text, yaml_value
from lm_core.config.table import gin_parameter
from lm_core.config.training_config import TrainingConfig
from tests.config_sources import read_back, resolved
from tests.random_configs import configs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("configs")


@settings(max_examples=50)
@given(configs)
def test_what_gin_holds_after_binding_is_the_configuration(values):
    bind(resolved(values))
    for key in KEYS:
        assert gin.query_parameter(gin_parameter(key)) == getattr(values, key)


def test_each_gin_binding_says_where_it_was_set():
    lines = gin_text(resolved(TrainingConfig(n_layers=6), "configs/my.yaml")).splitlines()
    assert "Transformer.n_layers = 6  # configs/my.yaml" in lines


def test_the_record_is_read_in_sections():
    lines = yaml_text(resolved(TrainingConfig()), "a header").splitlines()
    assert lines[0] == "# a header"
    assert [line for line in lines[1:] if line.startswith("#")] == [
        "# Model architecture",
        "# Training",
        "# Dataset",
        "# Evaluation and sampling",
        "# Checkpointing",
    ]


def test_a_header_cannot_break_out_of_its_line(folder):
    content = yaml_text(resolved(TrainingConfig()), "x\nn_layers: 99")
    assert read_back(folder, "config.yaml", content) == TrainingConfig()


TABLE = TrainingConfig().to_dict()


def test_the_hash_ignores_where_the_corpus_lies_but_not_what_it_says():
    here, there = {**TABLE, "corpus": "/here"}, {**TABLE, "corpus": "/there"}
    assert config_hash(here, "abc") == config_hash(there, "abc")
    assert config_hash(here, "abc") != config_hash(here, "abd")
    given = {"tokenizer": "bpe"}
    here = {**TABLE, **given, "tokenizer_file": "/here/tokenizer.json"}
    there = {**TABLE, **given, "tokenizer_file": "/there/tokenizer.json"}
    assert config_hash(here, "abc", "123") == config_hash(there, "abc", "123")
    assert config_hash(here, "abc", "123") != config_hash(there, "abc", "124")
    none = {**TABLE, **given, "tokenizer_file": None}
    assert config_hash(none, "abc", "123") == config_hash(none, "abc", "124")
    assert config_hash(none, "abc", "123") != config_hash(here, "abc", "123")


def test_the_hash_ignores_where_the_first_weights_lie_but_not_what_they_are():
    here, there = ({**TABLE, "init_from": place} for place in ("/here", "/there"))
    assert config_hash(here, "abc", None, "123") == config_hash(there, "abc", None, "123")
    assert config_hash(here, "abc", None, "123") != config_hash(there, "abc", None, "124")
    assert config_hash(TABLE, "abc", None, "123") == config_hash(TABLE, "abc")
    assert config_hash(TABLE, "abc") != config_hash(here, "abc", None, "123")


@pytest.mark.parametrize("key", sorted({*KEYS} - {"corpus", "tokenizer_file", "init_from"}))
def test_the_hash_sees_every_other_value(key):
    changed = {**TABLE, key: 77}
    assert config_hash(changed, "abc") != config_hash(TABLE, "abc")


def table_of(option):
    return {**TABLE, "hooks": {"update": [{"name": "x", "option": option}]}}


def test_the_hash_tells_apart_what_python_calls_equal():
    names = [config_hash(table_of(option), "abc") for option in (1, True, 1.0, "1", [1], None)]
    assert len(set(names)) == 6


def test_minus_zero_is_zero():
    assert canonical({"a": [-0.0]}) == canonical({"a": [0.0]})
    assert config_hash(table_of(-0.0), "abc") == config_hash(table_of(0.0), "abc")


def test_the_hash_does_not_depend_on_the_order_of_keys():
    assert config_hash(dict(reversed(TABLE.items())), "abc") == config_hash(TABLE, "abc")


def test_a_text_of_several_lines_is_readable_in_the_record():
    assert yaml_value('a\n\tb "c" \\d\x07') == '"a\\n\\tb \\"c\\" \\\\d\\U00000007"'
