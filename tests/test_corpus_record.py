import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.data import corpus_record
from lm_core.data.corpus_record import Findings, keep_findings, recorded_findings
from lm_core.data.documents import Documents
from lm_core.data.text_files import TextFile, described

FOUND = Findings("ab" * 32, 7, "\n ab🙂", Documents(2, "cd" * 32, 3, 2**64 - 1))
SECOND = 10**9
# A time with a fraction of a second, and one without.
FINE, COARSE = 1_700_000_000 * SECOND + 123_456, 1_700_000_000 * SECOND


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a text\n")
    return described(path)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def later(file, seconds=60.0):
    return max(file.modified_ns, file.changed_ns) + int(seconds * SECOND)


def test_what_was_found_is_known_as_long_as_the_files_are_as_they_were(folder, file):
    assert recorded_findings(folder, [file]) is None
    keep_findings(folder, [file], FOUND, later(file))
    assert recorded_findings(folder, [file]) == FOUND
    assert [path.suffix for path in folder.iterdir()] == [".json"]


@pytest.mark.parametrize("field", ["size", "modified_ns", "changed_ns", "inode"])
def test_a_file_that_differs_in_anything_is_another(folder, file, field):
    keep_findings(folder, [file], FOUND, later(file))
    other = file._replace(**{field: getattr(file, field) + 1})
    assert recorded_findings(folder, [other]) is None
    # It takes the old one's place: there is one record for the same paths.
    found = FOUND._replace(n_bytes=other.size)
    keep_findings(folder, [other], found, later(other))
    assert recorded_findings(folder, [other]) == found
    assert recorded_findings(folder, [file]) is None
    assert len(list(folder.iterdir())) == 1


def test_files_in_another_order_or_number_are_another_corpus(folder, file, tmp_path):
    (tmp_path / "b.txt").write_text("b")
    both = [file, described(tmp_path / "b.txt")]
    found = FOUND._replace(n_bytes=8)
    keep_findings(folder, both, found, later(both[1]))
    assert recorded_findings(folder, both) == found
    assert recorded_findings(folder, both[::-1]) is None
    assert recorded_findings(folder, [file]) is None


def test_a_content_that_was_changed_with_its_times_set_back_is_noticed(folder, file):
    keep_findings(folder, [file], FOUND, later(file))
    status = file.path.stat()
    file.path.write_text("a test\n")
    os.utime(file.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    now = described(file.path)
    assert (now.size, now.modified_ns, now.inode) == (file.size, file.modified_ns, file.inode)
    # A clock that had not moved on in between would tell nothing; that is the next test's.
    assert now.changed_ns == file.changed_ns or recorded_findings(folder, [now]) is None


@pytest.mark.parametrize(
    ("times", "seconds", "is_kept"),
    [
        ((FINE, FINE), 0.01, False),
        ((FINE, FINE), 0.2, True),
        ((COARSE, COARSE), 1.5, False),
        ((COARSE, COARSE), 2.5, True),
        ((FINE, FINE + 5 * SECOND), 5.05, False),
        ((FINE + 5 * SECOND, FINE), 5.05, False),
        # The clock of another machine may be ahead.
        ((FINE, FINE), -3600, False),
    ],
)
def test_a_file_that_was_changed_just_before_it_was_read_is_not_recorded(
    folder, file, times, seconds, is_kept
):
    modified_ns, changed_ns = times
    file = file._replace(modified_ns=modified_ns, changed_ns=changed_ns)
    keep_findings(folder, [file], FOUND, min(times) + int(seconds * SECOND))
    assert (recorded_findings(folder, [file]) == FOUND) == is_kept


@given(st.data())
def test_any_byte_that_is_another_in_a_record_makes_it_none(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cache")
    file = TextFile(folder / "a.txt", 7, FINE, FINE, 12)
    keep_findings(folder, [file], FOUND, later(file))
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    found = recorded_findings(folder, [file])
    # Spaces between the words of JSON, and signs such as \U and \u, may be spelled otherwise.
    assert found in (None, FOUND)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "null", "{}", '{"checksum": 1}', "[" * 100_000, "\xff"]
)
def test_what_is_no_record_is_passed_over(folder, file, text):
    keep_findings(folder, [file], FOUND, later(file))
    (path,) = folder.iterdir()
    path.write_text(text, encoding="latin-1")
    assert recorded_findings(folder, [file]) is None


@pytest.mark.parametrize(
    "forged", [{"n_bytes": 8}, {"n_bytes": "7"}, {"sha256": None}, {"characters": ["a"]}]
)
def test_a_record_that_cannot_be_true_is_passed_over(folder, file, forged):
    keep_findings(folder, [file], FOUND._replace(**forged), later(file))
    assert len(list(folder.iterdir())) == 1
    assert recorded_findings(folder, [file]) is None


def test_a_record_of_another_version_is_passed_over(folder, file, monkeypatch):
    keep_findings(folder, [file], FOUND, later(file))
    (path,) = folder.iterdir()
    assert json.loads(path.read_text())["format"] == corpus_record._FORMAT
    monkeypatch.setattr(corpus_record, "_FORMAT", corpus_record._FORMAT + 1)
    assert recorded_findings(folder, [file]) is None


def test_where_nothing_can_be_kept_nothing_is_said(tmp_path, file):
    (tmp_path / "in the way").write_text("x")
    folder = tmp_path / "in the way" / "cache"
    keep_findings(folder, [file], FOUND, later(file))
    assert recorded_findings(folder, [file]) is None
