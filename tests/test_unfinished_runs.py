import os
import shutil
import subprocess
import sys
import threading

import pytest

from lm_core import unfinished_runs
from lm_core.record import RunDirectory
from lm_core.run_lock import RunLock
from lm_core.unfinished_runs import remove_unfinished, unfinished_path

MANIFEST = {"corpus": {"sha256": "abc"}}


def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_by(folder, process, monkeypatch, link_to=None):
    """What a process leaves that was killed while it made a run, or the link to one."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: process)
        path = unfinished_path(folder / "run")
    if link_to is not None:
        path.symlink_to(link_to)
        return path
    path.mkdir()
    (path / "config.yaml").write_text("")
    return path


def test_what_a_dead_process_left_goes_and_what_a_living_one_makes_stays(tmp_path, monkeypatch):
    left_by(tmp_path, dead(), monkeypatch)
    alive = left_by(tmp_path, 1, monkeypatch)
    own = left_by(tmp_path, os.getpid(), monkeypatch)
    remove_unfinished(tmp_path)
    assert set(tmp_path.iterdir()) == {alive, own}


def test_a_link_that_a_dead_process_left_goes_and_what_it_leads_to_stays(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    left_by(tmp_path, dead(), monkeypatch, link_to="a")
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_what_another_machine_makes_stays(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(unfinished_runs.socket, "gethostname", lambda: "elsewhere")
        path = left_by(tmp_path, dead(), monkeypatch)
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", [".thesis.2.new", ".a.new", "a.12345678-2-12345678.new"])
def test_a_folder_of_the_user_stays_whatever_it_is_called(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / ".lock").write_text("")
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_next_run_made_there_puts_it_away(tmp_path, monkeypatch):
    left_by(tmp_path, dead(), monkeypatch)
    RunDirectory.create(tmp_path / "a", "", "", MANIFEST)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_name_as_long_as_names_may_be_leaves_room(tmp_path):
    RunDirectory.create(tmp_path / ("x" * 255), "", "", MANIFEST)
    RunDirectory.create(tmp_path / ("\u00fc" * 127), "", "", MANIFEST)


def test_runs_made_side_by_side_do_not_disturb_each_other(tmp_path):
    problems = []

    def make(worker):
        for number in range(40):
            with RunLock() as lock:
                path = tmp_path / f"{worker}-{number}"
                try:
                    run = RunDirectory.create(path, "", "", MANIFEST, lock)
                    assert run.manifest == MANIFEST
                    assert run.checkpoints.is_dir()
                    shutil.rmtree(path)
                except Exception as error:
                    problems.append(error)

    threads = [threading.Thread(target=make, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert list(tmp_path.iterdir()) == []
