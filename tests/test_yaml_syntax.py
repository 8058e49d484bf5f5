import warnings

import pytest

from lm_core.config.yaml_syntax import YamlMistake, compose


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
