"""``--mode=report``, and the page that a training run ends with."""

import pytest

from lm_core.errors import DivergenceError, InputError, MachineError
from lm_core.report import reporting
from lm_core.report.page import MARK
from tests.made_run import make_run
from tests.tiny_run import asked, train


def is_report(path):
    return MARK in path.read_text()[:200]


def test_the_page_of_one_run_lies_in_its_directory(folder, capsys):
    make_run(folder / "a")
    reporting.report(asked(compared=("a",)))
    assert is_report(folder / "a" / "report.html")
    assert capsys.readouterr().out == "report: a/report.html\n"


def test_the_page_of_several_runs_lies_in_the_working_directory(folder):
    for name in ("a", "b"):
        make_run(folder / name)
    reporting.report(asked(compared=("?",)))
    assert is_report(folder / "report.html")
    assert not (folder / "a" / "report.html").exists()


def test_a_page_lies_where_it_is_asked_for_and_is_written_anew(folder):
    make_run(folder / "a")
    for _ in range(2):
        reporting.report(asked(compared=("a",), output=folder / "mine.html"))
    assert is_report(folder / "mine.html")
    assert not (folder / "a" / "report.html").exists()


@pytest.mark.parametrize("place", ["a page", "an empty file", "a folder", "a link", "no folder"])
def test_what_is_no_report_is_left_as_it_is(folder, place):
    make_run(folder / "a")
    path = folder / "mine.html"
    if place == "a page":
        path.write_text("<!doctype html><p>Mine</p>")
    elif place == "an empty file":
        path.write_text("")
    elif place == "a folder":
        path.mkdir()
    elif place == "a link":
        (folder / "other.html").write_text(MARK)
        path.symlink_to("other.html")
    else:
        path = folder / "nowhere" / "mine.html"
    before = sorted(file.name for file in folder.iterdir())
    with pytest.raises(InputError, match=r"mine.html (is no|cannot be written)"):
        reporting.report(asked(compared=("a",), output=path))
    assert sorted(file.name for file in folder.iterdir()) == before


def test_a_disk_that_takes_no_page_is_told(folder, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    make_run(folder / "a")
    monkeypatch.setattr(reporting, "replace_file", full)
    with pytest.raises(MachineError, match=r"report.html cannot be written: No space left"):
        reporting.report(asked(compared=("a",)))


def test_a_training_run_ends_with_its_page(tmp_path, monkeypatch, capsys):
    train(tmp_path, monkeypatch, Trainer__eval_cadence=2)
    assert is_report(tmp_path / "run" / "report.html")
    assert f"report: {tmp_path}/run/report.html" in capsys.readouterr().out


def test_a_run_that_diverged_has_a_page_too(tmp_path, monkeypatch, capsys):
    with pytest.raises(DivergenceError):
        train(tmp_path, monkeypatch, Trainer__learning_rate=1e30, Trainer__max_steps=50)
    text = (tmp_path / "run" / "report.html").read_text()
    assert '<span class="badge bad">diverged</span>' in text
    assert f"report: {tmp_path}/run/report.html" in capsys.readouterr().out


def test_a_run_without_a_page_is_as_good(tmp_path, monkeypatch, capsys):
    def broken(path):
        raise RuntimeError("no colours left")

    monkeypatch.setattr(reporting, "write_report_of", broken)
    train(tmp_path, monkeypatch)
    captured = capsys.readouterr()
    warning = "warning: there is no report of this run: RuntimeError: no colours left\n"
    assert captured.err == warning
    assert "final validation loss" in captured.out
    assert "report:" not in captured.out


def test_somebody_elses_file_in_a_run_is_kept(tmp_path, monkeypatch, capsys):
    train(tmp_path, monkeypatch)
    path = tmp_path / "run" / "report.html"
    path.write_text("my notes")
    train(tmp_path, monkeypatch, resume=True, Trainer__max_steps=4)
    assert path.read_text() == "my notes"
    assert "is no report of the lab" in capsys.readouterr().err


def test_figures_are_drawn_where_they_are_asked_for(folder, capsys):
    make_run(folder / "a")
    reporting.report(asked(compared=("a",), figures=folder / "pictures"))
    assert {path.suffix for path in (folder / "pictures").iterdir()} == {".png", ".svg"}
    assert len(capsys.readouterr().out.splitlines()) == 9
