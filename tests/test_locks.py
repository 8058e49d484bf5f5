import json
import subprocess
import sys
import time

import pytest

from lm_core.errors import InputError, MachineError
from lm_core.search import locks
from lm_core.search.locks import FileLock, JournalLock
from tests.config_sources import PROJECT

# Takes a lock, says so, and starts a child that inherits it and lives until its input ends.
PARENT = """
import subprocess, sys, time
from pathlib import Path
from lm_core.search.locks import FileLock
lock = FileLock(Path("one.lock"))
assert lock.try_to_take()
child = [sys.executable, "-c", "import sys; sys.stdin.read()"]
subprocess.Popen(child, pass_fds=[lock.descriptor])
print("taken", flush=True)
time.sleep(100)
"""


def test_one_has_it_until_it_is_let_go_of(folder):
    first, second = FileLock(folder / "a" / "one.lock"), FileLock(folder / "a" / "one.lock")
    assert first.try_to_take()
    assert not second.try_to_take()
    first.let_go()
    assert second.try_to_take()


def test_a_lock_is_held_until_both_who_took_it_and_its_child_are_dead(folder):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(PROJECT)},
    )
    assert parent.stdout.readline() == "taken\n"
    lock = FileLock(folder / "one.lock")
    assert not lock.try_to_take()
    parent.kill()
    parent.wait()
    assert not lock.try_to_take()
    parent.stdin.close()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while not lock.try_to_take():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_lock_that_cannot_be_made_is_told(folder):
    (folder / "file").touch()
    with pytest.raises(MachineError, match="cannot be opened"):
        FileLock(folder / "file" / "one.lock").try_to_take()


def test_a_link_in_its_place_is_not_followed(folder):
    (folder / "one.lock").symlink_to("elsewhere")
    with pytest.raises(MachineError, match="cannot be opened"):
        FileLock(folder / "one.lock").try_to_take()
    assert not (folder / "elsewhere").exists()


def test_a_system_without_such_locks_is_told(folder, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    with pytest.raises(InputError, match="needs locks on files"):
        FileLock(folder / "one.lock")


@pytest.mark.parametrize("half", ["", '{"op": 3, "val', "\0" * 10_000, "x" * 5000])
def test_whoever_writes_next_cuts_off_a_half_written_line(folder, half):
    journal = folder / "study.journal"
    whole = "".join(json.dumps({"op": n}) + "\n" for n in range(3))
    journal.write_text(whole + half)
    lock = JournalLock(journal)
    assert lock.acquire()
    lock.release()
    assert journal.read_text() == whole


def test_a_journal_of_half_a_line_becomes_empty(folder):
    (folder / "study.journal").write_text('{"op')
    lock = JournalLock(folder / "study.journal")
    lock.acquire()
    lock.release()
    assert (folder / "study.journal").read_bytes() == b""
