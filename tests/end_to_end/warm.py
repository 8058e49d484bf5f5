"""Running the program many times without starting Python and PyTorch each time.

A process that has imported everything, and computed nothing yet, forks a child for each run; the
child is a process like any other, to be killed and sent signals.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 120


class Done(NamedTuple):
    """What a run left: its exit code, negative where a signal killed it, and what it said."""

    returncode: int
    stdout: str
    stderr: str


class Warm:
    """The process that forks; ``with Warm() as warm: warm.run("--max_steps=3", cwd=folder)``.

    Args:
        environment: What is different in the environment of the runs.
    """

    def __init__(self, **environment):
        self._environment = {**os.environ, **environment}

    def __enter__(self):
        # What runs say is no file in the folder where they run.
        self._said = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.end_to_end.warm", self._said.name],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        return self

    def __exit__(self, *error):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._said.cleanup()

    def _ask(self, **question):
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, *arguments, cwd):
        """Starts a run: its process id."""
        return self._ask(arguments=[str(a) for a in arguments], cwd=str(cwd))

    def wait(self, process):
        """Waits for a run that was started."""
        code = self._ask(wait=process)
        files = [Path(self._said.name) / f"{process}.{name}" for name in ("out", "err")]
        done = Done(code, *(file.read_text() for file in files))
        for file in files:
            file.unlink()
        return done

    def run(self, *arguments, cwd, check=None):
        """Runs to the end; ``check`` is the exit code to insist on."""
        done = self.wait(self.start(*arguments, cwd=cwd))
        assert check is None or done.returncode == check, done
        return done


def wait_until(happened, what, seconds=60):
    """Waits for something that another process does."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.002)


def _child(question):
    import run

    os.chdir(question["cwd"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, name in ((1, "out"), (2, "err")):
        path = Path(sys.argv[1]) / f"{os.getpid()}.{name}"
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    sys.argv = [str(PROJECT / "run.py"), *question["arguments"]]
    code = run.main(question["arguments"])
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _serve():
    import lm_core.experiment  # noqa: F401 -- for all that it imports

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running = set()
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer = _ended(question["wait"])
            running.discard(question["wait"])
        elif (answer := os.fork()) == 0:
            _child(question)
        else:
            running.add(answer)
        print(json.dumps(answer), flush=True)
    # A test that failed may have left some.
    for process in running:
        os.kill(process, signal.SIGKILL)


def _ended(process):
    """The exit code of a child; one that hangs is killed, so that its test fails."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


if __name__ == "__main__":
    _serve()
