"""What is learned from a corpus: from the part that is trained on, and once."""

import json

import numpy as np
import pytest

from lm_core.data import bpe_store, text_files
from lm_core.data.bpe import BpeTokenizer
from lm_core.data.bpe_training import train_bpe
from lm_core.data.corpus import load_corpus
from lm_core.data.splitting import Split
from lm_core.data.token_store import encode_corpus, encode_split
from lm_core.errors import MachineError
from tests.small_bpe import package_ids

TRAINED_ON = "the cat sat on the mat, and the cat slept.\n" * 30
HELD_OUT = "zqzq xvxv jkjk! " * 10
DOCUMENTS = [f"document {n} tells of {n} cats,\nand of their mats. " * 3 for n in range(60)]


def text_of(folder):
    (folder / "text.txt").write_text(TRAINED_ON + HELD_OUT)
    share = len(TRAINED_ON) / len(TRAINED_ON + HELD_OUT)
    return Split(load_corpus(str(folder / "text.txt")), share, "position")


def documents_in(folder, split_by="document"):
    lines = [json.dumps({"text": text}) + "\n" for text in DOCUMENTS]
    (folder / "many.jsonl").write_text("".join(lines))
    return Split(load_corpus(str(folder / "many.jsonl")), 0.7, split_by)


def never(*arguments, **more):
    raise AssertionError("learned again")


def kept(split, folder, **more):
    return bpe_store.trained(split, 300, cache_folder=folder, largest_in_memory=0, **more)


def test_it_is_learned_from_what_is_trained_on_and_nothing_else(tmp_path):
    found = bpe_store.trained(text_of(tmp_path), 300)
    assert found == train_bpe([[TRAINED_ON]], 300)
    assert found != train_bpe([[TRAINED_ON + HELD_OUT]], 300)


def test_of_documents_it_is_learned_from_those_that_are_trained_on(tmp_path):
    split = documents_in(tmp_path)
    texts = ["".join(b.data.decode() for b in [block]) for block in split.training_text()]
    assert 30 < len(texts) < 60
    found = bpe_store.trained(split, 400)
    assert found == train_bpe([[text] for text in texts], 400)
    assert found != train_bpe([[text] for text in DOCUMENTS], 400)


@pytest.mark.parametrize("size", [3, 50, 10**6])
def test_the_size_of_blocks_makes_no_difference(tmp_path, monkeypatch, size):
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", size)
    assert bpe_store.trained(text_of(tmp_path), 300) == train_bpe([[TRAINED_ON]], 300)


def test_from_a_large_text_it_is_learned_once(tmp_path, monkeypatch, capsys):
    first = kept(text_of(tmp_path), tmp_path / "cache")
    assert "training the tokenizer: " in capsys.readouterr().err
    monkeypatch.setattr(bpe_store, "train_bpe", never)
    assert kept(text_of(tmp_path), tmp_path / "cache") == first
    assert capsys.readouterr().err == ""
    with pytest.raises(AssertionError, match="learned again"):
        kept(text_of(tmp_path), tmp_path / "cache", verify=True)


def test_another_size_part_or_text_is_learned_anew(tmp_path, monkeypatch):
    split = text_of(tmp_path)
    kept(split, tmp_path / "cache")
    monkeypatch.setattr(bpe_store, "train_bpe", never)
    others = [(split, 301), (Split(split.corpus, 0.5, "position"), 300)]
    (tmp_path / "text.txt").write_text(TRAINED_ON[1:] + HELD_OUT)
    others += [(Split(load_corpus(str(tmp_path / "text.txt")), split.train_ratio, "position"), 300)]
    for other, size in others:
        with pytest.raises(AssertionError, match="learned again"):
            bpe_store.trained(other, size, cache_folder=tmp_path / "cache", largest_in_memory=0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-9],
        lambda content: content.replace(b"cat", b"dog", 1),
        lambda content: b"[]",
        lambda content: b"[" * 100_000,
    ],
)
def test_what_is_kept_and_damaged_is_learned_anew(tmp_path, damage):
    first = kept(text_of(tmp_path), tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert kept(text_of(tmp_path), tmp_path / "cache") == first
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", ["cache", "cache/below"])
def test_a_cache_that_takes_nothing_is_told_before_anything_is_learned(name, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setattr(bpe_store, "train_bpe", lambda *arguments: pytest.fail("it was learned"))
    with pytest.raises(MachineError, match=r"cannot be kept in .*; LM_CORE_CACHE names another"):
        kept(text_of(tmp_path), tmp_path / name)


def test_a_small_text_needs_no_cache(tmp_path):
    (tmp_path / "cache").write_text("a file")
    found = bpe_store.trained(text_of(tmp_path), 300, cache_folder=tmp_path / "cache")
    assert found.vocab_size <= 300


def test_a_cache_that_is_full_by_the_end_keeps_nobody_from_learning(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bpe_store, "replace_file", full)
    assert kept(text_of(tmp_path), tmp_path / "cache").vocab_size <= 300


@pytest.mark.parametrize("largest_in_memory", [0, 10**6])
@pytest.mark.parametrize("split_by", ["position", "document"])
def test_each_document_has_the_tokens_that_the_package_gives_it(
    tmp_path, split_by, largest_in_memory
):
    split = documents_in(tmp_path, split_by)
    tokenizer = bpe_store.trained(split, 400)
    parts = encode_split(split, tokenizer, tmp_path / "cache", largest_in_memory)
    by_hand = [[], []]
    for is_held_out, block in split.pieces():
        text = block.data.decode()
        by_hand[is_held_out] += package_ids(tokenizer.json, text)
        by_hand[is_held_out] += [tokenizer.separator] * block.ends_document
    assert [part.tolist() for part in parts] == by_hand
    n_bytes = sum(map(tokenizer.count_bytes, parts))
    assert n_bytes == split.corpus.n_bytes
    assert sum(int(np.count_nonzero(part == tokenizer.separator)) for part in parts) == 60


def test_tokens_that_take_long_are_kept_of_smaller_texts_already(tmp_path, monkeypatch):
    split = documents_in(tmp_path)
    tokenizer = bpe_store.trained(split, 300)
    encode_corpus(split.corpus, tokenizer, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(BpeTokenizer, "kept_from", split.corpus.n_bytes - 1)
    encode_corpus(split.corpus, tokenizer, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.tokens"))) == 1


def test_without_a_token_for_the_end_documents_are_lines(tmp_path):
    split = documents_in(tmp_path)
    described = json.loads(bpe_store.trained(split, 300).json)
    tokenizer = BpeTokenizer(json.dumps({**described, "added_tokens": []}))
    assert tokenizer.separator is None
    tokens = encode_corpus(split.corpus, tokenizer)
    assert tokenizer.decode(tokens) == "".join(f"{text}\n" for text in DOCUMENTS)
