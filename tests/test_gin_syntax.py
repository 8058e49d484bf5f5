import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.config.gin_mappings import repeated_names
from lm_core.config.gin_syntax import Mistake, parse, tokens

GOOD = "Trainer.seed = 3\n"


def mistakes(text):
    return [piece for piece in parse(text) if isinstance(piece, Mistake)]


def lines_of(text):
    return [piece[0] for piece in parse(text) if not isinstance(piece, Mistake)]


BAD = [
    "n = six\n",
    "n = {\n",
    "n = '''abc\n",
    'n = "abc\n',
    "n m = 3\n",
    "n\n",
    "$\n",
    "n = 05\n",
    "n = {[]: 3}\n",
    "n = 'C:\\Users'\n",
    "a.b:\n  c = six\n  d = 4\n",
    "a.b:\n",
    "include 3\n",
    "n =\n",
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
            Mistake(2, "'six' is no value; a text needs quotes", ["x"], [], True),
        ),
    ],
)
def test_a_mistake_tells_what_nobody_knows_for_it(text, mistake):
    assert mistakes(text) == [mistake]


def test_a_name_without_a_value_hides_what_was_meant():
    (mistake,) = mistakes("Transformer n_layers 6\n")
    assert mistake.hides_more


def test_whoever_makes_very_many_mistakes_is_told_a_hundred():
    told = mistakes("n = six\n" * 1000)
    assert len(told) == 100
    assert [mistake.hides_more for mistake in told] == [False] * 99 + [True]


def test_a_text_of_thousands_of_pieces_is_refused_at_once():
    # Gin's parser alone takes minutes for it.
    (mistake,) = mistakes(GOOD + "n = " + "'a' " * 50_000)
    assert mistake.line == 2
    assert mistake.hides_more


@given(st.text(st.sampled_from("ab.=:/%@{}[]()'\"\\\n\t #,-1"), max_size=40))
def test_any_text_comes_to_an_end_with_lines_in_their_order(text):
    pieces = list(parse(text))
    places = [piece.line if isinstance(piece, Mistake) else piece[0] for piece in pieces]
    assert all(1 <= place <= text.count("\n") + 1 for place in places)
    list(tokens(text))


def test_a_pattern_with_signs_that_are_no_escapes_is_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ((_, statement),) = parse(r"a.b = {'blocks\.\d+': 'x\,'}")
        assert repeated_names(r"a.b = {'blocks\.\d+': 'x\,'}") == []
    assert statement.value == {r"blocks\.\d+": r"x\,"}
