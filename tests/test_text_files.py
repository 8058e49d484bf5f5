from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.data import text_files
from lm_core.data.text_files import (
    Block,
    blocks_of,
    check_text,
    described,
    end_of_last_character,
    find_files,
    is_compressed,
    is_json_lines,
)
from lm_core.errors import InputError

characters = st.characters(exclude_categories=["Cs"])


@given(st.binary(max_size=60), st.integers(1, 9))
def test_blocks_join_to_the_file_whatever_is_in_it(tmp_path_factory, data, size):
    path = tmp_path_factory.mktemp("file") / "a.bin"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "_BLOCK_BYTES", size)
        assert b"".join(block.data for block in blocks_of(path)) == data


@given(st.text(characters, min_size=1), characters)
def test_a_character_that_is_cut_off_is_left_to_what_follows(text, last):
    data = (text + last).encode()
    for n_missing in range(1, len(last.encode())):
        assert end_of_last_character(data[:-n_missing]) == len(text.encode())
    assert end_of_last_character(data) == len(data)


def test_a_file_is_as_it_was_until_its_size_or_its_time_is_another(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("text")
    file = described(path)
    assert (file.path, file.size) == (path, 4)
    assert file.is_as_it_was()
    path.chmod(0o600)
    assert file.is_as_it_was()
    path.write_text("texts")
    assert not file.is_as_it_was()
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        file.is_as_it_was()


def test_a_folder_a_glob_and_a_file_are_told_apart(tmp_path):
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name)
    assert [path.name for path in find_files(str(tmp_path))] == ["a.txt", "b.txt"]
    assert [path.name for path in find_files(str(tmp_path / "*.md"))] == ["c.md"]
    assert find_files("nothing.txt") == [Path("nothing.txt")]


@pytest.fixture
def tree(tmp_path):
    """Files of text, hidden ones and links among them."""
    names = ["a.txt", ".x.txt", "X.TXT", "X.JSONL.GZ", "b/c.txt", "b/.git/d.txt", ".git/e.txt"]
    for name in (*names, "elsewhere/f.txt"):
        path = tmp_path / "tree" / name if name in names else tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    return tmp_path / "tree"


def found(tree, pattern):
    return [str(path.relative_to(tree)) for path in find_files(str(tree / pattern))]


def test_a_folder_has_endings_in_any_case_and_nothing_hidden(tree):
    assert found(tree, "") == ["X.JSONL.GZ", "X.TXT", "a.txt", "b/c.txt"]
    assert is_json_lines(tree / "X.JSONL.GZ")
    assert is_compressed(tree / "X.JSONL.GZ")
    assert not is_json_lines(tree / "X.TXT")


def test_two_asterisks_are_all_files_below_and_follow_no_link_as_one_does(tree):
    below = {"a.txt", ".x.txt", "X.TXT", "X.JSONL.GZ", "b/c.txt", "b/.git/d.txt", ".git/e.txt"}
    assert set(found(tree, "**")) == set(found(tree, "**/*")) == below
    assert found(tree, "**/[a-f].txt") == [".git/e.txt", "a.txt", "b/.git/d.txt", "b/c.txt"]
    assert found(tree, "*/[a-f].txt") == [".git/e.txt", "b/c.txt", "link/f.txt"]
    assert found(tree, "link") == ["link/f.txt"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"ab\0", "a.txt is not UTF-8 text: byte 1,002 is a zero byte, which no text holds"),
        (b"a\xff\0", "a.txt is not UTF-8 text: byte 1,001 is 0xff, which is not UTF-8"),
    ],
)
def test_the_first_byte_that_is_no_text_is_named_with_its_place_in_the_file(data, message):
    with pytest.raises(InputError) as error:
        check_text(Block(data, "a.txt", 1000))
    assert error.value.message == message


def test_text_is_let_through():
    check_text(Block("Über allen Gipfeln 🙂".encode(), "a.txt", 0))
