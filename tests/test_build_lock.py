"""Processes that want the same file at once."""

import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm_core.data import build_lock
from lm_core.data.build_lock import only_one
from tests.end_to_end.command_line import PROJECT

# Makes a file unless it is there; notes in another file that it did, and waits, fails or dies.
MAKER = """
import os, sys, time
from pathlib import Path
from lm_core.data.build_lock import only_one

path, log, does = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
with only_one(path, "makes it"):
    if not path.exists():
        with log.open("a") as stream:
            stream.write(does + "\\n")
        if does == "hang":
            time.sleep(600)
        if does == "fail":
            time.sleep(0.3)
            raise SystemExit(7)
        time.sleep(0.3)
        path.write_text("made")
"""


@pytest.fixture
def start(tmp_path):
    """Starts a process that makes ``made``."""
    started = []

    def maker(does):
        words = [sys.executable, "-c", MAKER, tmp_path / "made", tmp_path / "log", does]
        started.append(subprocess.Popen(words, cwd=PROJECT, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield maker
    for process in started:
        process.kill()
        process.communicate()


def noted(tmp_path):
    log = tmp_path / "log"
    return log.read_text().split() if log.exists() else []


def wait_for_note(tmp_path):
    deadline = time.monotonic() + 60
    while not noted(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_makes_it_and_the_others_find_it(tmp_path, start):
    processes = [start("make") for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert noted(tmp_path) == ["make"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "made"]


def test_when_it_is_killed_another_one_goes_on_and_has_told_that_it_waited(tmp_path, start):
    first = start("hang")
    wait_for_note(tmp_path)
    second, third = start("make"), start("make")
    told = second.stderr.readline()
    assert told == f"another process makes it: waiting for it ({tmp_path / 'made.lock'})\n"
    first.send_signal(signal.SIGKILL)
    assert second.wait(timeout=60) == third.wait(timeout=60) == 0
    assert noted(tmp_path) == ["hang", "make"]
    assert not (tmp_path / "made.lock").exists()


def test_when_it_fails_another_one_tries(tmp_path, start):
    first = start("fail")
    wait_for_note(tmp_path)
    second = start("make")
    assert first.wait(timeout=60) == 7
    assert second.wait(timeout=60) == 0
    assert noted(tmp_path) == ["fail", "make"]


def test_a_lock_that_a_killed_process_left_keeps_nobody_away(tmp_path):
    (tmp_path / "made.lock").write_text("")
    with only_one(tmp_path / "made", "makes it"):
        assert (tmp_path / "made.lock").exists()
    assert not (tmp_path / "made.lock").exists()


def test_a_lock_whose_name_was_taken_away_is_taken_anew(tmp_path, monkeypatch):
    lock, original, removed = tmp_path / "made.lock", fcntl.flock, []

    def lock_what_another_removes(descriptor, how):
        original(descriptor, how)
        if not removed:
            removed.append(lock.unlink())

    monkeypatch.setattr(build_lock.fcntl, "flock", lock_what_another_removes)
    with only_one(tmp_path / "made", "makes it"):
        assert lock.exists()


def test_where_there_are_no_locks_everybody_makes_it(tmp_path, monkeypatch):
    def refuse(descriptor, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(build_lock.fcntl, "flock", refuse)
    n_open = len(list(Path("/dev/fd").iterdir()))
    with only_one(tmp_path / "made", "makes it"), only_one(tmp_path / "made", "makes it"):
        pass
    assert len(list(Path("/dev/fd").iterdir())) == n_open


def test_where_no_lock_can_be_made_everybody_makes_it(tmp_path):
    (tmp_path / "file").write_text("in the way")
    made = tmp_path / "file" / "made"
    with only_one(made, "makes it"), only_one(made, "makes it"):
        assert (tmp_path / "file").read_text() == "in the way"


def test_an_error_lets_go_of_it(tmp_path):
    with pytest.raises(ValueError, match="no"), only_one(tmp_path / "made", "makes it"):
        raise ValueError("no")
    with only_one(tmp_path / "made", "makes it"):
        pass
    assert list(tmp_path.iterdir()) == []
