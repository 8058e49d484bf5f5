"""Training byte-level BPE: always the same, in little memory, and never waited for in vain."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.config.fields import SMALLEST_VOCABULARY
from lm_core.data import bpe_training
from lm_core.data.bpe_training import train_bpe
from lm_core.errors import InputError
from tests.small_bpe import TEXT, texts_in_parts


def merges_of(tokenizer):
    return [tuple(pair) for pair in json.loads(tokenizer.json)["model"]["merges"]]


def test_the_separator_is_first_then_all_bytes_then_the_merges():
    tokenizer = train_bpe([[TEXT]], 300)
    assert tokenizer.vocab_size == 300
    assert tokenizer.separator == 0
    assert {tokenizer.decode([i]) for i in range(1, 257)} >= set(map(chr, range(128)))
    vocabulary = json.loads(tokenizer.json)["model"]["vocab"]
    merges = merges_of(tokenizer)
    assert [vocabulary[a + b] for a, b in merges] == list(range(257, 300))


def test_the_most_frequent_pair_is_merged_first():
    tokenizer = train_bpe([["ab ab ab cab xb\n"]], 258)
    assert merges_of(tokenizer) == [("a", "b")]


def test_any_text_can_be_encoded_whatever_it_was_trained_on():
    tokenizer = train_bpe([["aaa bbb"]], 300)
    text = "".join(map(chr, range(0x500))) + "猫🙂"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(texts_in_parts())
@settings(max_examples=50)
def test_the_parts_that_a_text_comes_in_make_no_difference(text_and_parts):
    text, parts = text_and_parts
    assert train_bpe([parts], 300) == train_bpe([[text]], 300)


def test_parts_make_no_difference_in_a_text_of_many_pieces(monkeypatch):
    monkeypatch.setattr(bpe_training, "_PIECE", 16)
    monkeypatch.setattr(bpe_training, "_LONGEST_WORD", 32)
    whole = train_bpe([[TEXT]], 400)
    for size in (1, 7, 100):
        parts = [TEXT[i : i + size] for i in range(0, len(TEXT), size)]
        assert train_bpe([parts], 400) == whole


def test_no_word_reaches_from_one_document_into_the_next():
    apart = train_bpe([["qx"], ["zj"]] * 5, 300)
    assert set(merges_of(apart)) == {("q", "x"), ("z", "j")}


def test_a_text_that_gives_no_more_tokens_makes_a_smaller_vocabulary():
    tokenizer = train_bpe([["abab"]], 5000)
    assert tokenizer.vocab_size == 258
    assert train_bpe([], 5000).vocab_size == SMALLEST_VOCABULARY


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(InputError, match="vocab_size is 256; bpe needs at least 257"):
        train_bpe([["a"]], 256)


def test_the_end_of_a_text_that_stands_in_the_text_is_text():
    tokenizer = train_bpe([["<|endoftext|>" * 10]], 300)
    assert tokenizer.encode("<|endoftext|>").tolist() != [tokenizer.separator]
    assert tokenizer.decode(tokenizer.encode("<|endoftext|>")) == "<|endoftext|>"


def test_of_a_large_text_pieces_from_all_over_it_are_enough(monkeypatch):
    monkeypatch.setattr(bpe_training, "LARGEST_TEXT", 10_000)
    monkeypatch.setattr(bpe_training, "_PIECE", 10)
    monkeypatch.setattr(bpe_training, "_LONGEST_WORD", 20)
    text = "one two three four five\n" * 3000
    taken = list(bpe_training._taken([[text]], len(text)))
    assert 7_000 < sum(map(len, taken)) < 13_000
    parts = [text[i : i + 999] for i in range(0, len(text), 999)]
    assert list(bpe_training._taken([parts], len(text))) == taken
    assert train_bpe([parts], 270, len(text)) == train_bpe([[piece] for piece in taken], 270)


def test_all_that_is_read_is_told():
    told = []
    train_bpe([["é", "ab"], ["c"]], 257, tell=told.append)
    assert sum(told) == 5


def test_what_the_text_raises_is_raised():
    def broken():
        yield "a"
        raise InputError("the text has changed")

    with pytest.raises(InputError, match="the text has changed"):
        train_bpe([broken()], 300)


PROGRAM = """
import hashlib, sys
from lm_core.data.bpe_training import train_bpe
from tests.test_bpe_training import TIED
for text in TIED:
    print(hashlib.sha256(train_bpe([[text]], 700).json.encode()).hexdigest())
"""


def tied_texts():
    """Texts in which many pairs are equally frequent, and tokens can be merged in several ways."""
    draw = random.Random(0)
    yield "".join(
        draw.choice("a=-") * draw.randint(1, 40) + " " * draw.randint(0, 30) + draw.choice("\n.")
        for _ in range(2000)
    )
    yield " ".join("".join(draw.choices("ab", k=draw.randint(1, 30))) for _ in range(1000))
    yield " ".join("".join(draw.choices("abcdefgh", k=draw.randint(1, 6))) for _ in range(1000))
    yield TEXT


TIED = list(tied_texts())


@pytest.mark.parametrize(
    "variables",
    [
        {"RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "1"},
        {"RAYON_NUM_THREADS": "2", "PYTHONHASHSEED": "2"},
        {"RAYON_NUM_THREADS": "5", "PYTHONHASHSEED": "random"},
        {"TOKENIZERS_PARALLELISM": "false"},
    ],
)
def test_every_process_trains_the_same_tokenizer(variables):
    here = [hashlib.sha256(train_bpe([[text]], 700).json.encode()).hexdigest() for text in TIED]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == here
    assert done.stderr == ""


@pytest.mark.exhaustive
def test_many_processes_train_the_same_tokenizer():
    printed = {
        subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True).stdout
        for _ in range(30)
    }
    assert len(printed) == 1


ENDLESS = """
import itertools
from lm_core.data.bpe_training import train_bpe
print("begins", flush=True)
train_bpe(itertools.repeat("the cat sat on the mat\\n" * 100), 300)
"""


def test_a_signal_ends_it_at_once():
    words = [sys.executable, "-c", ENDLESS]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begins\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert errors.endswith("KeyboardInterrupt\n")


@given(st.text(alphabet="ab \n", max_size=200))
@settings(max_examples=30)
def test_training_again_gives_the_same(text):
    assert train_bpe([[text]], 300).json == train_bpe([[text]], 300).json
