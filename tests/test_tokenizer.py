import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm_core.data import text_files
from lm_core.data.bpe import BpeTokenizer
from lm_core.data.corpus import load_corpus
from lm_core.data.splitting import split_corpus
from lm_core.data.text_files import Block
from lm_core.data.token_store import encode_corpus
from lm_core.data.tokenizer import (
    AsciiTokenizer,
    ByteTokenizer,
    CharTokenizer,
    build_tokenizer,
    tokenizer_from_dict,
)
from lm_core.errors import InputError
from tests.letter_pairs import LetterPairs
from tests.small_bpe import tokenizer_json

characters = st.characters(exclude_categories=["Cs"])
texts = st.text(characters, min_size=1)
ascii_texts = st.text(st.characters(max_codepoint=127), min_size=1)


def char_tokenizer(text):
    return CharTokenizer("".join(sorted(set(text))))


def corpus_of(folder, text):
    (folder / "poems.txt").write_bytes(text.encode())
    return load_corpus(str(folder / "poems.txt"))


@given(texts)
def test_byte_and_char_take_any_text_and_give_it_back(text):
    for tokenizer in (ByteTokenizer(), char_tokenizer(text)):
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text
        assert tokens.dtype == tokenizer.dtype
        assert int(tokens.max()) < tokenizer.vocab_size


@given(ascii_texts)
def test_ascii_is_the_code_of_each_character(text):
    tokens = AsciiTokenizer().encode(text)
    assert tokens.tolist() == [ord(character) for character in text]
    assert AsciiTokenizer().decode(tokens) == text


@given(texts)
def test_char_numbers_the_sorted_characters(text):
    vocabulary = sorted(set(text))
    tokens = char_tokenizer(text).encode(text)
    assert tokens.tolist() == [vocabulary.index(character) for character in text]


@given(texts)
def test_counted_bytes_are_those_of_utf8(text):
    for tokenizer in (ByteTokenizer(), char_tokenizer(text)):
        assert tokenizer.count_bytes(tokenizer.encode(text)) == len(text.encode())


def test_sizes_and_dtypes():
    many = CharTokenizer("".join(map(chr, range(1, 400))))
    assert (AsciiTokenizer().vocab_size, AsciiTokenizer().dtype) == (128, np.uint8)
    assert (ByteTokenizer().vocab_size, ByteTokenizer().dtype) == (256, np.uint8)
    assert (many.vocab_size, many.dtype) == (399, np.uint16)
    assert CharTokenizer("".join(map(chr, range(256)))).dtype == np.uint8
    assert CharTokenizer("".join(map(chr, range(257)))).dtype == np.uint16


@given(texts)
def test_a_tokenizer_is_made_again_from_its_description(text):
    for tokenizer in (AsciiTokenizer(), ByteTokenizer(), char_tokenizer(text)):
        again = tokenizer_from_dict(tokenizer.to_dict())
        assert type(tokenizer).from_dict(tokenizer.to_dict()) == again
        assert type(again) is type(tokenizer)
        assert again == tokenizer
        assert hash(again) == hash(tokenizer)


def test_tokenizers_that_encode_differently_are_not_equal():
    assert AsciiTokenizer() != ByteTokenizer()
    assert CharTokenizer("ab") != CharTokenizer("ac")


def test_the_configured_kind_is_built(tmp_path):
    corpus = corpus_of(tmp_path, "banana")
    assert isinstance(build_tokenizer(split_corpus(corpus)), AsciiTokenizer)
    assert isinstance(build_tokenizer(split_corpus(corpus), kind="byte"), ByteTokenizer)
    assert build_tokenizer(split_corpus(corpus), kind="char") == CharTokenizer("abn")


def test_an_unknown_kind_lists_those_that_exist(tmp_path):
    with pytest.raises(ValueError, match=r"mean byte\? \(there are ascii, char, byte, bpe\)"):
        build_tokenizer(split_corpus(corpus_of(tmp_path, "x")), kind="bytes")


def test_a_character_that_ascii_lacks_is_told_with_its_place(tmp_path):
    corpus = corpus_of(tmp_path, "one\ntwo é three\n")
    with pytest.raises(ValueError, match=r"ascii tokenizer has no 'é' \(U\+00E9\)") as error:
        encode_corpus(corpus, AsciiTokenizer())
    message = str(error.value)
    assert f"{tmp_path / 'poems.txt'}: line 2, column 5 (character 9)" in message
    assert "training with char or byte takes it" in message


@given(
    st.text(st.sampled_from("ab\n"), max_size=30),
    st.sampled_from("é€🙂"),
    st.text(st.sampled_from("ab\né🙂"), max_size=10),
    st.integers(1, 9),
)
def test_the_place_is_right_in_whatever_block_it_lies(tmp_path_factory, before, bad, after, size):
    corpus = corpus_of(tmp_path_factory.mktemp("text"), before + bad + after)
    line = before.count("\n") + 1
    column = len(before.split("\n")[-1]) + 1
    place = rf"line {line}, column {column} \(character {len(before) + 1}\).*U\+{ord(bad):04X}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "_BLOCK_BYTES", size)
        for tokenizer in (AsciiTokenizer(), CharTokenizer("\nab")):
            with pytest.raises(ValueError, match=place):
                encode_corpus(corpus, tokenizer)


def test_a_prompt_with_a_foreign_character_is_told_as_the_prompt():
    with pytest.raises(
        ValueError, match=r"^the prompt: line 1, column 3 .*'x'.*; training with byte takes it"
    ):
        CharTokenizer("ab").encode("abx", where="the prompt")


def test_half_a_surrogate_pair_is_no_text():
    for tokenizer in (ByteTokenizer(), AsciiTokenizer(), CharTokenizer("a")):
        with pytest.raises(ValueError, match="character 2 is half of a surrogate pair"):
            tokenizer.encode("a\ud800")


def test_a_block_that_is_no_text_any_more_is_told_with_the_byte():
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8 text: byte 12 is 0xff"):
        CharTokenizer("ab").encode_block(Block(b"ab\xff", "a.txt", 10))


def test_bytes_that_are_no_text_decode_to_replacement_characters():
    assert ByteTokenizer().decode(np.array([0x61, 0xFF, 0x62])) == "a�b"


TOKENIZERS = [AsciiTokenizer(), ByteTokenizer(), CharTokenizer("abc"), LetterPairs()]
TOKENIZERS.append(BpeTokenizer(tokenizer_json()))


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
def test_what_is_no_token_is_told_with_the_range_of_those_that_are(tokenizer):
    last = tokenizer.vocab_size - 1
    known = f"token ids, integers from 0 to {last:,}"
    for wrong in (-1, last + 1, 2**40, -(2**40)):
        for tokens in ([1, wrong], np.array([1, wrong, wrong])):
            with pytest.raises(InputError) as told:
                tokenizer.decode(tokens)
            message = f"decode: {wrong} at place 1 is none of the tokenizer's {known}"
            assert told.value.message == message
    for no_row in (5, None, "abc", [1.0], [True], [[1]], [[1], [1, 2]], [2**70], ["a"]):
        with pytest.raises(InputError, match=f"decode takes a row of {known}"):
            tokenizer.decode(no_row)
    with pytest.raises(InputError, match="and no such Tensor"):
        tokenizer.decode(torch.ones(1, requires_grad=True))


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
def test_tokens_may_come_in_any_row_of_integers(tokenizer):
    tokens = tokenizer.encode("abc")
    for row in (tokens.tolist(), tuple(tokens), tokens.astype(np.uint64), torch.tensor(tokens)):
        assert tokenizer.decode(row) == "abc"
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
@pytest.mark.parametrize("what", [5, None, b"abc", ["a"]])
def test_what_is_no_text_is_not_encoded(tokenizer, what):
    with pytest.raises(InputError, match=r"^the text: .* is no text, a str$"):
        tokenizer.encode(what)


@given(texts, st.integers(1, 6))
def test_encoding_in_blocks_is_encoding_the_whole(tmp_path_factory, text, size):
    text = text.replace("\0", " ")
    corpus = corpus_of(tmp_path_factory.mktemp("text"), text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "_BLOCK_BYTES", size)
        for tokenizer in (ByteTokenizer(), build_tokenizer(split_corpus(corpus), "char")):
            assert np.array_equal(encode_corpus(corpus, tokenizer), tokenizer.encode(text))


@pytest.mark.parametrize(
    "tokenizer", [AsciiTokenizer(), ByteTokenizer(), CharTokenizer("abcdefghij")]
)
def test_encoding_and_decoding_do_not_loop_over_characters(tokenizer):
    lines = []

    def trace(frame, event, argument):
        lines.append(event)
        return trace

    block = Block(b"abcdefghij" * 1000, "text", 0)
    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        tokens = tokenizer.encode_block(block)
        text = tokenizer.decode(tokens)
    finally:
        sys.settrace(previous)
    assert len(text) == 10_000
    assert len(lines) < 100


@pytest.mark.parametrize(
    "data",
    [
        {},
        None,
        [],
        {"kind": "bpe"},
        {"kind": ["ascii"]},
        {"kind": "char"},
        {"kind": "char", "characters": ""},
        {"kind": "char", "characters": "ba"},
        {"kind": "char", "characters": "aa"},
        {"kind": "char", "characters": "a\ud800"},
        {"kind": "char", "characters": 7},
    ],
)
def test_what_describes_no_tokenizer_is_refused(data):
    with pytest.raises(ValueError, match="tokenizer"):
        tokenizer_from_dict(data)


@pytest.mark.parametrize("tokenizer_class", [AsciiTokenizer, ByteTokenizer, CharTokenizer])
def test_a_tokenizer_refuses_the_description_of_another_kind(tokenizer_class):
    with pytest.raises(ValueError, match=f"'bpe' describes no {tokenizer_class.kind} tokenizer"):
        tokenizer_class.from_dict({"kind": "bpe", "characters": "ab"})
