import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lm_core import run_lock
from lm_core.errors import InputError, MachineError
from lm_core.run_lock import LOCK, RunLock
from tests.locks import is_held

HOLD = """
import sys, time
from pathlib import Path
from lm_core.run_lock import RunLock
with RunLock() as lock:
    lock.take(Path(sys.argv[1]))
    print("held", flush=True)
    time.sleep(600)
"""


def holder(folder):
    """A process that holds the lock of a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_at_once_who_the_first_is(tmp_path):
    process = holder(tmp_path)
    try:
        assert is_held(tmp_path)
        with RunLock() as lock, pytest.raises(InputError) as error:
            lock.take(tmp_path)
        message = error.value.message
        assert f"{tmp_path} is being written by process {process.pid} on " in message
        assert "wait until it has ended, stop it, or name another --run_dir" in message
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_that_a_dead_process_left_blocks_nobody(tmp_path, number):
    process = holder(tmp_path)
    process.send_signal(number)
    process.communicate()
    assert (tmp_path / LOCK).exists()
    assert not is_held(tmp_path)
    with RunLock() as lock:
        lock.take(tmp_path)
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_of_a_longer_holder_before_nothing_is_left(tmp_path):
    (tmp_path / LOCK).write_text("process 4194304 on a machine with a long name\n")
    with RunLock() as lock, RunLock() as second:
        lock.take(tmp_path)
        assert (tmp_path / LOCK).read_text().count("\n") == 1
        n_open = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(3):
            with pytest.raises(InputError, match=rf"by process {os.getpid()} on [^ ]+; wait until"):
                second.take(tmp_path)
        assert len(list(Path("/proc/self/fd").iterdir())) == n_open


def test_after_a_run_its_lock_is_free_again(tmp_path):
    with RunLock() as lock:
        lock.take(tmp_path)
        assert is_held(tmp_path)
    assert not is_held(tmp_path)


def test_a_second_lock_lets_go_of_the_first(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    with RunLock() as lock:
        lock.take(tmp_path / "a")
        lock.take(tmp_path / "b")
        assert not is_held(tmp_path / "a")
        assert is_held(tmp_path / "b")


def test_a_folder_without_a_lock_is_not_held_and_gets_none(tmp_path):
    assert not is_held(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_stays_with_its_folder_when_that_is_renamed(tmp_path):
    (tmp_path / "a").mkdir()
    with RunLock() as lock:
        lock.take(tmp_path / "a")
        (tmp_path / "a").rename(tmp_path / "b")
        assert is_held(tmp_path / "b")


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder"])
def test_a_lock_that_is_something_else_is_refused_and_what_it_is_stays(tmp_path, kind):
    target = tmp_path / "mine"
    target.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / LOCK
    make = {
        "link": lambda: path.symlink_to(target),
        "second name": lambda: path.hardlink_to(target),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    make[kind]()
    with RunLock() as lock, pytest.raises(MachineError, match=r"run/.lock.*; remove it"):
        lock.take(folder)
    assert target.read_text() == "precious"


def test_a_file_system_without_locks_is_worth_a_warning(tmp_path, monkeypatch, capsys):
    def unsupported(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with RunLock() as lock:
        lock.take(tmp_path)
    assert "cannot be locked (No locks available)" in capsys.readouterr().err


def test_a_system_without_such_locks_trains_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "fcntl", None)
    with RunLock() as lock:
        lock.take(tmp_path)


def test_a_full_disk_keeps_nobody_from_locking(tmp_path, monkeypatch):
    def full(descriptor, data, offset):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with RunLock() as lock:
        lock.take(tmp_path)
        with RunLock() as second, pytest.raises(InputError, match="written by another process"):
            second.take(tmp_path)


@pytest.mark.parametrize("change", ["none", "moved", "replaced", "lock removed", "lock made anew"])
def test_a_lock_knows_whether_it_is_the_one_in_a_folder(tmp_path, change):
    folder = tmp_path / "run"
    folder.mkdir()
    with RunLock() as lock:
        assert not lock.is_of(folder)
        lock.take(folder)
        assert lock.is_of(folder)
        if change in ("moved", "replaced"):
            folder.rename(tmp_path / "elsewhere")
        if change == "replaced":
            folder.mkdir()
        if "lock" in change:
            (folder / LOCK).unlink()
        if change in ("replaced", "lock made anew"):
            (folder / LOCK).touch()
        assert lock.is_of(folder) == (change == "none")


def test_a_held_lock_is_seen_without_touching_it(tmp_path):
    assert run_lock.is_held(tmp_path) is False
    with RunLock() as lock:
        lock.take(tmp_path)
        assert run_lock.is_held(tmp_path) is True
    assert run_lock.is_held(tmp_path) is False


def test_where_the_system_lists_no_locks_nobody_knows(tmp_path):
    (tmp_path / LOCK).touch()
    assert run_lock.is_held(tmp_path, locks=tmp_path / "nowhere") is None


def test_the_locks_of_other_files_are_no_lock_of_this_one(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / LOCK).touch()
    with RunLock() as lock:
        lock.take(tmp_path / "other")
        assert run_lock.is_held(tmp_path) is False
