import os
import time
from pathlib import Path

import numpy as np
import pytest

from lm_core.data import corpus as corpus_module
from lm_core.data.corpus import load_corpus
from lm_core.data.token_store import default_cache_folder, encode_corpus
from lm_core.data.tokenizer import AsciiTokenizer, ByteTokenizer, CharTokenizer

TEXT = "Es war einmal 🙂 eine Geschichte, die war recht lang.\n" * 40


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module, "_BLOCK_BYTES", 100)
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    return load_corpus(str(tmp_path / "a.txt"))


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def large(corpus, tokenizer, cache):
    return encode_corpus(corpus, tokenizer, cache_folder=cache, largest_in_memory=10)


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), CharTokenizer("".join(sorted(set(TEXT))))])
def test_a_large_corpus_gives_the_same_tokens_from_a_file(corpus, cache, tokenizer):
    in_memory = encode_corpus(corpus, tokenizer)
    mapped = large(corpus, tokenizer, cache)
    assert isinstance(mapped, np.memmap)
    assert not isinstance(in_memory, np.memmap)
    assert mapped.dtype == in_memory.dtype == tokenizer.dtype
    assert np.array_equal(mapped, in_memory)
    assert tokenizer.decode(mapped) == TEXT


def test_tokens_cannot_be_changed_by_accident(corpus, cache):
    for tokens in (encode_corpus(corpus, ByteTokenizer()), large(corpus, ByteTokenizer(), cache)):
        with pytest.raises(ValueError, match="read-only"):
            tokens[0] = 1


def test_the_second_time_nothing_is_encoded(corpus, cache, monkeypatch):
    first = large(corpus, ByteTokenizer(), cache)

    def fail(self, block):
        raise AssertionError("encoded again")

    monkeypatch.setattr(ByteTokenizer, "encode_block", fail)
    assert np.array_equal(large(corpus, ByteTokenizer(), cache), first)


def test_another_text_or_tokenizer_is_another_file(corpus, cache, tmp_path):
    large(corpus, ByteTokenizer(), cache)
    large(corpus, CharTokenizer("".join(sorted(set(TEXT)))), cache)
    (tmp_path / "b.txt").write_text(TEXT + "!", encoding="utf-8")
    large(load_corpus(str(tmp_path / "b.txt")), ByteTokenizer(), cache)
    assert len(list(cache.glob("*.tokens"))) == 3


@pytest.mark.parametrize("damage", ["truncate", "lengthen", "flip", "lose note", "garble note"])
def test_a_file_that_is_not_whole_is_made_again(corpus, cache, damage):
    expected = np.array(large(corpus, ByteTokenizer(), cache))
    (tokens,), (note,) = cache.glob("*.tokens"), cache.glob("*.json")
    if damage == "truncate":
        os.truncate(tokens, 100)
    elif damage == "lengthen":
        tokens.write_bytes(tokens.read_bytes() + b"x")
    elif damage == "flip":
        data = bytearray(tokens.read_bytes())
        data[17] ^= 4
        tokens.write_bytes(data)
    elif damage == "lose note":
        note.unlink()
    else:
        note.write_text("{")
    assert np.array_equal(large(corpus, ByteTokenizer(), cache), expected)


@pytest.mark.parametrize("is_large", [True, False])
def test_a_text_that_changes_while_it_is_encoded_is_never_used(
    cache, tmp_path, monkeypatch, is_large
):
    monkeypatch.setattr(corpus_module, "_BLOCK_BYTES", 10_000)
    original, text = ByteTokenizer.encode_block, tmp_path / "a.txt"
    text.write_text("a" * 100_000)
    corpus, status = load_corpus(str(text)), text.stat()

    def encode_and_change(self, block):
        with text.open("r+b") as stream:
            stream.seek(90_000)
            stream.write(b"!")
        os.utime(text, ns=(status.st_atime_ns, status.st_mtime_ns))
        return original(self, block)

    monkeypatch.setattr(ByteTokenizer, "encode_block", encode_and_change)
    with pytest.raises(ValueError, match=r"a.txt has changed since this command began"):
        encode_corpus(corpus, ByteTokenizer(), cache, 10 if is_large else 10**6)
    assert not cache.exists() or list(cache.iterdir()) == []


def test_an_error_leaves_no_file_behind(corpus, cache):
    with pytest.raises(ValueError, match="ascii tokenizer has no"):
        large(corpus, AsciiTokenizer(), cache)
    assert list(cache.iterdir()) == []


def test_what_a_killed_encoding_left_is_removed_when_it_is_old(corpus, cache):
    cache.mkdir()
    old, young = cache / "old.part", cache / "young.part"
    for part in (old, young):
        part.write_bytes(b"x")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    large(corpus, ByteTokenizer(), cache)
    assert not old.exists()
    assert young.exists()


def test_a_cache_that_cannot_be_written_says_what_to_do(corpus, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RuntimeError, match="LM_CORE_CACHE names another folder"):
        large(corpus, ByteTokenizer(), tmp_path / "file" / "cache")


def test_without_a_home_the_message_says_what_to_do(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("LM_CORE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(RuntimeError, match="LM_CORE_CACHE names one"):
        default_cache_folder()


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.delenv("LM_CORE_CACHE", raising=False)
    assert default_cache_folder() == tmp_path / "user" / "lm_core"
    monkeypatch.setenv("LM_CORE_CACHE", str(tmp_path / "mine"))
    assert default_cache_folder() == tmp_path / "mine"
