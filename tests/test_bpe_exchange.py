"""Byte-level BPE of ours as transformers reads it, and of transformers as the lab reads it."""

import functools
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lm_core.data.bpe import BpeTokenizer
from lm_core.errors import InputError
from lm_core.exchange.exporting import write_folder
from lm_core.exchange.importing import read_folder
from lm_core.exchange.tokenizer_files import read_tokenizer, tokenizer_files
from lm_core.sampling import Sampler
from tests.exchanged import assert_equal_logits, loaded, shaken
from tests.small_bpe import SPLITTINGS, TEXT, changed, texts, tokenizer_json

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


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {
        "<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}
    },
}
TRUNCATION = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": {"Fixed": 30},
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "<|endoftext|>",
}


@pytest.mark.parametrize(
    "fields",
    [
        {"post_processor": TEMPLATE},
        {"decoder": None},
        {"decoder": {"type": "Fuse"}},
        {"truncation": TRUNCATION},
        {"padding": PADDING},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_the_lab_leaves_out_of_a_file_is_not_exported(fields, tmp_path):
    ours = BpeTokenizer(changed(**fields))
    write_folder(shaken(ours.vocab_size), ours, tmp_path / "out")
    _, theirs = loaded(tmp_path / "out")
    for text in (TEXT, "The cat", " a<|endoftext|>b", "\u00a0\U0001f600"):
        ids = ours.encode(text).tolist()
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text


def test_a_file_that_needs_no_change_is_exported_as_it_is(tmp_path):
    assert tokenizer_files(BpeTokenizer(tokenizer_json()), 64)["tokenizer.json"] == tokenizer_json()


def test_an_added_token_that_transformers_decodes_otherwise_is_refused(tmp_path):
    number = BpeTokenizer(tokenizer_json()).vocab_size
    for content, is_taken in (("caf\u00e9", False), ("<\uff5cend\uff5c>", True)):
        added = json.loads(tokenizer_json())["added_tokens"]
        added.append({**added[0], "id": number, "content": content, "special": False})
        ours = BpeTokenizer(changed(added_tokens=added))
        to = tmp_path / content
        if not is_taken:
            with pytest.raises(InputError, match="cannot be exported"):
                write_folder(shaken(ours.vocab_size), ours, to)
            continue
        write_folder(shaken(ours.vocab_size), ours, to)
        text = f"The {content} cat"
        assert number in ours.encode(text)
        assert loaded(to)[1].decode(ours.encode(text).tolist()) == text


def test_the_separator_ends_a_text_of_transformers():
    ours, theirs = theirs_of("byte level")
    assert theirs.eos_token == "<|endoftext|>"
    assert theirs.eos_token_id == ours.separator


def test_transformers_stops_behind_the_separator_and_a_sampler_writes_on(tmp_path):
    tokenizer = BpeTokenizer(tokenizer_json())
    model = shaken(tokenizer.vocab_size)
    with torch.no_grad():
        # Whatever comes before it, the separator is the likeliest.
        model.final_norm.weight.zero_()
        model.final_norm.bias.fill_(1.0)
        model.token_embedding.weight[tokenizer.separator] = 10.0
    write_folder(model, tokenizer, tmp_path / "out")
    theirs, its_tokenizer = loaded(tmp_path / "out")
    tokens = theirs.generate(**its_tokenizer("a", return_tensors="pt"), max_new_tokens=3)
    assert its_tokenizer.decode(tokens[0]) == "a<|endoftext|>"
    sampler = Sampler(model, tokenizer, prompt="a", temperature=0.0, max_length=3)
    assert sampler() == ["a" + 3 * "<|endoftext|>"]


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
