"""Tokenizers of ours as transformers reads them: the same ids, the same text."""

import functools
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lm_core.data.tokenizer import AsciiTokenizer, ByteTokenizer, CharTokenizer
from lm_core.errors import InputError
from lm_core.exchange.tokenizer_files import (
    read_tokenizer,
    tokenizer_files,
    tokenizer_json,
)
from tests import exchanged  # noqa: F401 -- keeps transformers off the network

# What normalizers, splitters and special tokens of other tokenizers trip over.
HARD = (
    "Hällo  wörld \n\n\t it's n't , . ! 'tis\r\n\u2028\u00a0\U0001f600e\u0301é\ufeff\u0130"
    " \u017f <s></s> 你好"
)
CHAR = CharTokenizer("".join(sorted(set(HARD))))
TOKENIZERS = [AsciiTokenizer(), ByteTokenizer(), CHAR]
# A family of models, whose own tokenizer transformers must not take instead.
MODEL_TYPES = ("gpt2", "llama")
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
TEXTS = {
    "ascii": st.text(st.characters(max_codepoint=127), max_size=40),
    "byte": any_text,
    "char": st.text(st.sampled_from(CHAR.characters), max_size=40),
}


def write(folder, tokenizer, model_type="gpt2"):
    for name, text in tokenizer_files(tokenizer, 64).items():
        (folder / name).write_text(text)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


@functools.cache
def theirs_of(kind, model_type):
    (tokenizer,) = (one for one in TOKENIZERS if one.kind == kind)
    with tempfile.TemporaryDirectory() as name:
        return AutoTokenizer.from_pretrained(write(Path(name), tokenizer, model_type))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
def test_any_text_has_the_ids_that_it_has_here_and_comes_back(tokenizer, model_type):
    theirs = theirs_of(tokenizer.kind, model_type)
    assert len(theirs) == tokenizer.vocab_size

    @settings(max_examples=40)
    @given(TEXTS[tokenizer.kind])
    def check(text):
        ids = tokenizer.encode(text).tolist()
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text

    check()
    hard = HARD.encode("ascii", errors="ignore").decode() if tokenizer.kind == "ascii" else HARD
    assert theirs(hard)["input_ids"] == tokenizer.encode(hard).tolist()
    assert theirs.decode(tokenizer.encode(hard).tolist()) == hard


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
def test_any_ids_are_the_text_that_they_are_here(tokenizer):
    theirs = theirs_of(tokenizer.kind, "gpt2")

    @settings(max_examples=40)
    @given(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    def check(ids):
        assert theirs.decode(ids) == tokenizer.decode(np.array(ids, dtype=tokenizer.dtype))

    check()


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda tokenizer: tokenizer.kind)
def test_what_was_written_here_is_found_again_also_after_transformers_wrote_it(tokenizer, tmp_path):
    write(tmp_path, tokenizer)
    assert read_tokenizer(tmp_path) == tokenizer
    again = tmp_path / "again"
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(again)
    assert read_tokenizer(again) == tokenizer
    assert tokenizer.separator is None


def test_the_character_vocabulary_may_be_any(tmp_path):
    @settings(max_examples=40)
    @given(st.sets(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
    def check(characters):
        tokenizer = CharTokenizer("".join(sorted(characters)))
        with tempfile.TemporaryDirectory() as name:
            folder = write(Path(name), tokenizer)
            assert read_tokenizer(folder) == tokenizer
            ours = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert ours.encode(tokenizer.characters).ids == list(range(tokenizer.vocab_size))

    check()


def changed(**changes):
    table = json.loads(tokenizer_json(CHAR))
    for path, value in changes.items():
        *outer, last = path.split("__")
        place = table
        for name in outer:
            place = place[name]
        place[last] = value
    return json.dumps(table)


@pytest.mark.parametrize(
    "text",
    [
        changed(normalizer={"type": "Lowercase"}),
        changed(pre_tokenizer={"type": "Whitespace"}),
        changed(decoder=None),
        changed(model__unk_token="a"),
        changed(model__vocab={"a": 1, "b": 0}),
        changed(model__vocab={}),
        changed(model__vocab={"\ud800": 0}),
        changed(model=[]),
        changed(model__type="WordLevel"),
        "[]",
        "{}",
        "{",
        "[" * 100_000,
        "\udcff",
    ],
)
def test_what_is_not_ours_is_not_taken_for_ours(text, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        read_tokenizer(tmp_path)


def test_a_folder_without_one_is_told_what_writes_it(tmp_path):
    with pytest.raises(InputError, match=r"has no tokenizer.json.*save_pretrained"):
        read_tokenizer(tmp_path)
