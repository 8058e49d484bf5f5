"""Running the program in several processes, as a person does with torchrun."""

import contextlib
import os
import signal
import subprocess
import sys
import time

from tests.end_to_end.command_line import RUN

# Seconds after which a launch that does not end is given up.
PATIENCE = 240


def command(n_processes, *arguments, options=("--standalone",)):
    """The words of a command that launches processes on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={n_processes}"]
    return [*launcher, *options, str(RUN), *map(str, arguments)]


def launched(n_processes, *arguments, cwd, check=None, **more):
    """Launches processes and waits for their end."""
    done = subprocess.run(
        command(n_processes, *arguments, **more),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "COLUMNS": "80"},
    )
    if check is not None and done.returncode != check:
        raise AssertionError(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@contextlib.contextmanager
def launching(n_processes, *arguments, cwd, **more):
    """Launches processes and goes on; what is left of them in the end is killed."""
    launcher = subprocess.Popen(
        command(n_processes, *arguments, **more),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield launcher
    finally:
        for number in [*workers_of(launcher), launcher.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        launcher.wait()


def workers_of(launcher):
    """The numbers of the processes that a launcher has started, in the order of their ranks."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(launcher.pid)], capture_output=True, text=True
    )
    return sorted(map(int, listed.stdout.split()))


def wait_for(is_so, what):
    """Waits until something is so; gives it up where it takes too long."""
    end = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"after {PATIENCE} seconds there is no {what}")
        time.sleep(0.05)


def checkpoints(run_dir):
    """The steps of a run's checkpoints so far."""
    folder = run_dir / "checkpoints"
    return sorted(int(path.name[-8:]) for path in folder.glob("step-*"))
