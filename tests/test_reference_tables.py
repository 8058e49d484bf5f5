import json
from typing import Annotated

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from lm_core.config.checks import check_value
from lm_core.config.hyperparameters import KEYS
from lm_core.config.table import default, entry, gin_parameter, meaning
from lm_core.config.training_config import TrainingConfig
from lm_core.hooks.registry import known_hooks, options_of
from lm_core.reference import tables
from lm_core.reference.tables import PROJECT
from tests.config_sources import plain_yaml

SCHEMA = tables.schema()
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)


def test_the_schema_is_one():
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert json.loads((PROJECT / "configs" / "schema.json").read_text()) == SCHEMA


@pytest.mark.parametrize("path", sorted((PROJECT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_configuration_file_fits_the_schema_and_names_it(path):
    VALIDATOR.validate(plain_yaml(path.read_text()))
    assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n")


STUDIES = sorted((PROJECT / "configs" / "search").glob("*.yaml"))
STUDY = jsonschema.Draft7Validator(tables.study_schema())


def test_the_schema_of_studies_is_one():
    jsonschema.Draft7Validator.check_schema(STUDY.schema)
    there = json.loads((PROJECT / "configs" / "search" / "schema.json").read_text())
    assert there == STUDY.schema


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_study_fits_its_schema_and_names_it(path):
    study = plain_yaml(path.read_text())
    STUDY.validate(study)
    assert not VALIDATOR.is_valid(study)
    assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n")


@pytest.mark.parametrize(
    "study",
    [
        {"trials": 0, "search": {"dropout": {"uniform": [0.0, 0.3]}}},
        {"sampler": "tpee", "search": {"dropout": {"uniform": [0.0, 0.3]}}},
        {"search": {}},
        {"search": {"drop_out": {"uniform": [0.0, 0.3]}}},
        {"search": {"seed": {"int": [1, 3]}}},
        {"search": {"dropout": {"uniform": [0.0]}}},
        {"search": {"dropout": {"unifrom": [0.0, 0.3]}}},
        {"search": {"dropout": {"uniform": [0.0, 0.3], "choice": [0.1]}}},
        {"search": {"n_layers": {"choice": []}}},
    ],
)
def test_an_editor_marks_mistakes_in_a_study(study):
    assert not STUDY.is_valid(study)


def test_the_schema_has_every_key_with_its_default_and_meaning():
    assert list(SCHEMA["properties"]) == ["extends", *KEYS]
    for key in KEYS:
        assert SCHEMA["properties"][key]["default"] == default(key)
        assert meaning(key) in SCHEMA["properties"][key]["description"]


@pytest.mark.parametrize(
    "table",
    [
        {"n_layer": 3},
        {"n_layers": 0},
        {"n_layers": "6"},
        {"n_layers": True},
        {"dropout": 1.0},
        {"learning_rate": 0},
        {"tokenizer": "gpt2"},
        {"vocab_size": 256},
        {"hooks": {"updat": []}},
        {"hooks": {"update": [{}]}},
        {"sampling_prompt": ""},
        {"extends": 3},
    ],
)
def test_an_editor_that_reads_the_schema_marks_mistakes(table):
    assert not VALIDATOR.is_valid(table)


@settings(max_examples=300)
@given(
    st.sampled_from(KEYS),
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([2**31, 2**63, 10**8, "", "byte", "x", [], {}, {"update": []}])
    | st.floats(-2, 2),
)
def test_schema_and_check_agree_about_every_value(key, value):
    # JSON has one kind of number: to it, 2.0 is an integer.
    is_whole = isinstance(value, float) and value.is_integer()
    if not (is_whole and "integer" in str(SCHEMA["properties"][key])):
        assert VALIDATOR.is_valid({key: value}) == (not check_value(key, value))


def test_the_reference_has_a_row_for_every_key():
    table = tables.reference_table()
    for key in KEYS:
        (row,) = [line for line in table.splitlines() if line.startswith(f"| `{key}` |")]
        assert gin_parameter(key) in row
        assert meaning(key) in row
        assert entry(key).usual in row


def test_the_audit_says_where_every_hyperparameter_is_defined():
    rows = tables.audit_table().splitlines()[2:]
    assert len(rows) == len(KEYS)
    for row, key in zip(rows, KEYS, strict=True):
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert cells[0] == f"`{key}`"
        file, definition = cells[2].replace("`", "").split(", ")
        name, argument = definition.rstrip(")").split("(")
        text = (PROJECT / file).read_text()
        assert f"def {name}(" in text or f"class {name}(" in text or f"class {name}:" in text
        assert f"{argument}: " in text
        # What the constructor has and what the table suggests.
        assert cells[1] == cells[5]


BUILT_IN_HOOKS = [h for h in known_hooks().values() if h.__module__.startswith("lm_core.")]


def test_options_of_hooks_are_listed_with_their_constraints():
    table = tables.option_table()
    assert "| `activation_stats.every` | `100` |" in table
    assert "| an integer of at least 1 | Steps from one report to the next |" in table
    assert "| `clip_gradient_value.limit` | must be given |" in table
    assert "| a number greater than 0 | The largest magnitude that passes |" in table
    assert "| a list, not empty, of items each an integer of at least 0 |" in table
    rows = table.splitlines()[2:]
    assert len(rows) == 2 + sum(len(options_of(hook)) for hook in BUILT_IN_HOOKS)
    for row in rows:
        assert all(cell.strip() for cell in row.strip("|").split("|")), row


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "an integer"),
        (Annotated[float, Field(gt=0.5)], "a number greater than 0.5"),
        (list[str], "a list, of items each a text"),
    ],
)
def test_the_type_of_an_option_is_told_in_words(annotation, words):
    assert tables.constraints(annotation) == words


def test_constants_are_listed():
    assert "`N_LEVELS` | `2**16` | Levels that a random number may have" in tables.constant_table()
    assert "`_EPSILON` | `1e-8`" in tables.constant_table()


def test_comments_say_meaning_default_usual_values_and_advice():
    text = " ".join(line.lstrip("# ") for line in tables.comment_lines("dropout"))
    assert meaning("dropout") in text
    assert "Default: 0.1. Usual: 0 to 0.3. When to change it: 0 when the corpus" in text
    assert all(len(line) <= 98 for key in KEYS for line in tables.comment_lines(key))


def test_a_table_of_the_defaults_fits_the_schema():
    VALIDATOR.validate(TrainingConfig().to_dict())
