"""Byte-level BPE of ours as transformers reads it, and of transformers as the lab reads it."""

import functools
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lm_core.data.bpe import BpeTokenizer
from lm_core.exchange.exporting import write_folder
from lm_core.exchange.importing import read_folder
from lm_core.exchange.tokenizer_files import read_tokenizer, tokenizer_files
from tests.exchanged import assert_equal_logits, loaded, shaken
from tests.small_bpe import SPLITTINGS, texts, tokenizer_json

LLAMA = {"position": "rope", "norm": "rmsnorm", "activation": "swiglu"}


@functools.cache
def theirs_of(splitting, model_type="gpt2"):
    tokenizer = BpeTokenizer(tokenizer_json(splitting))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in tokenizer_files(tokenizer, 64).items():
            (folder / file).write_text(text)
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        return tokenizer, AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_any_text_has_the_ids_that_it_has_here(splitting):
    @settings(max_examples=40)
    @given(texts)
    def check(text):
        for model_type in ("gpt2", "llama"):
            ours, theirs = theirs_of(splitting, model_type)
            ids = ours.encode(text).tolist()
            assert theirs(text, add_special_tokens=False)["input_ids"] == ids
            assert theirs(text)["input_ids"] == ids
            assert theirs.decode(ids) == text

    check()


def test_any_ids_are_the_text_that_they_are_here_special_ones_by_their_names():
    ours, theirs = theirs_of("byte level")

    @settings(max_examples=60)
    @given(st.lists(st.integers(0, ours.vocab_size - 1), max_size=30))
    def check(ids):
        assert theirs.decode(ids) == ours.decode(np.array(ids, dtype=ours.dtype))

    check()


def test_the_separator_ends_a_text_of_transformers():
    ours, theirs = theirs_of("byte level")
    assert theirs.eos_token == "<|endoftext|>"
    assert theirs.eos_token_id == ours.separator


@pytest.mark.parametrize("choices", [{}, LLAMA], ids=["gpt2", "llama"])
def test_a_model_goes_there_and_back_with_its_tokenizer(choices, tmp_path):
    tokenizer = BpeTokenizer(tokenizer_json())
    model = shaken(tokenizer.vocab_size, **choices)
    write_folder(model, tokenizer, tmp_path / "a")
    theirs, its_tokenizer = loaded(tmp_path / "a")
    assert_equal_logits(model, theirs)
    assert theirs.config.eos_token_id == tokenizer.separator
    assert theirs.generation_config.eos_token_id == tokenizer.separator
    assert read_folder(tmp_path / "a").tokenizer == tokenizer
    # As whoever trains it with transformers leaves it.
    theirs.save_pretrained(tmp_path / "b")
    its_tokenizer.save_pretrained(tmp_path / "b")
    again = read_folder(tmp_path / "b")
    assert again.tokenizer.kind == "bpe"
    assert again.tokenizer.separator == tokenizer.separator
    assert_equal_logits(again.model, theirs)


def test_a_tokenizer_of_the_package_is_read_as_it_is(tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer_json("digits"))
    assert read_tokenizer(tmp_path) == BpeTokenizer(tokenizer_json("digits"))
