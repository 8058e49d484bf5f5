"""Compares the time that the check of a configuration takes with the import of PyTorch.

    python benchmarks/check_time.py

It runs all commands in turn, each in a process of its own, and prints medians and ratios: the check
of the default, of a configuration with hooks, which needs PyTorch, and of a mistake in training.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUN = Path(__file__).resolve().parents[1] / "run.py"
REPETITIONS = 11
HOOKS = '--gin_bindings=Trainer.hooks = {"update": [{"name": "identity"}]}'
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "check": [str(RUN), "--mode=config"],
    "check, with hooks": [str(RUN), "--mode=config", HOOKS],
    "mistake in training": [str(RUN), "--gin.Transformer.n_layers=0"],
}


def seconds(arguments: list[str]) -> float:
    """How long a Python program takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    return time.perf_counter() - start


def main() -> None:
    """Prints a line for each command."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(REPETITIONS):
        for name, arguments in COMMANDS.items():
            taken[name].append(seconds(arguments))
    reference = statistics.median(taken["import torch"])
    for name, times in taken.items():
        median = statistics.median(times)
        print(f"{name:24}{median:8.3f} s{median / reference:8.2f} times the import of PyTorch")


if __name__ == "__main__":
    main()
