"""Byte-level BPE: the package itself is the judge, on the whole text."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.data import bpe
from lm_core.data.bpe import BpeTokenizer, read_tokenizer_file
from lm_core.data.text_files import Block
from lm_core.errors import InputError
from tests.small_bpe import (
    SPLITTINGS,
    TEXT,
    changed,
    changed_model,
    of_package,
    package_ids,
    texts,
    texts_in_parts,
    tokenizer_json,
)


def blocks_of(parts):
    offset, blocks = 0, []
    for part in parts:
        data = part.encode()
        blocks.append(Block(data, "a text", offset))
        offset += len(data)
    return blocks


def ids(arrays):
    return [number for array in arrays for number in array.tolist()]


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(bpe, "_PIECE", 1)
    monkeypatch.setattr(bpe, "_AT_ONCE", 5)


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_a_text_in_blocks_has_the_tokens_that_the_package_gives_the_whole(small_pieces, splitting):
    of = tokenizer_json(splitting)
    tokenizer = BpeTokenizer(of)

    @given(texts_in_parts())
    def holds(text_and_parts):
        text, parts = text_and_parts
        assert ids(tokenizer.encode_document(blocks_of(parts))) == package_ids(of, text)

    holds()


def test_a_large_text_has_the_tokens_that_the_package_gives_the_whole():
    of, text = tokenizer_json(), TEXT * 100
    parts = [text[i : i + 5000] for i in range(0, len(text), 5000)]
    assert ids(BpeTokenizer(of).encode_document(blocks_of(parts))) == package_ids(of, text)


def test_a_long_stretch_without_a_place_to_cut_is_encoded_as_a_whole():
    of, text = tokenizer_json(), "ab;" * 40_000
    parts = [text[i : i + 5000] for i in range(0, len(text), 5000)]
    assert ids(BpeTokenizer(of).encode_document(blocks_of(parts))) == package_ids(of, text)


def test_a_longer_stretch_is_cut_all_the_same_and_comes_back(monkeypatch):
    monkeypatch.setattr(bpe, "_PIECE", 10)
    monkeypatch.setattr(bpe, "LONGEST_PIECE", 100)
    tokenizer, text = BpeTokenizer(tokenizer_json()), "ab;" * 1000
    in_one = tokenizer.encode(text)
    parts = [text[i : i + 7] for i in range(0, len(text), 7)]
    assert ids(tokenizer.encode_document(blocks_of(parts))) == in_one.tolist()
    assert tokenizer.decode(in_one) == text


@given(texts)
def test_any_text_comes_back_and_its_bytes_are_counted(text):
    tokenizer = BpeTokenizer(tokenizer_json())
    tokens = tokenizer.encode(text)
    assert tokens.dtype == tokenizer.dtype == np.uint16
    assert tokenizer.decode(tokens) == text
    assert tokenizer.count_bytes(tokens) == len(text.encode())
    assert tokenizer.separator not in tokens.tolist()


@given(st.lists(st.integers(0, 399)))
def test_any_tokens_are_shown_as_the_package_shows_them(numbers):
    shown = of_package(tokenizer_json()).decode(numbers, skip_special_tokens=False)
    assert BpeTokenizer(tokenizer_json()).decode(np.array(numbers, np.int64)) == shown


@given(texts, st.data())
def test_the_bytes_of_parts_of_characters_add_up(text, data):
    tokenizer = BpeTokenizer(tokenizer_json())
    tokens = tokenizer.encode(text)
    cut = data.draw(st.integers(0, len(tokens)))
    both = tokenizer.count_bytes(tokens[:cut]) + tokenizer.count_bytes(tokens[cut:])
    assert both == len(text.encode())


def test_the_end_of_a_text_stands_for_no_bytes():
    tokenizer = BpeTokenizer(tokenizer_json())
    tokens = np.append(tokenizer.encode("né"), tokenizer.separator)
    assert tokenizer.count_bytes(tokens) == 3
    assert tokenizer.decode(tokens) == "né<|endoftext|>"


def test_bytes_are_counted_in_parts(monkeypatch):
    tokenizer = BpeTokenizer(tokenizer_json())
    tokens = tokenizer.encode(TEXT)
    monkeypatch.setattr(bpe, "_COUNTED_AT_ONCE", 7)
    assert tokenizer.count_bytes(tokens) == len(TEXT.encode())
    assert tokenizer.count_bytes(tokens[:0]) == 0


def test_special_tokens_in_a_text_are_text():
    tokenizer = BpeTokenizer(tokenizer_json())
    tokens = tokenizer.encode("a<|endoftext|>b")
    assert tokenizer.separator not in tokens.tolist()
    assert tokenizer.decode(tokens) == "a<|endoftext|>b"


def test_no_processor_adds_tokens_and_no_truncation_takes_any():
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}],
        "pair": [],
        "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}
        },
    }
    short = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    tokenizer = BpeTokenizer(changed(post_processor=template, truncation=short))
    assert tokenizer.encode(TEXT).tolist() == package_ids(tokenizer_json(), TEXT)


def test_added_tokens_that_are_text_are_found_and_stand_for_it(small_pieces):
    size = BpeTokenizer(tokenizer_json()).vocab_size
    token = {"id": size, "content": "    ", "special": False, "normalized": True}
    token |= dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
    separator = json.loads(tokenizer_json())["added_tokens"][0]
    of = changed(added_tokens=[separator, token])
    tokenizer = BpeTokenizer(of)

    @given(st.text(alphabet=" a\n.", max_size=40))
    def holds(text):
        tokens = tokenizer.encode(text)
        assert tokens.tolist() == package_ids(of, text)
        assert tokenizer.count_bytes(tokens) == len(text)
        assert tokenizer.decode(tokens) == text

    holds()
    assert size in tokenizer.encode("x    y").tolist()


def test_what_the_package_would_number_otherwise_is_refused():
    separator = json.loads(tokenizer_json())["added_tokens"][0]
    token = {**separator, "id": 1000, "content": "<pad>"}
    with pytest.raises(InputError, match="other ids than it says"):
        BpeTokenizer(changed(added_tokens=[separator, token]))


def test_half_of_a_surrogate_pair_is_no_text():
    with pytest.raises(InputError, match="half of a surrogate pair"):
        BpeTokenizer(tokenizer_json()).encode("a\ud800")


def test_a_block_that_is_no_text_any_more_is_refused_with_its_place():
    block = Block(b"ab\xff", "changed.txt", 10)
    with pytest.raises(InputError, match=r"changed\.txt is not UTF-8 text: byte 12"):
        BpeTokenizer(tokenizer_json()).encode_block(block)


def test_it_is_made_again_from_its_description():
    tokenizer = BpeTokenizer(tokenizer_json())
    assert tokenizer.to_dict() == {"kind": "bpe", "json": tokenizer_json()}
    again = BpeTokenizer.from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert again == tokenizer
    assert hash(again) == hash(tokenizer)
    assert again.encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "byte"}, "'byte' describes no bpe tokenizer"),
        ({"kind": "bpe"}, "described by the text of its tokenizer.json"),
        ({"kind": "bpe", "json": "{}"}, "this describes no bpe tokenizer: it is no tokenizer.json"),
    ],
)
def test_what_describes_none_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        BpeTokenizer.from_dict(data)


def test_a_file_is_read_as_it_stands(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer_json(), encoding="utf-8")
    assert read_tokenizer_file(str(path)).json == tokenizer_json()
    path.write_text(tokenizer_json(), encoding="utf-8-sig")
    assert read_tokenizer_file(str(path)).json == tokenizer_json()


def broken_files():
    merges = json.loads(tokenizer_json())["model"]["merges"]
    refused = "the package tokenizers refuses it: "
    return {
        "empty": (b"", "it is no JSON"),
        "not text": (b"\xff\xfe{", "is not UTF-8 text"),
        "cut off": (tokenizer_json().encode()[:-50], "it is no JSON"),
        "merges of nothing": (changed_model(merges=[["q", "zzzz"]]), refused),
        "merges that are none": (changed_model(merges=[*merges, 3]), refused),
        "no merges": (changed_model(merges=None), refused),
        "lossy": (changed(normalizer={"type": "NFKC"}), "its normalizer, 'NFKC', changes the text"),
        "deep": (b"[" * 100_000, "it is no JSON"),
    }  # fmt: skip


@pytest.mark.parametrize("name", broken_files())
def test_a_file_that_is_none_is_refused_in_one_line_that_names_it(tmp_path, name):
    content, message = broken_files()[name]
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as error:
        read_tokenizer_file(str(path))
    assert error.value.message.startswith(f"tokenizer_file: {str(path)!r}")
    assert "\n" not in error.value.message
    assert len(error.value.message) < 500


def test_what_is_no_file_is_refused(tmp_path, monkeypatch):
    for name, message in ((".", "not a regular file"), ("gone.json", "No such file")):
        with pytest.raises(InputError, match=message):
            read_tokenizer_file(str(tmp_path / name))
    with pytest.raises(InputError, match="cannot be read"):
        read_tokenizer_file("a\0b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        read_tokenizer_file(str(tmp_path / "pipe"))
    monkeypatch.setattr(bpe, "_LARGEST_FILE", 10)
    (tmp_path / "large.json").write_bytes(b" " * 11)
    with pytest.raises(InputError, match="has more than 10 bytes"):
        read_tokenizer_file(str(tmp_path / "large.json"))


def test_without_the_package_it_is_told_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"^tokenizer bpe needs the package tokenizers: "):
        BpeTokenizer(tokenizer_json())


def test_who_has_no_bpe_does_not_import_the_package():
    program = (
        "import sys, lm_core.data.bpe, lm_core.data.bpe_training, lm_core.data.tokenizer\n"
        "assert 'tokenizers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


PROGRAM = """
import hashlib, sys, time
from lm_core.data.bpe import BpeTokenizer
tokenizer = BpeTokenizer(sys.stdin.read())
text = "The cat sat on the mat, and the dog ate it.\\n" * 4000
print(hashlib.sha256(tokenizer.encode(text).tobytes()).hexdigest())
"""


def test_tokens_do_not_depend_on_the_number_of_threads():
    printed = set()
    for variables in (
        {"RAYON_NUM_THREADS": "1"},
        {"RAYON_NUM_THREADS": "4"},
        {"TOKENIZERS_PARALLELISM": "0"},
    ):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=tokenizer_json(),
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        printed.add(done.stdout)
    assert len(printed) == 1
