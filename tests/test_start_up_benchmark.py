"""The program that measures starts: what it waits for, and what it takes for no measurement."""

import os

import pytest

from benchmarks import start_up

TRAINING = """
import os, pathlib, time
pathlib.Path("process").write_text(str(os.getpid()))
print("run directory: out", flush=True)
time.sleep(600)
"""


def test_a_training_is_ended_at_the_line_that_is_waited_for(tmp_path, monkeypatch):
    (tmp_path / "training.py").write_text(TRAINING)
    monkeypatch.setattr(start_up, "RUN", "training.py")
    start_up.until(start_up.SET_UP, str(tmp_path))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "process").read_text()), 0)


def test_a_training_that_ends_without_that_line_is_no_measurement(tmp_path, monkeypatch):
    (tmp_path / "training.py").write_text("print('step 2/3')")
    monkeypatch.setattr(start_up, "RUN", "training.py")
    with pytest.raises(SystemExit, match="without a line that begins with 'step 1/'"):
        start_up.until(start_up.FIRST_STEP, str(tmp_path))


def test_a_command_that_ends_otherwise_than_it_should_is_no_measurement(tmp_path):
    start_up.finish(["-c", "raise SystemExit(2)"], 2, str(tmp_path))
    with pytest.raises(SystemExit, match=r"ended with 1:\nTraceback"):
        start_up.finish(["-c", "raise ValueError"], 0, str(tmp_path))
