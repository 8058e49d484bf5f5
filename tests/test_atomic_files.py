import os
import resource
from pathlib import Path

import pytest

from lm_core.atomic_files import (
    append_whole,
    replace_file,
    sync_folder,
    temporary_name,
    write_synced,
)


def test_new_content_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "file"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_the_disk_has_the_content_before_the_name_and_the_name_before_it_returns(
    tmp_path, monkeypatch
):
    happened = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor):
        fsync(descriptor)
        happened.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def noted_replace(self, target):
        happened.append("named")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    replace_file(tmp_path / "file", b"one")
    assert happened == [temporary_name(tmp_path / "file").name, "named", tmp_path.name]


def test_when_writing_fails_the_old_content_stands(tmp_path, monkeypatch):
    path = tmp_path / "file"
    replace_file(path, b"one")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_never_overwrites(tmp_path):
    write_synced(tmp_path / "file", b"one")
    with pytest.raises(FileExistsError):
        write_synced(tmp_path / "file", b"two")


def test_a_folder_that_cannot_be_opened_is_left_alone(tmp_path):
    sync_folder(tmp_path / "missing")


def test_what_is_added_follows_what_there_is(tmp_path):
    path = tmp_path / "file"
    append_whole(path, b"one\n")
    append_whole(path, b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_what_cannot_be_added_whole_is_not_added_at_all(tmp_path):
    path = tmp_path / "file"
    append_whole(path, b"one\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            append_whole(path, b"two\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"one\n"


def test_nothing_is_added_through_a_link(tmp_path):
    (tmp_path / "mine").write_text("")
    (tmp_path / "link").symlink_to("mine")
    with pytest.raises(OSError, match="symbolic links"):
        append_whole(tmp_path / "link", b"one")
    assert (tmp_path / "mine").read_text() == ""
