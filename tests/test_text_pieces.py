"""Where a text can be cut for byte-level BPE: the package itself is the judge."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.data.text_pieces import has_place_inside, pieces_of
from tests.small_bpe import SPLITTINGS, TEXT, package_ids, texts, texts_in_parts, tokenizer_json

NO_LIMIT = 10**6


@pytest.mark.parametrize("splitting", SPLITTINGS)
@given(text=texts)
@settings(max_examples=300)
def test_the_pieces_have_the_tokens_of_the_whole(splitting, text):
    of = tokenizer_json(splitting)
    pieces = list(pieces_of([text], 1, NO_LIMIT))
    assert [i for piece in pieces for i in package_ids(of, piece)] == package_ids(of, text)


@given(texts_in_parts(), st.integers(1, 9), st.integers(0, 9))
def test_where_a_text_is_cut_does_not_depend_on_its_parts(text_and_parts, at_least, more):
    text, parts = text_and_parts
    pieces = list(pieces_of(parts, at_least, at_least + more))
    assert pieces == list(pieces_of([text], at_least, at_least + more))
    assert "".join(pieces) == text
    assert all(pieces)
    assert all(len(piece) <= at_least + more for piece in pieces)
    assert all(len(piece) >= at_least for piece in pieces[:-1])


@given(texts, texts, texts)
def test_what_has_no_place_inside_is_never_cut(before, text, after):
    if has_place_inside(text):
        return
    ends = []
    for piece in pieces_of([before + text + after], 1, NO_LIMIT):
        ends.append(len(piece) + (ends[-1] if ends else 0))
    assert not [end for end in ends if len(before) < end < len(before + text)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("one two  three", ["one", " two", "  three"]),
        ("one\n\n two\n", ["one", "\n\n two", "\n"]),
        ("a;\nb", ["a;\nb"]),
        ("猫は猫、犬は犬。\n日本", ["猫は猫", "、犬は犬", "。\n日本"]),
        ("zero\u200b width", ["zero\u200b width"]),
        ("", []),
    ],
)
def test_a_text_is_cut_before_spaces_line_ends_and_the_marks_of_scripts_without(text, pieces):
    assert list(pieces_of([text], 1, NO_LIMIT)) == pieces


def test_a_stretch_without_a_place_is_cut_after_its_limit():
    assert list(pieces_of(["x" * 25 + " y"], 4, 10)) == ["x" * 10, "x" * 10, "x" * 5, " y"]
    assert list(pieces_of(["x"] * 25, 4, 10)) == ["x" * 10, "x" * 10, "x" * 5]


def test_pieces_of_usual_text_are_hardly_longer_than_they_must_be():
    pieces = list(pieces_of([TEXT * 20], 50, NO_LIMIT))
    assert max(map(len, pieces)) < 100
