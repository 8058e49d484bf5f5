import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.errors import StoppedError, nearest, one_line, shown, unknown

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (3e-4, "0.0003"),
        ("six", "'six'"),
        ([1, "a"], "[1, 'a']"),
        ({"a": (1,)}, "{'a': (1,)}"),
        pytest.param(10**5000, "a huge integer", id="huge"),
        ("x" * 1000, "'" + "x" * 56 + "..."),
    ],
)
def test_a_value_is_shown_like_python_writes_it_but_never_long(value, text):
    assert shown(value) == text


@given(plain)
def test_what_is_shown_is_the_beginning_of_what_python_writes(value):
    text = shown(value)
    assert len(text) <= 60
    if value is not None and not isinstance(value, bool):
        assert repr(value).startswith(text.removesuffix("..."))


def test_a_value_that_is_huge_or_holds_itself_is_shown_at_once():
    many = ["x" * 1_000_000] * 1_000_000
    assert shown(many).startswith("['xxx")
    itself = []
    itself += [itself, itself]
    assert shown(itself).startswith("[[[[")


def test_the_nearest_name_is_found_whatever_its_capitals_and_the_order_of_its_words():
    known = ["learning_rate", "ablate_heads", "n_layers"]
    assert nearest("Learning_Rate", known) == "learning_rate"
    assert nearest("rate_learning", known) == "learning_rate"
    assert nearest("head_ablation", known) == "ablate_heads"
    assert nearest("zzz", known) is None


def test_an_unknown_name_leads_to_the_nearest_one():
    assert unknown("n_layer", ["n_layers"], "key") == "unknown key; did you mean n_layers?"
    assert unknown("zzz", ["n_layers"], "key") == "unknown key"


@given(st.text())
def test_a_name_from_outside_ends_no_line_and_moves_no_cursor(text):
    assert one_line(text).isprintable() or not text
    assert one_line("\x1b[2J\n") == "\\x1b[2J\\n"


def test_a_stop_by_a_signal_has_the_exit_code_that_shells_know():
    assert StoppedError("stopped", 15).exit_code == 143
