"""What a run records gives the same configuration again; what is wrong is refused, always."""

from difflib import SequenceMatcher

import pytest
from hypothesis import given, settings

from lm_core.config.hyperparameters import KEYS
from lm_core.config.rendering import config_hash, gin_text, json_text, yaml_text, yaml_value
from lm_core.config.training_config import TrainingConfig
from lm_core.errors import InputError
from tests.config_sources import problems, read_back, resolved
from tests.random_configs import configs, misspelled, mistakes, text

# A plain run of the tests takes a part of the thousands that the exhaustive ones take.
FEW, MANY = 150, 2000


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tmp_path_factory.mktemp("records")


def check_records(records, values, place):
    """Both forms of the record, read by themselves, give the same configuration and hash."""
    config = resolved(values, place)
    from_yaml = read_back(records, "config.yaml", yaml_text(config, place))
    from_gin = read_back(records, "config.gin", gin_text(config))
    assert from_yaml == values
    assert from_gin == values
    found = [c.to_dict() for c in (values, from_yaml, from_gin)]
    assert len({config_hash(table, "abc") for table in found}) == 1
    assert TrainingConfig.from_dict(values.to_dict()) == values
    assert json_text(config).count('"source": ') == len(KEYS)


def check_refusal(records, values, mistake):
    """A file with one mistake is refused with one sentence, which names the key and its line."""
    key, wrong = mistake
    table = {**values.to_dict(), key: wrong}
    shown = {name: _yaml(value) for name, value in table.items()}
    path = records / "wrong.yaml"
    path.write_text("".join(f"{name}: {value}\n" for name, value in shown.items()))
    told = problems(files=[str(path)])
    line = list(table).index(key) + 1
    start = f"{path}:{line}: {key}"
    # Several things may be wrong inside a table of hooks; they are about it and nothing else.
    assert told
    assert all(one.startswith(start) for one in told)
    if key != "hooks":
        assert len(told) == 1
    with pytest.raises(InputError, match=f"^{key}"):
        TrainingConfig.from_dict(table)


def _yaml(value):
    special = {"inf": ".inf", "nan": ".nan"}
    return special.get(str(value)) or yaml_value(value)


@settings(max_examples=FEW)
@given(configs, text)
def test_records_give_the_same_configuration_and_hash(records, values, place):
    check_records(records, values, place)


@settings(max_examples=FEW)
@given(configs, mistakes)
def test_a_configuration_with_one_mistake_is_refused_for_it(records, values, mistake):
    check_refusal(records, values, mistake)


@settings(max_examples=FEW)
@given(misspelled())
def test_a_misspelled_key_is_refused_and_the_right_one_is_named(records, misspelling):
    wrong, right = misspelling
    path = records / "misspelled.yaml"
    path.write_text(f"{wrong}: 1\n")
    (told,) = problems(files=[str(path)])
    start, _, named = told.partition("; did you mean ")
    assert start == f"{path}:1: {wrong}: unknown hyperparameter"
    # What is misspelled from one key may be as like another: betax, beta1 and beta2.
    assert likeness(wrong, named.removesuffix("?")) >= likeness(wrong, right)


def likeness(one, other):
    return SequenceMatcher(None, other, one).ratio()


@pytest.mark.exhaustive
@settings(max_examples=MANY)
@given(configs, text)
def test_thousands_of_records_give_the_same_configuration_and_hash(records, values, place):
    check_records(records, values, place)


@pytest.mark.exhaustive
@settings(max_examples=MANY)
@given(configs, mistakes)
def test_thousands_of_configurations_with_a_mistake_are_refused(records, values, mistake):
    check_refusal(records, values, mistake)
