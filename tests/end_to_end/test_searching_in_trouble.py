"""Searches on a machine that fails them: what is not the fault of the trials costs none."""

import json
import shutil

import pytest

from lm_core.search.storage import open_journal
from lm_core.search.study_folder import StudyFolder
from lm_core.search.trial_records import TrialRecords
from tests.end_to_end.command_line import metrics, run
from tests.end_to_end.test_searching import REAL, SEARCH, STUDY, searched, starts
from tests.small_studies import study


def test_a_machine_that_fails_trials_costs_none_of_them(tmp_path):
    fates = {f"STAND_IN_{n:04d}": "1" for n in range(1, 6)}
    _, errors = searched(tmp_path, check=1, **fates)
    assert errors == (
        "error: 3 trials in a row failed, the last one: the machine failed: 1 is its fate; when "
        "that is mended, the same command goes on\n"
    )
    assert set(starts(tmp_path)) == {"0000", "0001", "0002", "0003"}
    said, _ = searched(tmp_path)
    assert "going on: 1 of 6 trials are done, 3 not finished yet" in said
    assert "6 trials: 6 completed" in said


def test_a_text_that_is_not_there_costs_no_trial_and_makes_nothing(tmp_path):
    text = "corpus: texts/*.txt\n" + STUDY
    _, errors = searched(tmp_path, check=2, text=text)
    assert errors == "error: my.yaml:1: corpus: 'texts/*.txt' is a glob that matches no file\n"
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    searched(tmp_path)
    base = (tmp_path / "studies/my/base.yaml").read_text()
    assert f"{tmp_path}/texts/*.txt" in base
    # Its own record is the same study.
    searched(tmp_path, "--config=studies/my/study.yaml", "--run_dir=studies/my")


@pytest.mark.exhaustive
@pytest.mark.parametrize("lost", ["manifest.json", "config.yaml", "checkpoints"])
def test_an_interrupted_trial_whose_record_is_damaged_is_run_from_the_start(tmp_path, lost):
    (tmp_path / "my.yaml").write_text(
        REAL.replace("[0.01, 1e30]", "[0.01]").replace("seeds_for_best: 1", "seeds_for_best: 0")
        + "seed: 3\ncheckpoint_cadence: 3\n"
    )
    run(*SEARCH, cwd=tmp_path, check=0)
    path = tmp_path / "studies" / "my"
    straight = metrics(path / "trials" / "0000")
    # As if a kill had come before the end of the trial, and something worse after that.
    (path / "study.journal").unlink()
    shutil.move(path / "trials", tmp_path / "trials")
    found = records(tmp_path, path)
    found.create(StudyFolder(path).owner)
    shutil.move(tmp_path / "trials", path / "trials")
    trial = path / "trials" / "0000"
    told = json.loads((trial / "manifest.json").read_text()) | {"outcome": "running"}
    (trial / "manifest.json").write_text(json.dumps(told))
    if lost == "checkpoints":
        for checkpoint in (trial / lost).iterdir():
            shutil.rmtree(checkpoint)
    else:
        (trial / lost).write_text("{" if lost == "manifest.json" else "n_layers: 2\n")
    said = run(*SEARCH, cwd=tmp_path, check=0).stdout
    assert "1 trial: 1 completed" in said
    assert metrics(trial) == straight
    assert (path / "damaged" / "0000-1").is_dir()


def records(folder, path):
    """The trials of the study in a folder, whose journal is made if there is none."""
    one = study(folder, (folder / "my.yaml").read_text())
    return TrialRecords(open_journal(path / "study.journal"), "study", one)


def test_what_became_of_the_folder_of_a_study_is_told(tmp_path):
    searched(tmp_path, text=STUDY.replace("trials: 6", "trials: 2"))
    (tmp_path / "my.yaml").write_text(STUDY.replace("trials: 6", "trials: 1"))
    _, errors = searched(tmp_path, check=2)
    told = "my.yaml:8: trials: 1 are fewer than the 2 that there are already; they can be raised"
    assert errors.startswith(f"error: {told}")
    path = tmp_path / "studies" / "my"
    assert "trials: 2" in (path / "study.yaml").read_text()
    (tmp_path / "my.yaml").write_text(STUDY.replace("trials: 6", "trials: 2"))
    (path / "report.html").write_text("mine")
    _, errors = searched(tmp_path)
    assert errors.endswith(
        "report.html is no report of the lab, and is left as it is; move it away, and the same "
        "command makes one\n"
    )
    (path / "study.journal").unlink()
    for _ in range(2):
        _, errors = searched(tmp_path, check=2)
        assert "holds trials, and its study.journal is missing: put it back, or name " in errors
