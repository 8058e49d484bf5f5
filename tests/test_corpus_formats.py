"""Corpora of files of several kinds, and their documents."""

import gzip
import hashlib
import json

import pytest
import zstandard

from lm_core.data.corpus import load_corpus
from tests.corpora import large, noted_reads, old, write


@pytest.fixture
def reads(monkeypatch):
    """The files that were read, each as often as it was."""
    return noted_reads(monkeypatch)


def lines_of(*documents):
    return "".join(json.dumps({"text": document}) + "\n" for document in documents)


def test_files_of_every_kind_make_one_corpus_of_documents(tmp_path):
    write(tmp_path / "1.txt", "plain\n")
    write(tmp_path / "2.txt.gz", gzip.compress(b"packed\n"))
    write(tmp_path / "deep" / "3.txt.zst", zstandard.compress(b"packed otherwise\n"))
    write(tmp_path / "deep" / "4.jsonl", lines_of("one", "", "two"))
    write(tmp_path / "deep" / "5.jsonl.zst", zstandard.compress(lines_of("three").encode()))
    write(tmp_path / "deep" / "6.json.gz", gzip.compress(lines_of("four").encode()))
    write(tmp_path / "deep" / "description.json", "{}")
    write(tmp_path / "deep" / "7.tar.gz", b"not this")
    corpus = load_corpus(str(tmp_path))
    texts = [b"plain\n", b"packed\n", b"packed otherwise\n", b"one", b"two", b"three", b"four"]
    assert [block.data for block in corpus.blocks()] == texts
    assert corpus.documents.n_documents == 7
    assert corpus.n_bytes == sum(map(len, texts))
    # What jq --raw-output0 prints: each document and a zero byte.
    assert corpus.sha256 == hashlib.sha256(b"\0".join([*texts, b""])).hexdigest()
    assert corpus.joint == b"\n"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.txt": "abc"}, "3 bytes"),
        ({"a.txt": "abc", "b.txt": "d" * 2000}, "2,003 bytes in 2 files"),
        ({"a.jsonl": lines_of("abc")}, "3 bytes, 1 document"),
        ({"a.jsonl": lines_of("abc", "de"), "b.txt": "f"}, "6 bytes in 2 files, 3 documents"),
    ],
)
def test_how_much_there_is_is_told_with_files_and_documents_where_there_are_several(
    tmp_path, files, words
):
    for name, text in files.items():
        write(tmp_path / name, text)
    assert load_corpus(str(tmp_path)).extent == words


def test_compressed_text_is_the_same_corpus_as_the_text(tmp_path):
    write(tmp_path / "a.txt", "Größe " * 100_000)
    write(tmp_path / "a.txt.gz", gzip.compress((tmp_path / "a.txt").read_bytes()))
    plain, packed = (load_corpus(str(tmp_path / name)) for name in ("a.txt", "a.txt.gz"))
    differing = [name for name in vars(plain) if vars(plain)[name] != vars(packed)[name]]
    assert differing == ["path", "files"]
    blocks = [[block.data for block in corpus.blocks()] for corpus in (plain, packed)]
    assert blocks[0] == blocks[1]
    assert plain.joint == b""


def test_the_line_feed_between_documents_is_a_character_of_the_corpus(tmp_path):
    assert load_corpus(str(write(tmp_path / "a.jsonl", lines_of("b", "a")))).characters == "\nab"


def test_a_zero_character_in_json_is_refused_with_its_line(tmp_path):
    path = write(tmp_path / "a.jsonl", lines_of("good", "b\0d"))
    with pytest.raises(ValueError, match=r"a.jsonl: line 2 is not UTF-8 text: byte 1 is a zero"):
        load_corpus(str(path))


def test_json_lines_without_any_text_are_an_empty_corpus(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        load_corpus(str(write(tmp_path / "a.jsonl", lines_of("", ""))))


def test_a_compressed_text_is_known_the_next_time_where_it_is_large_in_itself(tmp_path, reads):
    data = gzip.compress(b"a" * 1000)
    path = old(write(tmp_path / "a.txt.gz", data))
    for largest, n_reads in ((1000, 2), (len(data), 1), (3, 1)):
        cache = tmp_path / f"cache {largest}"
        found = [
            load_corpus(str(path), cache_folder=cache, largest_in_memory=largest) for _ in range(2)
        ]
        assert found[0] == found[1]
        assert found[0].n_bytes == 1000
        assert reads == ["a.txt.gz"] * n_reads
        assert cache.exists() == (n_reads == 1)
        reads.clear()


def test_what_was_found_with_another_key_is_not_taken(tmp_path):
    line = json.dumps({"text": "one", "title": "another"})
    path, cache = old(write(tmp_path / "a.jsonl", line)), tmp_path / "cache"
    assert large(path, cache).n_bytes == 3
    assert large(path, cache, text_key="title").n_bytes == 7
    assert large(path, cache).n_bytes == 3


def test_a_damaged_compressed_file_is_named(tmp_path):
    path = write(tmp_path / "a.txt.gz", gzip.compress(b"text" * 99)[:-3])
    with pytest.raises(ValueError, match=r"a.txt.gz is damaged or cut off, near byte"):
        load_corpus(str(tmp_path))
    assert path.exists()


def test_a_text_is_another_one_where_its_json_changes(tmp_path):
    path = write(tmp_path / "a.jsonl", lines_of("one", "two"))
    first = load_corpus(str(path))
    write(path, lines_of("onet", "wo"))
    assert load_corpus(str(path)).sha256 != first.sha256
    assert not load_corpus(str(path)).is_recorded_in(first.record(), with_documents=False)


def test_a_record_tells_documents_where_they_count(tmp_path):
    write(tmp_path / "a.txt", "one")
    write(tmp_path / "b.txt", "two")
    both = load_corpus(str(tmp_path))
    one = load_corpus(str(write(tmp_path / "c" / "a.txt", "onetwo")))
    assert one.is_recorded_in(both.record(), with_documents=False)
    assert not one.is_recorded_in(both.record(), with_documents=True)
    assert both.is_recorded_in(json.loads(json.dumps(both.record())), with_documents=True)
    assert one.is_recorded_in({"sha256": both.sha256}, with_documents=True)
