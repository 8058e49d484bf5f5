import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lm_core.atomic_files import temporary_name
from lm_core.data import build_lock, text_files, token_store
from lm_core.data.corpus import load_corpus
from lm_core.data.corpus_record import findings_path
from lm_core.data.token_file import TokenFileWriter
from lm_core.data.token_store import encode_corpus
from lm_core.data.tokenizer import AsciiTokenizer, ByteTokenizer, CharTokenizer
from lm_core.errors import MachineError
from tests.end_to_end.command_line import PROJECT

TEXT = "Es war einmal 🙂 eine Geschichte, die war recht lang.\n" * 40


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", 100)
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    return load_corpus(str(tmp_path / "a.txt"))


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def large(corpus, tokenizer, cache, verify=False):
    return encode_corpus(corpus, tokenizer, cache, largest_in_memory=10, verify=verify)


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


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("truncate", "it has 66,000 bytes, and should have"),
        ("lengthen", "and should have"),
        ("header", "its header is damaged"),
        ("empty", "it does not begin like a file of tokens"),
    ],
)
def test_a_file_that_is_not_whole_is_told_in_a_line_and_made_again(
    corpus, cache, capsys, damage, reason
):
    expected = np.array(large(corpus, ByteTokenizer(), cache))
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        os.truncate(path, 66_000)
    elif damage == "lengthen":
        path.write_bytes(content + b"x")
    elif damage == "header":
        content[100] ^= 4
        path.write_bytes(content)
    else:
        path.write_bytes(b"")
    capsys.readouterr()
    assert np.array_equal(large(corpus, ByteTokenizer(), cache), expected)
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"warning: {path}: ")
    assert reason in told[0]
    assert told[0].endswith("; the corpus is encoded anew")
    assert len(told) == 2
    assert list(cache.iterdir()) == [path]
    large(corpus, ByteTokenizer(), cache)
    assert capsys.readouterr().err == ""


def test_a_damaged_token_is_noticed_when_the_tokens_are_verified(corpus, cache, capsys):
    expected = np.array(large(corpus, ByteTokenizer(), cache))
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)
    assert not np.array_equal(large(corpus, ByteTokenizer(), cache), expected)
    capsys.readouterr()
    assert np.array_equal(large(corpus, ByteTokenizer(), cache, verify=True), expected)
    assert "is damaged; the corpus is encoded anew" in capsys.readouterr().err
    assert np.array_equal(large(corpus, ByteTokenizer(), cache), expected)


def test_tokens_may_be_read_by_whom_the_user_lets_read_files(corpus, cache):
    mask = os.umask(0o022)
    try:
        large(corpus, ByteTokenizer(), cache)
    finally:
        os.umask(mask)
    (path,) = cache.iterdir()
    assert path.stat().st_mode & 0o777 == 0o644


def test_two_that_encode_the_same_text_at_once_where_there_are_no_locks_do_no_harm(
    corpus, cache, monkeypatch
):
    monkeypatch.setattr(build_lock, "fcntl", None)
    original, others = ByteTokenizer.encode_block, []

    def encode_and_let_another_do_the_same(self, block):
        if not others:
            others.append(None)
            others[0] = large(corpus, ByteTokenizer(), cache)
        return original(self, block)

    monkeypatch.setattr(ByteTokenizer, "encode_block", encode_and_let_another_do_the_same)
    tokens = large(corpus, ByteTokenizer(), cache)
    assert np.array_equal(tokens, others[0])
    assert ByteTokenizer().decode(tokens) == TEXT
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("is_large", [True, False])
def test_a_text_that_changes_while_it_is_encoded_is_never_used(
    cache, tmp_path, monkeypatch, is_large
):
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", 10_000)
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


def test_what_another_machine_left_is_removed_when_it_is_old(corpus, cache):
    cache.mkdir()
    old, young = cache / "old.part", cache / "young.part"
    for part in (old, young):
        part.write_bytes(b"x")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    large(corpus, ByteTokenizer(), cache)
    assert not old.exists()
    assert young.exists()


def test_records_that_were_never_finished_go_when_they_are_old_and_nothing_of_the_user(
    corpus, cache
):
    cache.mkdir()
    record = findings_path(cache, corpus.files)
    begun = [
        temporary_name(record),
        temporary_name(record.with_suffix("").with_suffix(".tokenizer.json")),
    ]
    own = cache / ".notes.json.12.tmp"
    for path in (*begun, own):
        path.write_bytes(b"x")
    large(corpus, ByteTokenizer(), cache)
    assert all(path.exists() for path in begun)
    for path in (*begun, own):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    large(corpus, CharTokenizer(corpus.characters), cache)
    assert not any(path.exists() for path in begun)
    assert own.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from lm_core.data.corpus import load_corpus
from lm_core.data.token_store import encode_corpus
from lm_core.data.tokenizer import ByteTokenizer

corpus, original = load_corpus(sys.argv[1]), ByteTokenizer.encode_block

def encode_and_die(self, block):
    if block.offset:
        os.kill(os.getpid(), int(sys.argv[3]))
    return original(self, block)

ByteTokenizer.encode_block = encode_and_die
encode_corpus(corpus, ByteTokenizer(), Path(sys.argv[2]), largest_in_memory=10)
"""


def killed(text, cache, number):
    words = [sys.executable, "-c", KILLED, str(text), str(cache), str(int(number))]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode != 0


def test_a_killed_encoding_leaves_nothing_that_is_taken_for_whole_and_goes_with_the_next(
    tmp_path, cache
):
    text = tmp_path / "b.txt"
    text.write_text("a" * 3_000_000)
    killed(text, cache, signal.SIGKILL)
    assert len(list(cache.glob("*.part"))) == 1
    tokens = large(load_corpus(str(text)), ByteTokenizer(), cache)
    assert len(tokens) == 3_000_000
    (path,) = cache.iterdir()
    assert path.suffix == ".tokens"


def test_an_encoding_that_is_interrupted_leaves_nothing(tmp_path, cache):
    text = tmp_path / "b.txt"
    text.write_text("a" * 3_000_000)
    killed(text, cache, signal.SIGINT)
    assert list(cache.iterdir()) == []


def test_what_another_process_is_writing_is_left_alone_however_old(corpus, cache):
    cache.mkdir()
    with token_store._new_part(cache) as stream:
        os.utime(stream.name, (time.time() - 7200, time.time() - 7200))
        large(corpus, ByteTokenizer(), cache)
        assert len(list(cache.glob("*.part"))) == 1
    assert list(cache.glob("*.part")) == []


def test_a_disk_that_is_full_is_told_and_nothing_stays(corpus, cache, monkeypatch):
    def refuse(self, tokens):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TokenFileWriter, "write", refuse)
    with pytest.raises(MachineError) as error:
        large(corpus, ByteTokenizer(), cache)
    assert error.value.message == (
        f"the tokens of the corpus cannot be kept in {cache}: No space left on device; "
        "LM_CORE_CACHE names another folder"
    )
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_says_what_to_do(corpus, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RuntimeError, match="LM_CORE_CACHE names another folder"):
        large(corpus, ByteTokenizer(), tmp_path / "file" / "cache")
