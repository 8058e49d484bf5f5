"""What every test relies on: gin and signals are as at the start, a slow machine is no failure."""

import os
import signal
import sys

import gin
import pytest
from hypothesis import settings

# As run.py does, before PyTorch is imported: the suite may have to share the machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Each process of tests takes more than a gigabyte.
MOST_PROCESSES = 4

# Examples are random where a person tries to find new ones, and the same every time elsewhere.
settings.register_profile("lab", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("lab")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """All tests together run in a process on each core, unless ``-n`` says another number.

    Some tests of a person's choice do not, which would wait longer for the processes to start; nor
    do they where pytest-xdist is missing.
    """
    is_plain = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    is_worker = hasattr(config, "workerinput")
    if is_plain and not is_worker and getattr(config.option, "numprocesses", 0) is None:
        config.option.numprocesses = "auto"
        config.option.maxprocesses = MOST_PROCESSES
        config.option.dist = "worksteal"


@pytest.fixture(autouse=True)
def gin_is_clear():
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.fixture(autouse=True)
def signals_are_python_s_own():
    """The program's ``main`` sets handlers for good, and a second signal would end the tests."""
    unraisable = sys.unraisablehook
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        # Under nohup the program leaves it ignored; here it is to answer, and to end no test.
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    if before[signal.SIGINT] == signal.SIG_IGN:
        # So shells start what runs in their background.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    sys.unraisablehook = unraisable
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with nothing in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
