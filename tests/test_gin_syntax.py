import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.config.gin_syntax import Mistake, Parsed, parse

GOOD = "Trainer.seed = 3\n"


def mistakes(text):
    return [piece for piece in parse(text) if isinstance(piece, Mistake)]


def lines_of(text):
    return [piece.line for piece in parse(text) if isinstance(piece, Parsed)]


BAD = [
    "n = six\n",
    "n = {\n",
    'n = "abc\n',
    "n m = 3\n",
    "n\n",
    "$\n",
    "n = 05\n",
    "n = {[]: 3}\n",
    "n = 'C:\\Users'\n",
    "a.b:\n",
    "include 3\n",
    "n =\n",
    "n = )\n",
    "}\n",
    "n = " + "[" * 10_000 + "\n",
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad[:20])
def test_a_mistake_loses_nothing_that_stands_around_it(bad):
    n_lines = bad.count("\n")
    text = GOOD + bad + GOOD + bad + GOOD
    assert lines_of(text) == [1, n_lines + 2, 2 * n_lines + 3]
    first, second = mistakes(text)
    assert 1 < first.line <= n_lines + 1
    assert second.line == first.line + n_lines + 1


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("n = six", Mistake(1, "'six' is no value; a text needs quotes", ["n"], [], False)),
        (
            "a = 1\nn = [%w,\n%v\n",
            Mistake(
                2, "a bracket or a quotation mark that is not closed", ["n"], ["w", "v"], False
            ),
        ),
        (
            "x:\n  y = six\n  z = 3\n",
            Mistake(2, "'six' is no value; a text needs quotes", ["x.y"], [], False),
        ),
    ],
)
def test_a_mistake_tells_what_nobody_knows_for_it(text, mistake):
    assert mistakes(text) == [mistake]


@pytest.mark.parametrize(
    "text",
    [
        "Transformer n_layers 6",
        "include a.gin",
        "include 'a.gin",
        "include",
        "'a.b' = 3",
        "^a",
        "=",
    ],
)
def test_what_is_meant_may_be_hidden_where_no_name_can_be_told(text):
    (mistake,) = mistakes(f"{text}\n")
    assert mistake.hides_more


def test_every_line_of_a_block_and_every_line_that_is_indented_stands_by_itself():
    text = "a.b:\n  c = six\n  d = 4\n  e = 5 5\n  f = 6\n  g = six\n  h = 7\ni = 8\n"
    found = [(piece.line, isinstance(piece, Parsed)) for piece in parse(text)]
    assert found == [(n, n in (3, 5, 7, 8)) for n in range(2, 9)]
    assert [m.names for m in mistakes(text)] == [["a.b.c"], ["a.b.e"], ["a.b.g"]]
    assert lines_of("  a = six\n  b = 3\n") == [2]


def test_a_text_that_is_never_closed_takes_no_later_statement_with_it():
    text = GOOD + "n = '''abc\n" + GOOD
    assert lines_of(text) == [1, 3]
    assert [mistake.line for mistake in mistakes(text)] == [2]


def test_lines_inside_a_text_are_no_statements():
    text = 'a = """x\nb = 3\nimport c\n"""\nd = 1e4x\ne = """x\nf = 3\n""" junk\ng = 5\n'
    assert lines_of(text) == [1, 9]
    assert [(m.line, m.names) for m in mistakes(text)] == [(5, ["d"]), (8, ["e"])]


def test_statements_may_stand_however_gin_takes_them():
    text = (
        "\ufeff"[1:] + "# comment\r\n\r\na.b = (\r\n1, # one\r\n)\r\n  c = 'x' \\\r\n 'y'\r\n"
        "d.e:\r\n  # comment\r\n  f = {\r\n'g': 1}\r\n\r\n  h = @i()\r\nimport j.k\r\n"
    )
    assert mistakes(text) == []
    assert lines_of(text) == [3, 6, 10, 13, 14]
    values = [p.statement.value for p in parse(text)[:3]]
    assert values == [(1,), "xy", {"g": 1}]


def test_names_that_a_mapping_sets_twice_are_told_with_the_lines_of_the_text():
    (parsed,) = parse("\n\na.b = {\n  'c': 1,\n  'c': 2,\n}\n")
    assert parsed.repeated == [("c", 5, 4)]


def test_whoever_makes_very_many_mistakes_is_told_a_hundred():
    told = mistakes("n = six\n" * 1000)
    assert len(told) == 100
    assert [mistake.hides_more for mistake in told] == [False] * 99 + [True]


def test_a_text_of_thousands_of_pieces_is_refused_at_once():
    # Gin's parser alone takes minutes for it.
    (mistake,) = mistakes(GOOD + "n = " + "'a' " * 50_000)
    assert (mistake.line, mistake.names) == (2, ["n"])


@given(st.text(st.sampled_from("ab.=:/%@{}[]()'\"\\\n\t #,-1"), max_size=40))
def test_any_text_comes_to_an_end_with_lines_in_their_order(text):
    pieces = list(parse(text))
    assert all(1 <= piece.line <= text.count("\n") + 1 for piece in pieces)


def test_a_pattern_with_signs_that_are_no_escapes_is_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (parsed,) = parse(r"a.b = {'blocks\.\d+': 'x\,'}")
    assert parsed.repeated == []
    assert parsed.statement.value == {r"blocks\.\d+": r"x\,"}


def test_a_line_that_is_indented_like_nothing_is_told_where_it_stands_and_hides_no_other():
    text = "A:\n    x = 1\n  y = 2\nB.c = six\nm = 3\nD.e = %m\n"
    assert [mistake.line for mistake in mistakes(text)] == [3, 4]
    assert lines_of(text) == [2, 3, 5, 6]


@pytest.mark.parametrize("bad", ["A.b = )\n", "]\n"])
def test_behind_a_bracket_that_closes_too_much_brackets_hold_lines_together(bad):
    text = bad + "C.d = {\n'x': 1,\n}\nE.f = 2\n"
    assert lines_of(text) == [2, 5]
    assert [mistake.line for mistake in mistakes(text)] == [1]


def test_an_open_bracket_in_a_block_may_hide_its_other_lines():
    (mistake,) = mistakes("A:\n  b = (\n  c = 2\nD.e = 4\n")
    assert (mistake.line, mistake.names, mistake.hides_more) == (2, ["A.b"], True)


def test_what_follows_in_one_line_may_set_something_too():
    (mistake,) = mistakes("A.b = 1; m = 2\n")
    assert (mistake.names, mistake.hides_more) == (["A.b"], True)


def test_a_line_that_is_indented_further_than_its_block_is_told():
    (mistake,) = mistakes("A:\n  b = 1\n    c = 2\n  d = 3\n")
    assert (mistake.line, mistake.names) == (3, ["A.c"])
    assert mistake.message == "this line is indented further than the others of its block"
    assert lines_of("A:\n  b = 1\n    c = 2\n  d = 3\n") == [2, 4]


def test_heads_of_blocks_stand_however_gin_takes_them():
    text = "  A:\n    b = 1\n  c = 2\n\x0cD.e = 3\nF:\n  g = 4\n\x0cH.i = 5\n"
    assert mistakes(text) == []
    found = [piece.statement for piece in parse(text)]
    assert [(s.selector, s.arg_name) for s in found] == [
        ("A", "b"),
        ("c", ""),
        ("D", "e"),
        ("F", "g"),
        ("H", "i"),
    ]


@pytest.mark.parametrize("text", ["A.b = [1,\n" * 10_000, "A.b = ]\n" * 10_000])
def test_a_page_of_brackets_is_given_up_early(text):
    told = mistakes(text)
    assert 0 < len(told) <= 100
    assert told[-1].hides_more
