import gzip
import hashlib
import os
import subprocess
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.data import corpus as corpus_module
from lm_core.data import text_files
from lm_core.data.build_lock import only_one
from lm_core.data.corpus import absolute_path, load_corpus
from lm_core.data.corpus_record import Findings, findings_path
from lm_core.data.documents import Documents
from lm_core.data.text_files import described
from lm_core.errors import MachineError
from tests.corpora import large, noted_reads, old, write

DOCUMENTS = Documents(1, "", 7, 7)


def text_of(corpus):
    return b"".join(block.data for block in corpus.blocks())


def test_the_built_in_corpus_is_half_a_megabyte_of_ascii_english():
    corpus = load_corpus()
    text = text_of(corpus)
    assert 300_000 < corpus.n_bytes == len(text) < 1_000_000
    assert text.isascii()
    assert text.count(b"the ") > 3000
    assert corpus.path is None
    assert corpus.sha256 == hashlib.sha256(text).hexdigest()


def test_typographic_signs_of_the_built_in_corpus_become_plain_ones(monkeypatch):
    topics = {"b": "\u201cé\u201d \u2013 x\u2026", "a": "it\u2019s π "}
    module = SimpleNamespace(topics=topics)
    monkeypatch.setattr(corpus_module.importlib, "import_module", lambda name: module)
    assert text_of(load_corpus()) == b'it\'s ? "e?" - x...'


def test_a_file_is_taken_byte_for_byte(tmp_path):
    content = "Zwei Zeilen\r\nüber π und 🙂\n".encode()
    corpus = load_corpus(str(write(tmp_path / "a.txt", content)))
    assert text_of(corpus) == content
    assert corpus.n_bytes == len(content)
    assert corpus.sha256 == hashlib.sha256(content).hexdigest()


def test_a_folder_is_its_txt_files_at_any_depth_in_sorted_order(tmp_path):
    write(tmp_path / "b.txt", "B")
    write(tmp_path / "a" / "deep" / "z.txt", "Z")
    write(tmp_path / "c.md", "not this")
    corpus = load_corpus(str(tmp_path))
    assert text_of(corpus) == b"ZB"
    assert [file.path.name for file in corpus.files] == ["z.txt", "b.txt"]


def test_a_glob_is_the_files_it_matches_in_sorted_order(tmp_path):
    for name in ("2.md", "1.md", "3.txt", "sub/4.md"):
        write(tmp_path / name, name[-4])
    assert text_of(load_corpus(str(tmp_path / "*.md"))) == b"12"
    assert text_of(load_corpus(str(tmp_path / "**" / "*.md"))) == b"124"


def test_a_file_whose_name_looks_like_a_glob_is_still_a_file(tmp_path):
    path = write(tmp_path / "what[ever]*.txt", "yes")
    write(tmp_path / "whate.txt", "no")
    assert text_of(load_corpus(str(path))) == b"yes"


def test_the_hash_is_that_of_the_files_joined_by_cat(tmp_path):
    files = [write(tmp_path / name, name * 3) for name in ("a.txt", "b.txt")]
    joined = subprocess.run(["cat", *files], capture_output=True, check=True).stdout
    assert load_corpus(str(tmp_path)).sha256 == hashlib.sha256(joined).hexdigest()


def test_the_path_is_kept_so_that_the_text_is_found_from_anywhere(tmp_path, monkeypatch):
    write(tmp_path / "a.txt", "text")
    monkeypatch.chdir(tmp_path)
    corpus = load_corpus("a.txt")
    monkeypatch.chdir("/")
    assert load_corpus(corpus.path).sha256 == corpus.sha256


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_blocks_of_any_size_join_to_the_text_and_split_no_character(tmp_path_factory, text):
    path = write(tmp_path_factory.mktemp("text") / "a.txt", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "_BLOCK_BYTES", 5)
        corpus = load_corpus(str(path))
        blocks = list(corpus.blocks())
    assert "".join(block.data.decode() for block in blocks) == text
    offsets = np.cumsum([0, *(len(block.data) for block in blocks)])[:-1]
    assert [block.offset for block in blocks] == offsets.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"abc\0def", "byte 3 is a zero byte"),
        (b"abc\xffdef", "byte 3 is 0xff, which is not UTF-8"),
        (b"abc\xc3", "byte 3 is 0xc3, which is not UTF-8"),
        (b"\x80", "byte 0 is 0x80"),
        ("π".encode("utf-16"), "byte 0 is 0xff"),
        (b"a" * 11 + b"\xe2\x82", "byte 11 is 0xe2"),
        (b"a" * 11 + b"\xe2\x82b", "byte 11 is 0xe2"),
    ],
)
def test_what_is_no_text_is_refused_with_the_first_bad_byte(
    tmp_path, monkeypatch, content, message
):
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", 4)
    path = write(tmp_path / "a.txt", content)
    with pytest.raises(ValueError, match=message) as error:
        load_corpus(str(path))
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"corpus: '.*/nope.txt' does not exist"):
        load_corpus(str(tmp_path / "nope.txt"))


def test_a_folder_without_text_says_what_was_looked_for(tmp_path):
    write(tmp_path / "a.md", "x")
    with pytest.raises(ValueError, match=r"a folder without a \*.txt file at any depth, nor"):
        load_corpus(str(tmp_path))


def test_a_folder_of_empty_files_is_an_empty_corpus(tmp_path):
    write(tmp_path / "a.txt", "")
    with pytest.raises(ValueError, match="is empty"):
        load_corpus(str(tmp_path))


def test_a_glob_without_a_match_says_so(tmp_path):
    with pytest.raises(ValueError, match="a glob that matches no file"):
        load_corpus(str(tmp_path / "*.txt"))


def test_a_pipe_is_refused_and_nothing_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(ValueError, match="is not a regular file"):
        load_corpus(str(tmp_path / "pipe.txt"))
    with pytest.raises(ValueError, match="is not a regular file"):
        load_corpus(str(tmp_path))


def test_a_loop_of_links_ends(tmp_path):
    write(tmp_path / "a.txt", "x")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert text_of(load_corpus(str(tmp_path))) == b"x"


def test_a_glob_goes_through_no_link_to_a_folder(tmp_path):
    write(tmp_path / "a.txt", "x")
    for name in ("loop", "other"):
        (tmp_path / name).symlink_to(tmp_path, target_is_directory=True)
    assert text_of(load_corpus(str(tmp_path / "**" / "*.txt"))) == b"x"


@pytest.mark.parametrize("name", ["*.txt", "a.txt", ".", "../run[1]/*.txt"])
def test_a_folder_with_a_name_like_a_glob_is_found_again(tmp_path, monkeypatch, name):
    write(tmp_path / "run[1]" / "a.txt", "x")
    monkeypatch.chdir(tmp_path / "run[1]")
    path = absolute_path(name)
    monkeypatch.chdir("/")
    if "[1]" in name:
        # Here the brackets are the pattern's own, and match a folder called run1.
        write(tmp_path / "run1" / "a.txt", "y")
        assert text_of(load_corpus(path)) == b"y"
    else:
        assert text_of(load_corpus(path)) == b"x"


def test_a_file_that_cannot_be_looked_at_later_gives_the_reason(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", "x")
    corpus = load_corpus(str(path))

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "stat", refuse)
    with pytest.raises(ValueError, match=r"a.txt' cannot be read: Permission denied"):
        list(corpus.blocks())


def test_no_path_is_not_the_working_directory():
    with pytest.raises(ValueError, match="is empty"):
        load_corpus("")


def test_an_unreadable_file_gives_the_reason(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", "x")

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(ValueError, match=r"a.txt cannot be read: Permission denied"):
        load_corpus(str(path))


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "~nobody-of-this-name/x"])
def test_impossible_paths_are_refused_in_words(path):
    with pytest.raises(ValueError, match="corpus"):
        load_corpus(path)


def test_a_file_that_changes_while_it_is_used_is_noticed(tmp_path):
    path = write(tmp_path / "a.txt", "before")
    corpus = load_corpus(str(path))
    path.write_text("something else")
    with pytest.raises(ValueError, match=r"a.txt has changed"):
        list(corpus.blocks())


@pytest.fixture
def reads(monkeypatch):
    """The files that were read, each as often as it was."""
    return noted_reads(monkeypatch)


def test_the_characters_of_a_corpus_are_known(tmp_path):
    write(tmp_path / "a.txt", "banana 🙂")
    write(tmp_path / "b.txt", "é")
    assert load_corpus(str(tmp_path)).characters == " abné🙂"
    assert set(load_corpus().characters) == set(text_of(load_corpus()).decode())


def test_a_large_corpus_is_read_once_and_then_known(tmp_path, reads):
    path = old(write(tmp_path / "a.txt", "ein Text 🙂"))
    first = large(path, tmp_path / "cache")
    assert large(path, tmp_path / "cache") == first
    assert first == load_corpus(str(path))
    assert reads == ["a.txt", "a.txt"]


def test_a_large_corpus_is_read_again_when_it_changes_or_is_to_be_verified(tmp_path, reads):
    path = old(write(tmp_path / "a.txt", "ein Text"))
    first = large(path, tmp_path / "cache")
    assert large(path, tmp_path / "cache", verify=True) == first
    assert reads == ["a.txt"] * 2
    old(write(path, "kein Text"))
    assert large(path, tmp_path / "cache").n_bytes == first.n_bytes + 1
    assert reads == ["a.txt"] * 3


def test_a_large_corpus_that_changes_while_it_is_read_is_not_recorded(tmp_path, monkeypatch, reads):
    path = old(write(tmp_path / "a.txt", "ein Text"))
    original = corpus_module.OccurringCharacters.add

    def add_and_change(self, data):
        write(path, "ein Wort")
        return original(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(corpus_module.OccurringCharacters, "add", add_and_change)
        large(path, tmp_path / "cache")
    assert large(path, tmp_path / "cache").sha256 == hashlib.sha256(b"ein Wort").hexdigest()
    assert reads == ["a.txt"] * 2


def test_a_record_that_is_not_true_any_more_is_noticed_when_the_text_is_read(tmp_path, monkeypatch):
    path, cache = old(write(tmp_path / "a.txt", "ein Text")), tmp_path / "cache"
    large(path, cache)
    write(path, "ein Wort")
    # As if the times had stayed as they were: so it may be with memory maps.
    monkeypatch.setattr(corpus_module, "recorded_findings", lambda *given: known)
    known = Findings(hashlib.sha256(b"ein Text").hexdigest(), 8, "Teinxt ", DOCUMENTS)
    with pytest.raises(ValueError, match=r"has changed .*; --verify_corpus reads it again"):
        list(large(path, cache).blocks())
    assert text_of(large(path, cache, verify=True)) == b"ein Wort"


def test_a_small_corpus_leaves_no_trace_and_says_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LM_CORE_CACHE", str(tmp_path / "cache"))
    load_corpus(str(write(tmp_path / "a.txt", "text")))
    assert not (tmp_path / "cache").exists()
    assert capsys.readouterr() == ("", "")


def test_the_reading_of_a_large_corpus_is_shown(tmp_path, capsys):
    large(write(tmp_path / "a.txt", "text"), tmp_path / "cache")
    assert capsys.readouterr().err.startswith("reading the corpus: 0 MB in ")


def test_a_compressed_text_that_is_likely_large_is_read_by_one_process_and_shown(
    tmp_path, reads, capsys
):
    path, cache = old(write(tmp_path / "a.txt.gz", gzip.compress(b"ein Text"))), tmp_path / "cache"
    results = []
    thread = threading.Thread(target=lambda: results.append(large(path, cache)))
    with only_one(findings_path(cache, [described(path)]), "reads the corpus"):
        thread.start()
        # As long as one takes before it says that it waits.
        thread.join(1)
        assert (reads, results) == ([], [])
    thread.join()
    told = capsys.readouterr().err
    assert "another process reads the corpus: waiting for it" in told
    assert "reading the corpus: 0 MB in " in told
    assert large(path, cache) == results[0]
    assert reads == ["a.txt.gz"]


@pytest.fixture
def homeless(monkeypatch):
    """A user without a home folder."""

    def fails():
        raise MachineError("no folder for the tokens")

    monkeypatch.setattr(corpus_module, "default_cache_folder", fails)


def test_a_small_compressed_text_needs_no_folder_for_a_record(tmp_path, homeless):
    path = write(tmp_path / "a.txt.gz", gzip.compress(b"ein Text"))
    assert text_of(load_corpus(str(path))) == b"ein Text"


@pytest.mark.parametrize(("largest", "n_reads"), [(200, 0), (10_000, 1)])
def test_a_large_compressed_text_needs_one_and_is_not_read_where_its_size_tells(
    tmp_path, homeless, reads, largest, n_reads
):
    path = write(tmp_path / "a.txt.gz", gzip.compress(b"a" * 100_000))
    assert 25 < path.stat().st_size < 200
    with pytest.raises(MachineError, match="no folder"):
        load_corpus(str(path), largest_in_memory=largest)
    assert len(reads) == n_reads
