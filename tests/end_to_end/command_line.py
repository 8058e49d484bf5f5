"""Running the program as a person does: in a process of its own."""

import atexit
import functools
import json
import os
import subprocess
import sys

from tests.end_to_end.warm import PROJECT, Warm

RUN = PROJECT / "run.py"
# Small enough that a whole run takes a few seconds, most of them for starting.
TINY = [
    "--gin.Transformer.n_layers=1",
    "--gin.Transformer.d_model=16",
    "--gin.Transformer.n_heads=2",
    "--gin.Transformer.d_ff=32",
    "--gin.Transformer.max_seq_len=16",
    "--gin.Trainer.batch_size=4",
]


@functools.cache
def _warm():
    """A process for all runs that need no environment of their own."""
    warm = Warm(COLUMNS="80").__enter__()
    atexit.register(warm.__exit__)
    return warm


def run(*arguments, cwd, check=None, **differences):
    """Runs the program with arguments; ``check`` is the exit code to insist on.

    Forks it from a process that waits for this; or, given what ``run_cold`` takes, starts it.
    """
    if differences:
        done = run_cold(*arguments, cwd=cwd, **differences)
    else:
        done = _warm().run(*arguments, cwd=cwd)
    if check is not None and done.returncode != check:
        raise AssertionError(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def run_cold(*arguments, cwd, timeout=120, **environment):
    """Runs ``python run.py`` with arguments, from the start of Python on.

    Other than these, it is given seconds to end in, and variables of the environment.
    """
    return subprocess.run(
        [sys.executable, str(RUN), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "COLUMNS": "80", **environment},
    )


def start(*arguments, cwd):
    """Starts ``python run.py`` and goes on; output is piped."""
    return subprocess.Popen(
        [sys.executable, "-u", str(RUN), *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def metrics(run_dir):
    """The lines of a run's metrics, without the speeds, which no two runs share."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "tokens_per_second"} for row in rows]


def manifest(run_dir):
    """What the run directory says about the run as a whole."""
    return json.loads((run_dir / "manifest.json").read_text())
