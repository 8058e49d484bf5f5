import tokenize

import pytest

from lm_core.config.gin_lines import logical_lines


def cut(text, start=0):
    lines = text.splitlines(keepends=True)
    return [(line.first, line.end) for line in logical_lines(lines, start)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("# comment\n\n", []),
        ("a = 1\nb = 2", [(0, 1), (1, 2)]),
        ("\n# c\na = [\n1,\n\n]\nb = 2\n", [(2, 6), (6, 7)]),
        ("a = '''x\ny\n'''\nb = 2\n", [(0, 3), (3, 4)]),
        ("a = \\\n1\nb:\n  c = 2\n", [(0, 2), (2, 3), (3, 4)]),
    ],
)
def test_brackets_and_texts_stay_whole(text, expected):
    assert cut(text) == expected


def test_a_cut_may_begin_anywhere():
    assert cut("a = (\n  b = 2\nc = 3\n", 1) == [(1, 2), (2, 3)]


def test_tokens_count_their_rows_from_the_first_line_of_the_statement():
    lines = ["\n", "a = [\n", "1]\n"]
    (line,) = logical_lines(lines, 0)
    assert [(token.string, token.start[0]) for token in line.tokens] == [
        ("a", 1),
        ("=", 1),
        ("[", 1),
        ("1", 2),
        ("]", 2),
    ]


def test_lines_that_begin_inside_a_text_are_known():
    (line,) = logical_lines(["a = ['''x\n", "y\n", "''',\n", "1]\n"], 0)
    assert line.lines_in_texts() == {1, 2}


@pytest.mark.parametrize("text", ["a = [\n", "a = '''\n", "  a = 1\n b = 2\n"])
def test_what_is_open_at_the_end_or_indented_like_nothing_is_told(text):
    with pytest.raises((tokenize.TokenError, SyntaxError)):
        cut(text)
