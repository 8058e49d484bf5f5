"""Measures how long the program takes to answer, beside the import of PyTorch.

    python -m benchmarks.start_up

All commands take turns, each in a process of its own from its start to its end. Two trainings of
the default configuration have no end of their own: they are killed as soon as they print that the
run is set up, with its corpus, its model and its directory, or that the first step is done. What
the kill takes is counted. A process that imported PyTorch takes long to end, and those that are
killed do not do that: so the import is also timed without its end.
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.harness import arguments, median_ratio, print_result, take_turns, world

RUN = str(Path(__file__).resolve().parents[1] / "run.py")
REPETITIONS = 11
REFERENCE = "python -c 'import torch'"
HOOKS = '--gin_bindings=Trainer.hooks = {"update": [{"name": "identity"}]}'
# How the line of a run begins that tells of its first step, and the first line of all.
FIRST_STEP = "step 1/"
SET_UP = "run directory: "
# What this project promises: so many times the import of PyTorch.
LIMITS = {"run.py, to the first step": 2.5}
# Every command that ends by itself, and its exit code.
COMMANDS = {
    REFERENCE: (["-c", "import torch"], 0),
    "the same, without its end": (["-c", "import os, torch; os._exit(0)"], 0),
    "run.py --help": ([RUN, "--help"], 0),
    "run.py, a wrong flag": ([RUN, "--nope"], 2),
    "run.py, a wrong value": ([RUN, "--gin.Transformer.n_layers=0"], 2),
    "run.py --mode=config": ([RUN, "--mode=config"], 0),
    "run.py --mode=config, hooks": ([RUN, "--mode=config", HOOKS], 0),
    "run.py --mode=evaluate": ([RUN, "--mode=evaluate", "--run_dir=small"], 0),
    "run.py --mode=sample": ([RUN, "--mode=sample", "--run_dir=small"], 0),
}
# The run that is evaluated and sampled: a small model, hardly trained.
SMALL = [RUN, "--config=small-model.yaml", "--max_steps=1", "--run_dir=small"]


def finish(words: list[str], exit_code: int, folder: str) -> None:
    """Runs a Python program to its end.

    Raises:
        SystemExit: It ended otherwise than it should.
    """
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    if done.returncode != exit_code:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")


def until(start_of_line: str, folder: str) -> None:
    """Starts a training of the default configuration, and ends it at a line that it prints.

    Raises:
        SystemExit: It never prints that.
    """
    with subprocess.Popen(
        [sys.executable, RUN], cwd=folder, stdout=subprocess.PIPE, text=True
    ) as process:
        is_there = any(line.startswith(start_of_line) for line in process.stdout)
        process.kill()
    if not is_there:
        raise SystemExit(f"run.py ended without a line that begins with {start_of_line!r}")


def main() -> None:
    """Measures and prints."""
    given = arguments(__doc__, REPETITIONS).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        finish(SMALL, 0, folder)
        cases: dict[str, Callable[[], None]] = {
            name: partial(finish, words, exit_code, folder)
            for name, (words, exit_code) in COMMANDS.items()
        }
        cases["run.py, to the set-up run"] = partial(until, SET_UP, folder)
        cases["run.py, to the first step"] = partial(until, FIRST_STEP, folder)
        seconds = take_turns(cases, given.repetitions)
    rows = [
        {
            "command": name,
            "seconds": statistics.median(taken),
            "times the import": median_ratio(taken, seconds[REFERENCE]),
            "limit": LIMITS.get(name),
        }
        for name, taken in seconds.items()
    ]
    print_result(world(), rows, given.json)


if __name__ == "__main__":
    main()
