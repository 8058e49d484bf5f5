"""Searches of several machines, played by folders, on one PostgreSQL server."""

import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.end_to_end.test_searching import STUDY, started, starts, wait_until

pytestmark = pytest.mark.exhaustive
TOOLS = ("initdb", "postgres")


class Server:
    """A PostgreSQL server of its own, which asks nobody for a password."""

    def __init__(self, folder, user):
        self._folder, self._as = folder, {"user": user} if os.geteuid() == 0 else {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"postgresql://{user}@127.0.0.1:{self._port}/postgres"
        self._do("initdb", "-D", folder / "data", "-A", "trust", "--no-sync")

    def _do(self, *words, start=subprocess.run, **options):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self._folder}
        return start([str(word) for word in words], **quiet, **self._as, **options)

    def start(self):
        words = ("-D", self._folder / "data", "-p", self._port, "-k", self._folder, "-F")
        self._process = self._do("postgres", *words, start=subprocess.Popen)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as trying:
                if trying.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("the server does not answer")

    def stop(self):
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()


@pytest.fixture
def server():
    if not all(shutil.which(tool) for tool in TOOLS):
        pytest.skip("there is no PostgreSQL server on this machine")
    user = getpass.getuser()
    if os.geteuid() == 0:  # The server refuses to be run by root.
        user = "postgres"
        if user not in {entry.pw_name for entry in pwd.getpwall()}:
            pytest.skip("PostgreSQL is not run by root, and there is no user postgres")
    # The folder of a test belongs to whom runs it.
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() == 0:
            shutil.chown(name, user)
        running = Server(Path(name), user)
        running.start()
        yield running
        running.stop()


def machine(tmp_path, name):
    """The working directory of a machine."""
    (tmp_path / name).mkdir()
    return tmp_path / name


def test_two_machines_share_one_study_without_a_doubled_trial(server, tmp_path):
    machines = [machine(tmp_path, name) for name in ("a", "b")]
    storage = f"--storage={server.url}"
    text = STUDY.replace("trials: 6", "trials: 12")
    processes = [
        started(each, storage, "--workers=2", text=text, STAND_IN_SECONDS="0.01")
        for each in machines
    ]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    trials = [name for each in machines for name in starts(each) if not name.startswith("seed")]
    assert len(trials) == len(set(trials))
    assert all("12 trials: 12 completed" in out for out, _ in said)
    # Numbers that both made in the same moment are given up, and others take their place.
    assert len(trials) == 12
    assert all(each.startswith("0") for each in trials)
    bests = {line for out, _ in said for line in out.splitlines() if line.startswith("best: ")}
    assert len(bests) == 1
    assert all(starts(each) for each in machines)


def test_a_server_that_goes_away_ends_the_search_in_a_line_and_the_same_command_goes_on(
    server, tmp_path
):
    storage = f"--storage={server.url}"
    process = started(tmp_path, storage, STAND_IN_SECONDS="0.02")
    wait_until(lambda: len(starts(tmp_path)) == 2, "the second trial")
    server.stop()
    _, errors = process.communicate(timeout=60)
    server.start()
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1
    assert errors.endswith("when it is back, the same command goes on\n")
    process = started(tmp_path, storage)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "6 trials: 6 completed" in said
    assert not (tmp_path / "doubled.txt").exists()


def test_another_study_of_the_same_name_in_a_database_is_refused(server, tmp_path):
    storage = f"--storage={server.url}"
    first = started(machine(tmp_path, "a"), storage)
    first.communicate(timeout=60)
    assert first.returncode == 0
    text = STUDY.replace("1e-1", "1.0")
    second = started(machine(tmp_path, "b"), storage, text=text)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 2
    assert errors.splitlines()[0] == (
        "error: under the name my, --storage has another study; --run_dir names another folder:"
    )
    assert not list((tmp_path / "b" / "studies" / "my").glob("*.yaml"))


def test_a_folder_whose_trials_are_in_a_database_needs_it(server, tmp_path):
    first = started(tmp_path, f"--storage={server.url}")
    first.communicate(timeout=60)
    second = started(tmp_path)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "holds trials, and its study.journal is missing: put it back, or name the" in errors
