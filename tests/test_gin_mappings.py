import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.config.gin_lines import TOKEN_ERRORS, logical_lines
from lm_core.config.gin_mappings import RepeatedName, repeated_names


def repeated(text):
    found = []
    for line in logical_lines(text.splitlines(keepends=True), 0):
        found += repeated_names(line.tokens)
    return found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Trainer.hooks = {}",
        "Trainer.hooks = {'a': 1, 'b': {'a': 2}, 'c': [{'a': 3}, {'a': 4}]}",
        "Trainer.hooks = {'a': 'a', 'b': {'b': 'b, b: b'}}",
        "Trainer.hooks = {'a': 1}\nother = {'a': 1}",
        "Trainer.hooks = {(1, 2): 3, (3, 4): 5}",
        "x = {'a': 1, \"'a'\": 2}",
        "Trainer:\n  hooks = {'a': 1}  # {'a': 1, 'a': 2}",
    ],
)
def test_the_same_name_in_different_mappings_is_fine(text):
    assert repeated(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = {'a': 1, 'a': 2}", [("a", 1, 1)]),
        ("x = {'a': 1, \"a\": 2}", [("a", 1, 1)]),
        ("x = {\n  'a': [1, 2],\n  'a': {},\n}", [("a", 3, 2)]),
        ("x = {'b': {'a': 1, 'c': 2, 'a': 2}, 'b': 1}", [("a", 1, 1), ("b", 1, 1)]),
        ("x = {%a: 1, %b: 2, %a: 3}", [("%a", 1, 1)]),
        ("x = {1: 1, 1: 2}", [("1", 1, 1)]),
        ("x = {'a': 1, ('a'): 2}", [("a", 1, 1)]),
    ],
)
def test_a_name_set_twice_is_found_with_both_lines(text, expected):
    assert repeated(text) == [RepeatedName(*found) for found in expected]


@given(st.text(alphabet="{}[]():,'\"%ab1 \n\\#=", max_size=40))
def test_what_is_no_gin_raises_nothing(text):
    with contextlib.suppress(*TOKEN_ERRORS):
        repeated(text)


@given(st.dictionaries(st.text("ab:,{}[]", max_size=3), st.integers() | st.lists(st.integers())))
def test_a_mapping_written_by_python_repeats_nothing(mapping):
    assert repeated(f"x = {mapping!r}") == []
