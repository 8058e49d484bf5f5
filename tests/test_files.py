import os
from pathlib import Path

import pytest

from lm_core.config.files import chain, display_name, find_config, is_yaml, read_text


def test_paths_below_the_working_directory_are_shown_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert display_name(tmp_path / "configs" / "my.yaml") == "configs/my.yaml"
    assert display_name(tmp_path.parent / "my.yaml") == str(tmp_path.parent / "my.yaml")


def test_a_name_is_looked_for_in_the_folders_in_their_order(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "configs" / "a.yaml").write_text("")
    folders = [Path(), tmp_path / "configs"]
    assert find_config("a.yaml", folders, "--config") == tmp_path / "configs/a.yaml"
    (tmp_path / "here" / "a.yaml").write_text("")
    found = find_config("a.yaml", folders, "--config")
    assert found.resolve() == tmp_path / "here" / "a.yaml"


def test_a_missing_file_says_where_it_was_looked_for_and_what_is_near(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "default.yaml").write_text("")
    with pytest.raises(ValueError, match=r"did you mean default.yaml\? .*directory, configs\)"):
        find_config("defualt.yaml", [Path(), tmp_path / "configs"], "--config")


@pytest.mark.parametrize(
    "name", ["", ".", "a\0b", "x" * 5000, "~nobody-of-this-name/a", "a.**", "a.["]
)
def test_names_that_are_no_files_are_refused_in_words(name):
    with pytest.raises(ValueError, match="--config"):
        find_config(name, [Path()], "--config")


def test_a_pipe_is_no_configuration(tmp_path):
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(ValueError, match="not a regular file"):
        find_config(str(tmp_path / "a.yaml"), [Path()], "--config")


def test_an_unreadable_file_gives_the_reason(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        read_text(tmp_path)


def test_a_folder_is_refused_in_one_plain_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^--config: '\.' is not a regular file$"):
        find_config(".", [Path()], "--config")


@pytest.mark.parametrize(
    ("name", "expected"), [("a.yaml", True), ("a.yml", True), ("a.gin", False), ("a", False)]
)
def test_files_of_yaml_are_known_by_their_names(name, expected):
    assert is_yaml(Path(name)) is expected


def test_a_chain_of_files_shows_the_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert chain([tmp_path / "a.yaml", Path("b.yaml")]) == "a.yaml -> b.yaml"
