from pathlib import Path

import pytest

from lm_core.config.statements import MOST_FILES, Reading, Source, Statement
from lm_core.errors import InputError


def test_a_source_is_written_as_editors_jump_to_it():
    assert str(Source("configs/my.yaml", 7)) == "configs/my.yaml:7"
    assert str(Source("--gin_bindings")) == "--gin_bindings"


def test_a_reading_ends_after_many_files(tmp_path):
    (tmp_path / "a.yaml").write_text("")
    reading = Reading()
    for _ in range(MOST_FILES):
        assert reading.open(tmp_path / "a.yaml") == ""
    with pytest.raises(ValueError, match="more than 100 files are read for this configuration"):
        reading.open(tmp_path / "a.yaml")


def test_a_key_that_one_file_sets_twice_is_told_and_the_first_stands():
    reading, seen = Reading(), {}
    for line in (2, 5):
        reading.add(Statement("seed", "Trainer.seed", line, Source("my.gin", line), {}), seen)
    assert [statement.value for statement in reading.statements] == [2]
    (finding,) = reading.findings
    assert finding.text == "my.gin:5: Trainer.seed: set twice in this file, first in line 2"


def test_on_the_command_line_the_later_of_two_bindings_counts():
    reading, seen = Reading(), {}
    for value in (1, 2):
        reading.add(Statement("seed", "Trainer.seed", value, Source("--gin_bindings"), {}), seen)
    assert [statement.value for statement in reading.statements] == [1, 2]
    assert reading.findings == []


def test_a_file_that_cannot_be_read_makes_a_reading_incomplete():
    reading = Reading()
    reading.problem(Source("my.yaml", 1), "wrong")
    assert reading.is_complete
    reading.failure(InputError("my.yaml: unknown file"))
    assert not reading.is_complete


def test_files_are_taken_from_below_the_allowed_folders_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reading = Reading()
    reading.take_from(Path("own"))
    reading.require_own(tmp_path / "own" / "deep" / "a.yaml", "a.yaml", "my.yaml:1")
    with pytest.raises(InputError) as error:
        reading.require_own(tmp_path / "o t" / "a.yaml", "../o t/a.yaml", "my.yaml:1: extends")
    assert error.value.message == (
        "my.yaml:1: extends: '../o t/a.yaml' lies outside the folders of this configuration; "
        "'--gin_search_paths=o t' allows its folder"
    )
