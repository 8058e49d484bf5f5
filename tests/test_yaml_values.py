import pytest
from ruamel.yaml import YAML

from lm_core.config.yaml_values import NestedError, PlainValue, require_plain_name


def node_of(text):
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 2)
    return yaml.compose(f"key: {text}\n").value[0][1]


def plain(text):
    return PlainValue().value(node_of(text), "key")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1e3", 1000.0),
        (".5e3", 500.0),
        ("-.5", -0.5),
        ("+.5E-1", 0.05),
        ("0o17", 15),
        ("0x1F", 31),
        ("010", 10),
        ("-7", -7),
        ("'.5e3'", ".5e3"),
        ("1:30", "1:30"),
        ("off", "off"),
        ("~", None),
        ("!!null", None),
        ("true", True),
        ("{a: [1, {b: x}]}", {"a": [1, {"b": "x"}]}),
    ],
)
def test_a_value_is_what_yaml_1_2_says(text, value):
    found = plain(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("0b11", "key", "'0b11' is no number in YAML 1.2; write it with the digits 0 to 9"),
        ("-0x10", "key", "'-0x10' is no number in YAML 1.2"),
        ("1_000", "key", "'1_000' is no number in YAML 1.2; leave out the _"),
        ("!!null 7", "key", "'7' has the YAML type tag:yaml.org,2002:null; quote it"),
        ("!number 7", "key", "'7' has the YAML type !number; quote it"),
        ("2020-01-01", "key", "'2020-01-01' has the YAML type"),
        ("{1: a}", "key", "1 is not a text, as the name of an option must be"),
        ("{true: a, 1: b}", "key", "true is not a text, as the name of an option must be"),
        ("{1: a, 1.0: b}", "key", "1 is not a text, as the name of an option must be"),
        ("{a: {b: 1, b: 2}}", "key.a.b", "set twice in one mapping, first in line 1"),
        ("{[a]: 1}", "key", "has a key that is a list or a mapping"),
        ("[!!set {a, b}]", "key[0]", "has the YAML type tag:yaml.org,2002:set"),
    ],
)
def test_what_is_no_plain_value_is_told_by_its_path(text, path, message):
    with pytest.raises(NestedError) as error:
        plain(text)
    assert error.value.path == path
    assert error.value.message.startswith(message)


def test_every_path_has_its_line():
    value = PlainValue()
    value.value(node_of("\n  a:\n    - x\n    - b: 1\n"), "key")
    assert value.lines["key.a[1].b"] == 4


@pytest.mark.parametrize(
    "text",
    [
        "[&a [x, x, x, x, x, x, x, x, x, x], " + ", ".join(["*a"] * 2_000) + "]",
        f"[&a {'x' * 100_000}, " + ", ".join(["*a"] * 2_000) + "]",
        "[" * 60 + "]" * 60,
    ],
    ids=["many values", "long texts", "deep"],
)
def test_what_aliases_and_brackets_make_of_a_page_is_stopped_at_once(text):
    node = node_of(text)
    with pytest.raises(NestedError, match="far too large or deep"):
        PlainValue().value(node, "key")


@pytest.mark.parametrize("text", ["!foo n_layers", "!!int n_layers", "3"])
def test_the_name_of_a_hyperparameter_has_no_type_of_its_own(text):
    yaml = YAML(typ="safe", pure=True)
    node = yaml.compose(f"{text}: 3\n").value[0][0]
    with pytest.raises(NestedError, match="has the YAML type"):
        require_plain_name(node)
