"""Compares the peak of memory that ``--mode=plan`` estimates with the one that training reaches.

    python benchmarks/memory_estimate.py

For each size it asks for a plan and trains a few steps, each in a process of its own, and prints
both peaks, their ratio, and the share of the activations that the allocator's fragments come to:
what the estimate supposes is ``_SHARE_OF_FRAGMENTS`` in ``lm_core/costs.py``. Linux only.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

RUN = Path(__file__).resolve().parents[1] / "run.py"
MEBIBYTE = 2**20
# Linux tells the peak of a process in units of 1024 bytes, see getrusage(2).
UNIT = 1024
SIZES = {
    "small-model.yaml": [],
    "default.yaml": [],
    "large-model.yaml": [],
    "default.yaml, no dropout": ["--gin.Transformer.dropout=0.0"],
    "default.yaml, batch of 1": ["--gin.Trainer.batch_size=1"],
    "default.yaml, batch of 64": ["--gin.Trainer.batch_size=64"],
    "12 layers, 768 wide": [
        "--gin.Transformer.n_layers=12",
        "--gin.Transformer.d_model=768",
        "--gin.Transformer.n_heads=12",
        "--gin.Transformer.d_ff=3072",
        "--gin.Trainer.batch_size=4",
    ],
}


def planned(arguments: list[str]) -> dict[str, int]:
    """The memory part of a plan, in bytes."""
    words = [sys.executable, str(RUN), "--mode=plan", "--format=json", *arguments]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return json.loads(printed)["memory"]


def reached(arguments: list[str]) -> int:
    """The peak of a training run of four steps, its evaluation and its checkpoint, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        words = [str(RUN), "--max_steps=4", f"--run_dir={folder}/run", *arguments]
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"training ended with {status}: {' '.join(arguments)}")
    return usage.ru_maxrss * UNIT


def main() -> None:
    """Prints a line for each size."""
    print(f"{'':28}{'estimated':>12}{'reached':>12}{'ratio':>8}{'fragments':>11}")
    for name, changes in SIZES.items():
        file = name.split(",")[0]
        arguments = [f"--config={file}"] if file.endswith(".yaml") else []
        arguments += changes
        memory = planned(arguments)
        peak = reached(arguments)
        others = memory["total"] - memory["activations"] - memory["fragments"]
        fragments = (peak - others) / memory["activations"] - 1
        estimated = memory["total"]
        print(
            f"{name:28}{estimated / MEBIBYTE:8,.0f} MiB{peak / MEBIBYTE:8,.0f} MiB"
            f"{estimated / peak:8.2f}{fragments:11.2f}"
        )


if __name__ == "__main__":
    main()
