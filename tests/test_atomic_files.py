import os

import pytest

from lm_core.atomic_files import replace_file, sync_folder, write_synced


def test_new_content_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "file"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


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
