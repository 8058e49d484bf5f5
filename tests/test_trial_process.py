import os
import signal
import subprocess
import sys
import time

import pytest

from lm_core.search.locks import FileLock
from lm_core.search.trial_process import TrialProcess
from tests.config_sources import PROJECT


@pytest.fixture
def started(folder):
    """Starts a program of a few lines; nothing of it is left after the test."""
    processes = []

    def start(text, *arguments, **options):
        (folder / "program.py").write_text(text)
        options = {"lock": None, **options}
        program, log = folder / "program.py", folder / "logs" / "0000.txt"
        processes.append(TrialProcess(arguments, program, log, **options))
        return processes[-1]

    yield start
    for process in processes:
        if process.exit_code() is None:
            os.kill(process.process_id, signal.SIGKILL)
            ended(process)


def ended(process):
    deadline = time.monotonic() + 30
    while (code := process.exit_code()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return code


def said(folder):
    return (folder / "logs" / "0000.txt").read_text()


def test_it_is_given_its_arguments_and_what_it_says_is_kept(folder, started):
    program = "import sys; print(sys.argv[1:]); print('x', file=sys.stderr); sys.exit(5)"
    assert ended(started(program, "--a=b c")) == 5
    assert said(folder) == "['--a=b c']\nx\n" or said(folder) == "x\n['--a=b c']\n"
    assert ended(started("print('again')")) == 0
    assert said(folder).endswith("again\n")


def test_asked_to_stop_it_gets_sigterm_and_may_save(folder, started):
    process = started(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(143)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    while "ready" not in said(folder):
        time.sleep(0.005)
    process.stop()
    assert ended(process) == 143
    assert "saved" in said(folder)
    process.stop()


def test_one_that_is_killed_has_a_negative_exit_code(started):
    assert ended(started("import os; os.kill(os.getpid(), 9)")) == -signal.SIGKILL


def test_it_is_in_a_session_of_its_own(folder, started):
    ended(started("import os; print(os.getsid(0) == os.getpid())"))
    assert said(folder) == "True\n"


def test_threads_are_divided_unless_the_environment_says_something(folder, started, monkeypatch):
    program = "import os; print(os.environ.get('OMP_NUM_THREADS'))"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    ended(started(program, n_threads=3))
    ended(started(program))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    ended(started(program, n_threads=3))
    assert said(folder) == "3\nNone\n7\n"


def test_it_holds_its_lock_as_long_as_it_lives(folder, started):
    lock, other = FileLock(folder / "one.lock"), FileLock(folder / "one.lock")
    assert lock.try_to_take()
    process = started("import time; time.sleep(60)", lock=lock.descriptor)
    lock.let_go()
    assert not other.try_to_take()
    os.kill(process.process_id, signal.SIGKILL)
    ended(process)
    assert other.try_to_take()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("step 1\nerror: it is wrong; so\n", "it is wrong; so"),
        ("error: 2 problems\na: x\nb: y\n", "2 problems; a: x; b: y"),
        ("Traceback\n  File\nValueError: no\n", "ValueError: no"),
        ("", ""),
        ("error: \x1b[31m\n", "\\x1b[31m"),
    ],
)
def test_its_last_words_are_its_error_in_a_line(started, text, told):
    process = started(f"import sys; sys.stderr.write({text!r})")
    ended(process)
    assert process.last_words() == told


def test_last_words_are_no_longer_than_a_line_and_not_those_of_another(started):
    ended(started("print('error: an earlier one')"))
    process = started("print('a' * 10_000)")
    ended(process)
    assert process.last_words() == "a" * 300
    process = started("pass")
    ended(process)
    assert process.last_words() == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_it_is_asked_to_end_when_its_parent_is_killed(folder):
    (folder / "program.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (open('saved', 'w'), sys.exit(143)))\n"
        "open('ready', 'w')\n"
        "time.sleep(60)\n"
    )
    parent = (
        "import time\nfrom pathlib import Path\n"
        "from lm_core.search.trial_process import TrialProcess\n"
        "TrialProcess([], Path('program.py'), Path('log'), None)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], env={"PYTHONPATH": str(PROJECT)})
    deadline = time.monotonic() + 30
    while not (folder / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    while not (folder / "saved").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_trial_of_a_search_that_a_launcher_started_is_alone(started, folder, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    program = "import os\nprint([name for name in os.environ if 'RANK' in name or 'WORLD' in name])"
    assert ended(started(program)) == 0
    assert (folder / "logs" / "0000.txt").read_text() == "[]\n"
