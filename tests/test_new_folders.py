import os
import shutil
import stat
import subprocess
import sys
import threading

import pytest

from lm_core import new_folders
from lm_core.errors import InputError, MachineError
from lm_core.new_folders import new_folder, remove_unfinished, unfinished_path
from lm_core.record import RunDirectory
from lm_core.run_lock import RunLock

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
        patch.setattr(new_folders.socket, "gethostname", lambda: "elsewhere")
        path = left_by(tmp_path, dead(), monkeypatch)
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_what_another_container_of_this_host_makes_stays(tmp_path, monkeypatch):
    namespace = tmp_path / "pid"
    namespace.symlink_to("pid:[4026532999]")
    folder = tmp_path / "runs"
    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(new_folders, "_PROCESS_NUMBERS", namespace)
        path = left_by(folder, dead(), monkeypatch)
    remove_unfinished(folder)
    assert list(folder.iterdir()) == [path]


def test_where_the_system_tells_no_containers_apart_the_host_does(tmp_path, monkeypatch):
    monkeypatch.setattr(new_folders, "_PROCESS_NUMBERS", tmp_path / "nowhere")
    left_by(tmp_path, dead(), monkeypatch)
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".thesis.2.new", ".a.new", "a.12345678-2-12345678.new"])
def test_a_folder_of_the_user_stays_whatever_it_is_called(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / ".lock").write_text("")
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_in_the_place_of_an_empty_one_allows_what_that_one_did(tmp_path):
    for mode in (0o700, 0o775):
        place = tmp_path / f"{mode:o}"
        place.mkdir()
        place.chmod(mode)
        with new_folder(place, "folder", "--to", lambda path: None) as folder:
            (folder / "a").touch()
        assert [path.name for path in place.iterdir()] == ["a"]
        assert stat.S_IMODE(place.stat().st_mode) == mode


def test_a_place_that_is_taken_meanwhile_is_not_overwritten(tmp_path):
    def refuse(path):
        if path.exists():
            raise InputError("somebody was faster")

    place = tmp_path / "some" / "where"
    making = new_folder(place, "folder", "--to", refuse)
    (making.__enter__() / "a").touch()
    place.mkdir()
    with pytest.raises(InputError, match="somebody was faster"):
        making.__exit__(None, None, None)
    assert list(tmp_path.glob("**/*")) == [tmp_path / "some", place]


def test_what_fails_while_it_is_filled_leaves_nothing(tmp_path):
    making = new_folder(tmp_path / "some" / "where", "folder", "--to", lambda path: None)
    (making.__enter__() / "a").touch()
    full = OSError(28, "No space left on device")
    with pytest.raises(
        MachineError, match=r"^--to: the folder .*where cannot be made: No sp.*; name"
    ):
        making.__exit__(OSError, full, None)
    assert list(tmp_path.iterdir()) == []


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
