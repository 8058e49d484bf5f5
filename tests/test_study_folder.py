from pathlib import Path

import pytest

from lm_core.errors import InputError
from lm_core.search.study import require_same_study
from lm_core.search.study_folder import StudyFolder, default_folder
from tests.small_studies import BASE, SPACE, study


def test_the_folder_of_a_study_is_always_the_same():
    assert default_folder("configs/search/learning-rate.yaml") == Path("studies/learning-rate")


def test_a_new_folder_and_an_empty_one_and_that_of_a_study_will_do(folder):
    StudyFolder(folder / "a" / "new").make()
    StudyFolder(folder / "a" / "new").write_study(study(folder))
    (folder / "a" / "new" / "notes.txt").touch()
    again = StudyFolder(folder / "a" / "new")
    assert not again.has_trials
    again.trial("0000").mkdir(parents=True)
    assert again.has_trials


def test_what_a_kill_left_before_there_was_a_study_will_do(folder):
    with StudyFolder(folder / "a").lock("study"):
        pass
    StudyFolder(folder / "a")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("manifest.json", "holds a run, no study; --run_dir names another folder"),
        ("thesis.txt", r"holds other files \(thesis.txt\), and no study; --run_dir names another"),
    ],
)
def test_a_folder_of_something_else_is_refused(folder, name, sentence):
    (folder / "a").mkdir()
    (folder / "a" / name).touch()
    with pytest.raises(InputError, match=sentence):
        StudyFolder(folder / "a")


def test_a_file_is_no_folder(folder):
    (folder / "a").touch()
    (folder / "b").symlink_to("a")
    with pytest.raises(InputError, match="is no folder for a study"):
        StudyFolder(folder / "a")
    with pytest.raises(InputError, match=r"cannot be made: .*; --run_dir names another folder"):
        StudyFolder(folder / "b" / "c").make()


def test_the_study_that_is_written_is_a_study_of_its_own(folder):
    one = study(folder, f"{BASE}{SPACE}trials: 5\nsampler: random\n")
    StudyFolder(folder / "a").make()
    StudyFolder(folder / "a").write_study(one)
    text = (folder / "a" / "study.yaml").read_text()
    assert "trials: 5  # my.yaml:" in text
    (folder / "a" / "my.yaml").write_text(text)
    again = study(folder / "a", text)
    assert again.settings == one.settings
    require_same_study(one.definition(), again, "here")


def test_writing_the_same_again_changes_no_file(folder):
    place = StudyFolder(folder)
    place.write("best.yaml", "a: 1\n")
    before = (folder / "best.yaml").stat().st_ino
    place.write("best.yaml", "a: 1\n")
    assert (folder / "best.yaml").stat().st_ino == before
    place.write("best.yaml", "a: 2\n")
    assert (folder / "best.yaml").read_text() == "a: 2\n"
