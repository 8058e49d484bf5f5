"""Tokens of documents: what stands between them, in which part they are, and who makes them."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.data import digest_thread, text_files
from lm_core.data.corpus import load_corpus
from lm_core.data.splitting import Split
from lm_core.data.token_store import encode_corpus, encode_split
from lm_core.data.tokenizer import AsciiTokenizer, ByteTokenizer, build_tokenizer
from lm_core.errors import InputError
from tests.end_to_end.command_line import PROJECT
from tests.letter_pairs import LetterPairs

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0|"), min_size=1)


def lines(folder, documents):
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    return load_corpus(str(path))


def files(folder, documents):
    for number, document in enumerate(documents):
        (folder / f"{number:03d}.txt").write_bytes(document.encode())
    return load_corpus(str(folder))


@given(st.lists(texts, min_size=1, max_size=9))
def test_lines_of_json_end_with_a_line_feed_where_no_token_ends_them(tmp_path_factory, documents):
    corpus = lines(tmp_path_factory.mktemp("text"), documents)
    expected = "".join(text if text.endswith("\n") else f"{text}\n" for text in documents)
    for kind in ("byte", "char"):
        tokenizer = build_tokenizer(corpus, kind)
        assert tokenizer.separator is None
        assert tokenizer.decode(encode_corpus(corpus, tokenizer)) == expected


@given(st.lists(texts, min_size=1, max_size=9))
def test_files_of_text_are_joined_with_nothing_between_them(tmp_path_factory, documents):
    corpus = files(tmp_path_factory.mktemp("text"), documents)
    tokens = encode_corpus(corpus, ByteTokenizer())
    assert tokens.tobytes() == "".join(documents).encode()


@given(st.lists(texts, min_size=1, max_size=9), st.sampled_from([lines, files]), st.integers(4, 9))
def test_a_separator_follows_each_document_and_the_last_one_too(
    tmp_path_factory, documents, make, size
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "_BLOCK_BYTES", size)
        corpus = make(tmp_path_factory.mktemp("text"), documents)
        tokens = encode_corpus(corpus, LetterPairs())
    assert LetterPairs().decode(tokens) == "".join(f"{document}|" for document in documents)


@given(
    st.lists(texts, min_size=2, max_size=9, unique=True),
    st.floats(0.1, 0.9),
    st.sampled_from(["position", "document"]),
)
def test_no_token_is_of_both_parts(tmp_path_factory, documents, ratio, split_by):
    folder = tmp_path_factory.mktemp("text")
    split = Split(lines(folder, documents), ratio, split_by)
    both = encode_split(split, LetterPairs())
    kept = encode_split(split, LetterPairs(), folder / "cache", 0) if all(map(len, both)) else both
    for tokens, again, is_held_out in zip(both, kept, (False, True), strict=True):
        expected = ""
        for held_out, block in split.pieces():
            if held_out == is_held_out:
                expected += block.data.decode() + "|" * block.ends_document
        assert LetterPairs().decode(tokens) == expected
        assert np.array_equal(tokens, again)


@pytest.mark.parametrize("make", [lines, files])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.95])
def test_by_position_the_tokens_of_characters_are_cut_where_they_always_were(tmp_path, make, ratio):
    corpus = make(tmp_path, ["Größe 🙂", "und mehr"] * 20)
    for kind in ("byte", "char"):
        tokenizer = build_tokenizer(corpus, kind)
        whole = encode_corpus(corpus, tokenizer)
        training, held_out = encode_split(Split(corpus, ratio, "position"), tokenizer)
        assert len(training) == int(len(whole) * ratio)
        assert np.array_equal(np.concatenate([training, held_out]), whole)
        # Views of one array: nothing is copied.
        assert training.base is held_out.base is not None


@pytest.mark.parametrize("largest_in_memory", [0, 10**6])
def test_by_document_each_part_has_its_documents(tmp_path, largest_in_memory):
    documents = [f"Document {number}\n" for number in range(100)]
    corpus = lines(tmp_path, documents)
    split = Split(corpus, 0.7, "document")
    cache = tmp_path / "cache"
    training, held_out = (
        ByteTokenizer().decode(tokens).splitlines(keepends=True)
        for tokens in encode_split(split, ByteTokenizer(), cache, largest_in_memory)
    )
    assert 50 < len(training) < 90
    assert sorted(training + held_out) == sorted(documents)
    assert training == [document for document in documents if document in training]
    assert len(list(cache.glob("*.tokens"))) == (0 if largest_in_memory else 2)


def test_equal_splits_share_their_files_and_others_have_their_own(tmp_path):
    corpus, cache = lines(tmp_path, [f"Document {number}" for number in range(100)]), tmp_path / "c"

    def encode(ratio, split_by, tokenizer):
        encode_split(Split(corpus, ratio, split_by), tokenizer, cache, 0)
        return len(list(cache.glob("*.tokens")))

    assert encode(0.5, "document", ByteTokenizer()) == 2
    assert encode(0.5, "document", ByteTokenizer()) == 2
    assert encode(0.6, "document", ByteTokenizer()) == 4
    assert encode(0.5, "position", ByteTokenizer()) == 5
    assert encode(0.6, "position", ByteTokenizer()) == 5
    assert encode(0.5, "position", LetterPairs()) == 7


def test_the_same_text_in_other_documents_has_other_tokens_where_a_token_ends_them(tmp_path):
    for name, documents in (("a", ["one", "two"]), ("b", ["onetwo"])):
        (tmp_path / name).mkdir()
        corpus = files(tmp_path / name, documents)
        tokens = encode_corpus(corpus, LetterPairs(), tmp_path / "cache", 0)
        assert LetterPairs().decode(tokens) == "".join(f"{document}|" for document in documents)
        encode_corpus(corpus, ByteTokenizer(), tmp_path / "cache", 0)
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_part_without_tokens_is_told(tmp_path):
    corpus = files(tmp_path, ["🙂", "a"])
    with pytest.raises(InputError, match=r"^the training part of .* has no tokens"):
        encode_split(Split(corpus, 0.4, "position"), LetterPairs(), tmp_path / "cache", 0)
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(encode_split(Split(corpus, 0.4, "position"), LetterPairs())[0]) == 0


def test_a_character_that_is_unknown_is_told_by_file_and_line_of_json(tmp_path):
    corpus = lines(tmp_path, ["good", "first line\nsecond é"])
    with pytest.raises(InputError) as error:
        encode_corpus(corpus, AsciiTokenizer())
    assert error.value.message.startswith(
        f"{tmp_path / 'a.jsonl'}: line 2, in its text: line 2, column 8 (character 19): the ascii "
        "tokenizer has no 'é'"
    )


def test_an_unknown_character_in_a_compressed_text_is_told_by_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", 10)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(("good\n" * 30 + "bad: é").encode()))
    with pytest.raises(InputError, match=r"a.txt.gz: line 31, column 6 \(character 156\)"):
        encode_corpus(load_corpus(str(tmp_path)), AsciiTokenizer())


def test_many_small_documents_take_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(digest_thread, "_FEWEST_BYTES", 2**10)
    corpus = lines(tmp_path, ["ab"] * 30_000)
    tracemalloc.start()
    try:
        tokens = encode_corpus(corpus, ByteTokenizer())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(tokens) == 90_000
    # As arrays, one for each document, they would take more than a hundred bytes each.
    assert peak < 2.5 * 2**20


# Loads a text and encodes it, and notes each block that it encodes; may die at the second.
BUILDER = """
import os, signal, sys, time
from pathlib import Path
from lm_core.data.corpus import load_corpus
from lm_core.data.splitting import split_corpus
from lm_core.data.token_store import encode_split
from lm_core.data.tokenizer import ByteTokenizer

path, cache, log, does = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
original = ByteTokenizer.encode_block

def encode(self, block):
    with log.open("a") as stream:
        stream.write(f"{os.getpid()}\\n")
    time.sleep(600 if does == "hang" else 0.002)
    if does == "fail":
        raise SystemExit(7)
    return original(self, block)

ByteTokenizer.encode_block = encode
corpus = load_corpus(path, cache_folder=cache, largest_in_memory=0)
split = split_corpus(corpus, split_by="document")
print(*map(len, encode_split(split, ByteTokenizer(), cache, 0)))
"""


@pytest.fixture
def start(tmp_path):
    """Starts a process that makes the tokens of the same text."""
    lines(tmp_path, [f"Document {number}" for number in range(100)])
    started = []

    def builder(does):
        names = [tmp_path / name for name in ("a.jsonl", "cache", "log")]
        words = [sys.executable, "-c", BUILDER, *names, does]
        process = subprocess.Popen(
            words, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield builder
    for process in started:
        process.kill()
        process.communicate()


def builders(tmp_path):
    """Who encoded, each block."""
    log = tmp_path / "log"
    return log.read_text().split() if log.exists() else []


def wait_for_a_builder(tmp_path):
    deadline = time.monotonic() + 60
    while not builders(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_of_several_processes_one_makes_the_tokens(tmp_path, start):
    processes = [start("build") for _ in range(3)]
    outputs = {process.communicate(timeout=60)[0] for process in processes}
    assert len(outputs) == 1
    assert len(builders(tmp_path)) == 100
    assert len(set(builders(tmp_path))) == 1
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [
        *(".json", ".tokens", ".tokens")
    ]


@pytest.mark.parametrize(("does", "code"), [("hang", -signal.SIGKILL), ("fail", 7)])
def test_another_one_makes_them_when_the_first_is_killed_or_fails(tmp_path, start, does, code):
    first = start(does)
    wait_for_a_builder(tmp_path)
    second = start("build")
    if does == "hang":
        while "encodes the corpus: waiting" not in second.stderr.readline():
            pass
        os.kill(first.pid, signal.SIGKILL)
    assert second.wait(timeout=60) == 0
    assert first.wait(timeout=60) == code
    assert len(builders(tmp_path)) == 101
    assert len(list((tmp_path / "cache").glob("*.part"))) == 0
