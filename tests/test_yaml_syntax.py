import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.config.yaml_syntax import YamlMistake, compose, entries


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n"])
def test_a_text_that_says_nothing_is_no_mapping_and_no_mistake(text):
    assert compose(text) is None


def test_the_mapping_of_a_text_knows_its_lines():
    root = compose("# comment\nn_layers: 3\n\nd_ff: 8\n")
    assert [key.start_mark.line for key, _ in root.value] == [1, 3]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("''", 1, "a configuration is a mapping"),
        ("- a\n", 1, "a configuration is a mapping"),
        ("\n!foo {a: 1}\n", 2, "a configuration is a mapping"),
        ("a: 1\n# c \x85b: 2\n", 2, 'U+0085 ends a line to some programs only; write "\\u0085"'),
        ("a: 1\nb: 'x\u2028y'\n", 2, "U+2028 ends a line to some programs only"),
        ("# c\n%YAML 1.1\n---\na: 1\n", 2, "a directive with % has no place here"),
        ("a: %foo\n", 1, "not valid YAML: a text that begins with a sign such as % or @ needs"),
        ('a: "C:\\Users"\n', 1, "not valid YAML: a \\ in double quotes begins an escape; write"),
        ("a: 1\nb\nc: 2\n", 2, "not valid YAML: this line needs a colon and a space"),
        ("a: [1\n", 1, "not valid YAML: a bracket that is not closed"),
        ("a: '1\n", 1, "not valid YAML: a quotation mark that is not closed"),
        ("a: \t\tx: 1\n", 1, "not valid YAML: "),
    ],
)
def test_a_text_that_is_something_else_is_told_with_its_line(text, line, message):
    with pytest.raises(YamlMistake) as error:
        compose(text)
    assert error.value.line == line
    assert error.value.message.startswith(message)


def test_brackets_without_end_are_no_traceback():
    with pytest.raises(YamlMistake, match="nested too deep"):
        compose("a: " + "[" * 5_000)


def test_a_percent_sign_in_a_comment_is_no_directive():
    assert compose("# 5 %b\n#\n#%c\na: 1\n") is not None


def test_an_anchor_that_is_used_again_is_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compose("a: &x 1\nb: &x 2\nc: *x\n") is not None


def read(text):
    found, mistakes = entries(text)
    told = [(mistake.line, mistake.name) for mistake in mistakes]
    return [(key.value, key.start_mark.line + 1) for key, _ in found], told


@pytest.mark.parametrize(
    ("text", "found", "mistakes"),
    [
        ("a: 1\nb: 2\n", [("a", 1), ("b", 2)], []),
        ("", [], []),
        ("a: 1\nb 2\nc: 3\n", [("a", 1), ("c", 3)], [(2, None)]),
        ("a: [1\nb: 2\n", [("b", 2)], [(1, "a")]),
        ("a: {\n  x: [\nb: 2\n", [("b", 3)], [(2, "a")]),
        ("a: 'x\n  y\nb: 2\n", [("b", 3)], [(1, "a")]),
        ("a: {\nx: 1\n}\nb: 'x\n\ny'\nc: \"\n", [("a", 1), ("b", 4)], [(7, "c")]),
        ("a:\n- 1\n- 2\nb: x: y\n", [("a", 1)], [(4, "b")]),
        ("a: |\n  b: [\n  c\nd: 'e\nf: 1", [("a", 1), ("f", 5)], [(4, "d")]),
        ("- a\n- b: [\n", [], [(2, None)]),
        ("- a\n", [], [(1, None)]),
        ("a: &x 2\nb: ]\nc: *x\n", [("a", 1)], [(2, "b"), (3, "c")]),
        ("a: 1 # \x0cx\n\nb: 3\n", [("b", 3)], [(1, "a")]),
        ("a: [1,\n2]\n- x\nb: 1\n", [("b", 4)], [(3, "a")]),
        ("a: [1,  \n# see [2]\nb: 1\n", [("b", 3)], [(1, "a")]),
        ('a: "x\nb: \n  "y"\nc: 1\n', [("b", 2), ("c", 4)], [(1, "a")]),
        ("a: [1,\n\nb: |-\n  x\n", [("b", 3)], [(1, "a")]),
        ("a: 1\n%x\nb: 2\n", [("a", 1), ("b", 3)], [(2, None)]),
    ],
)
def test_what_cannot_be_read_hides_nothing_that_can(text, found, mistakes):
    assert read(text) == (found, mistakes)


def test_an_alias_of_a_key_that_was_read_by_itself_is_no_mistake_of_its_own():
    _, (_, unread) = entries("a: &x 2\nb: ]\nc: *x\n")
    assert (unread.message, unread.name) == ("", "c")
    _, (_, undefined) = entries("b: ]\nc: *x\n")
    assert "undefined alias 'x'" in undefined.message


@pytest.mark.parametrize(
    "text",
    [
        ("a: " + "[" * 400 + "\n") * 100,
        pytest.param("a: [1,\n" * 100 + "b: 1\n" * 3000, marks=pytest.mark.exhaustive),
        "a: " + "[" * 3000,
        ("a: '" + "x" * 1000 + "\n") * 150,
    ],
    ids=["deep", "open", "deeper", "quotes"],
)
def test_a_page_of_brackets_is_given_up_early(text):
    found, mistakes = entries(text)
    assert mistakes
    assert found == [] or len(mistakes) <= 101


def test_values_that_were_read_by_themselves_know_the_lines_of_the_whole():
    found, _ = entries("b 2\na:\n  - &x {c: 1}\n  - *x\n  - d\n")
    ((_, value),) = found
    assert [item.start_mark.line + 1 for item in value.value] == [3, 3, 5]


@given(st.text(st.sampled_from("ab:[]{}'\"#\n -|>&*!?,1"), max_size=40))
def test_any_text_comes_to_an_end_with_lines_that_it_has(text):
    found, mistakes = read(text)
    lines = [line for _, line in found] + [line for line, _ in mistakes if line is not None]
    assert all(1 <= line <= text.count("\n") + 1 for line in lines)
