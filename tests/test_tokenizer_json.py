"""Which tokenizers of others lose nothing, and what is said of those that do."""

import json

import pytest

from lm_core.config.fields import LARGEST_VOCABULARY
from lm_core.data.tokenizer_json import (
    PATTERNS,
    byte_of_character,
    described,
)
from lm_core.errors import InputError
from tests.small_bpe import SPLITTINGS, changed, changed_model, tokenizer_json

VOCABULARY = json.loads(tokenizer_json())["model"]["vocab"]
BYTES = {"type": "ByteLevel", "add_prefix_space": False}
SEPARATOR = {"id": 0, "content": "<|endoftext|>", "special": True}


def added(content, special=False, **more):
    token = {"id": len(VOCABULARY), "content": content, "special": special, **more}
    return changed(added_tokens=[SEPARATOR, token])


def with_id(number):
    return changed_model(vocab={**VOCABULARY, "ab": number})


def splitting(**split):
    return changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [split, BYTES]})


@pytest.mark.parametrize("name", SPLITTINGS)
def test_byte_level_bpe_in_all_known_forms_is_taken(name):
    found = described(tokenizer_json(name))
    assert found.separator == 0
    assert found.names == {0: "<|endoftext|>"}
    assert found.spellings[0] == b""
    assert {spelling for spelling in found.spellings if len(spelling) == 1} == {
        bytes([byte]) for byte in range(256)
    }


def test_the_characters_of_bytes_are_those_of_gpt2():
    of = byte_of_character()
    assert sorted(of.values()) == list(range(256))
    assert {character: of[character] for character in "a~¡ÿĀĠĊŃ"} == {
        "a": 0x61, "~": 0x7E, "¡": 0xA1, "ÿ": 0xFF, "Ā": 0, "Ġ": 0x20, "Ċ": 0x0A, "Ń": 0xAD
    }  # fmt: skip


def test_what_is_done_to_texts_besides_is_left_out():
    text = changed(
        truncation={"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        post_processor={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False},
        normalizer={"type": "Sequence", "normalizers": []},
    )
    for_package = json.loads(described(text).for_package)
    assert not [
        for_package[n] for n in ("truncation", "post_processor", "normalizer") if for_package[n]
    ]


def test_the_end_of_a_text_has_the_name_that_gpt2_or_llama_gave_it():
    assert described(added("<|end_of_text|>", special=True)).separator == 0
    llama = {"id": 0, "content": "<|end_of_text|>", "special": True}
    vocabulary = {c: i for c, i in VOCABULARY.items() if c != "<|endoftext|>"}
    model = {**json.loads(tokenizer_json())["model"], "vocab": vocabulary}
    assert described(changed(model=model, added_tokens=[llama])).separator == 0
    other = {"id": 0, "content": "<s>", "special": True}
    assert described(changed(model=model, added_tokens=[other])).separator is None


def test_added_tokens_stand_for_their_text_and_special_ones_for_none():
    found = described(added("    "))
    assert found.spellings[-1] == b"    "
    assert described(added("é🙂")).spellings[-1] == "é🙂".encode()
    found = described(added("<pad>", special=True))
    assert found.spellings[-1] == b""
    assert found.names[len(VOCABULARY)] == "<pad>"


def test_ids_without_a_token_stand_for_nothing():
    token = {"id": len(VOCABULARY) + 7, "content": "<pad>", "special": True}
    found = described(changed(added_tokens=[SEPARATOR, token]))
    assert found.spellings[-8:] == [b""] * 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ("[]", 'it is no tokenizer.json: it has no object "model"'),
        ('{"model": []}', 'it is no tokenizer.json: it has no object "model"'),
        (changed_model(type="Unigram"), "its model is 'Unigram'; the lab takes byte-level BPE"),
        (changed_model(type="WordPiece"), "its model is 'WordPiece'"),
        (changed_model(dropout=0.1), "its dropout is 0.1: it encodes at random"),
        (changed_model(end_of_word_suffix="</w>"), "its end_of_word_suffix is '</w>'"),
        (changed_model(continuing_subword_prefix="##"), "its continuing_subword_prefix is '##'"),
        (changed(normalizer={"type": "NFC"}), "its normalizer, 'NFC', changes the text"),
        (changed(normalizer={"type": "Lowercase"}), "its normalizer, 'Lowercase', changes"),
        (changed(normalizer="x"), "its normalizer, null, changes"),
        (changed(pre_tokenizer=None), "its pre_tokenizer does not end with ByteLevel"),
        (changed(pre_tokenizer={"type": "Metaspace"}), "does not end with ByteLevel"),
        (changed(pre_tokenizer={"type": "Sequence"}), 'without a list of "pretokenizers"'),
        (changed(pre_tokenizer={"type": "ByteLevel"}), "puts a space in front"),
        (changed(pre_tokenizer={**BYTES, "add_prefix_space": True}), "puts a space in front"),
        (changed(pre_tokenizer={**BYTES, "use_regex": False}), "parts no text into words"),
        (splitting(type="Whitespace"), "its pre_tokenizer is 'Whitespace'; the lab knows Split"),
        (splitting(type="Split", pattern={"Regex": ".*"}), "its pattern '.*' is not that of GPT-2"),
        (splitting(type="Split", pattern={"String": " "}), "its pattern {'String': ' '} is not"),
        (
            splitting(
                type="Split",
                pattern={"Regex": PATTERNS[0]},
                behavior="Removed",
            ),
            "its pre_tokenizer splits as 'Removed', and loses text",
        ),
        (changed_model(vocab=[]), "its vocabulary is no object"),
        (changed_model(vocab={"a": 1}), "it has no token for the byte 0x00"),
        (with_id(1.5), "the id of its token 'ab' is 1.5, no number"),
        (with_id(True), "the id of its token 'ab' is true"),
        (with_id(-1), "the id of its token 'ab' is -1"),
        (with_id(LARGEST_VOCABULARY), "no number from 0 to 1,048,575"),
        (changed_model(vocab={**VOCABULARY, "zzq": 5}), "two of its tokens have one id"),
        (changed(added_tokens={}), 'its "added_tokens" are no list'),
        (changed(added_tokens=["x"]), 'one of its "added_tokens" has no content'),
        (changed(added_tokens=[{"content": "x"}]), "the id of its token 'x' is null"),
        (changed(added_tokens=[SEPARATOR, SEPARATOR]), "stands twice"),
        (added("  ", lstrip=True), "its token '  ' takes or minds what stands beside it"),
        (added("two words"), "its added token 'two words' is more than one word"),
        (added("\ud800"), "is no text"),
        (changed(added_tokens=[{"id": VOCABULARY["a"], "content": "a", "special": True}]),
         "its token 'a' is special or added, and of text as well"),
        (changed(added_tokens=[{"id": VOCABULARY["Ġ"], "content": "Ġ"}]),
         "its token 'Ġ' is special or added, and of text as well"),
    ],
)  # fmt: skip
def test_what_loses_something_is_refused_with_the_reason(text, message):
    with pytest.raises(InputError, match=message) as error:
        described(text)
    assert "\n" not in error.value.message


def test_a_special_token_that_merges_make_is_refused():
    merged = next(
        content for content in VOCABULARY if len(content) > 1 and content != "<|endoftext|>"
    )
    token = {"id": VOCABULARY[merged], "content": merged, "special": True}
    with pytest.raises(InputError, match="is special or added, and of text as well"):
        described(changed(added_tokens=[SEPARATOR, token]))


def test_a_special_token_of_several_words_may_not_hide_one_that_is_text():
    hiding = {"id": len(VOCABULARY) + 1, "content": "a b<x>", "special": True}
    hidden = {"id": len(VOCABULARY), "content": "<x>", "special": False}
    with pytest.raises(InputError, match=r"its special token 'a b<x>' .* may hide .* '<x>'"):
        described(changed(added_tokens=[SEPARATOR, hiding, hidden]))
    # Alone, or in one word, neither does any harm.
    described(changed(added_tokens=[SEPARATOR, {**hiding, "id": len(VOCABULARY)}]))
    described(changed(added_tokens=[SEPARATOR, {**hiding, "content": "b<x>"}, hidden]))
