import functools
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.data.characters import (
    SURROGATES,
    CharacterNumbers,
    OccurringCharacters,
    UnknownCharacterError,
)

# The last and first characters that UTF-8 spells with one byte more, and ends of what fits where.
EDGES = "\x01\x7f\x80\xff\u0100\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"
anything = st.characters(exclude_categories=["Cs"])
texts = st.text(st.one_of(st.sampled_from(EDGES + "abé€🙂"), anything), min_size=1)


def numbers_of(vocabulary):
    return CharacterNumbers(np.array([ord(character) for character in vocabulary]))


@given(texts, st.text(anything))
def test_a_number_is_the_place_among_all_known_characters(text, more):
    vocabulary = sorted(set(text + more))
    found = numbers_of(vocabulary).of(text.encode())
    assert found.tolist() == [vocabulary.index(character) for character in text]
    assert found.dtype == np.min_scalar_type(len(vocabulary) - 1)


@given(texts)
def test_the_characters_that_occur_are_found_in_whatever_blocks(text):
    occurring = OccurringCharacters()
    for part in text.splitlines(keepends=True):
        occurring.add(part.encode())
    assert occurring.sorted() == "".join(sorted(set(text)))


@given(texts, st.data())
def test_the_first_unknown_character_is_told_by_its_byte(text, data):
    unknown = data.draw(st.sampled_from(text))
    vocabulary = sorted(set(text + "x") - {unknown})
    if not vocabulary:
        vocabulary = ["y" if unknown == "x" else "x"]
    with pytest.raises(UnknownCharacterError) as error:
        numbers_of(vocabulary).of(text.encode())
    assert error.value.offset == len(text[: text.index(unknown)].encode())


@pytest.mark.parametrize("n", [255, 256, 257, 65_535, 65_536, 65_537])
def test_vocabularies_that_fill_a_type_know_all_their_characters_and_no_other(n):
    vocabulary = [chr(i) for i in range(n + 2048) if not 0xD800 <= i < 0xE000][:n]
    numbers = numbers_of(vocabulary)
    assert np.array_equal(numbers.of("".join(vocabulary).encode()), np.arange(n))
    with pytest.raises(UnknownCharacterError):
        numbers.of("🙂🙃".encode())


def test_all_of_latin_1_is_known_as_the_rest_of_a_larger_vocabulary():
    vocabulary = "".join(map(chr, range(256))) + "€"
    assert numbers_of(vocabulary).of("ÿa€".encode()).tolist() == [255, 97, 256]
    assert numbers_of(vocabulary).of("ÿa".encode()).tolist() == [255, 97]


@given(st.data(), st.sampled_from([3, 100, 300]))
def test_few_characters_among_many_of_ascii_are_put_in_their_places(data, n_more):
    rare = st.text(st.one_of(st.sampled_from(EDGES[2:]), anything), min_size=1, max_size=5)
    parts = data.draw(st.lists(rare, min_size=1, max_size=8))
    plain = data.draw(st.text(st.characters(max_codepoint=127), max_size=5))
    text = (plain + "abc " * 60).join(["", *parts])
    vocabulary = sorted(set(text) | set(map(chr, range(0x1000, 0x1000 + n_more))))
    numbers, occurring = numbers_of(vocabulary), OccurringCharacters()
    occurring.add(text.encode())
    assert occurring.sorted() == "".join(sorted(set(text)))
    assert numbers.of(text.encode()).tolist() == [vocabulary.index(c) for c in text]
    unknown = data.draw(st.sampled_from(text))
    with pytest.raises(UnknownCharacterError) as error:
        numbers_of([c for c in vocabulary if c != unknown]).of(text.encode())
    assert error.value.offset == len(text[: text.index(unknown)].encode())


not_utf_8 = st.binary(max_size=12) | st.binary(min_size=1, max_size=4).map(
    lambda data: "aé€🙂".encode() + data + "é".encode()
)


@functools.cache
def all_characters():
    return CharacterNumbers(np.array([i for i in range(0x110000) if i not in SURROGATES]))


@given(not_utf_8)
def test_what_python_refuses_as_utf_8_is_refused_and_nothing_else(data):
    everything = all_characters()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        for take in (everything.of, OccurringCharacters().add):
            with pytest.raises(UnicodeDecodeError):
                take(data)
        return
    numbers = everything.of(data)
    assert "".join(chr(i if i < 0xD800 else i + 2048) for i in numbers.tolist()) == text
    occurring = OccurringCharacters()
    occurring.add(data)
    assert occurring.sorted() == "".join(sorted(set(text)))


def test_every_start_of_four_bytes_is_read_as_python_reads_it():
    """All first bytes, with others from the ends of what may follow."""
    edges = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF]
    occurring = OccurringCharacters()
    rests = [rest for n in range(4) for rest in itertools.product(edges, repeat=n)]
    for first, rest in itertools.product(range(256), rests):
        data = bytes([first, *rest])
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            with pytest.raises(UnicodeDecodeError):
                occurring.add(data)
        else:
            occurring.add(data)


def test_nothing_has_no_numbers():
    assert numbers_of("ab").of(b"").tolist() == []
