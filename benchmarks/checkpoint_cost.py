"""Measures what checkpoints add to the time of a run at the default configuration and cadence.

    python benchmarks/checkpoint_cost.py

It trains the default experiment, saves after every tenth step instead of every thousandth, so that
steps and saves alternate, and prints the medians and the share that a save has of a thousand
steps. A save is all that the loop waits for: the check of the weights, the files, the waiting for
the disk, and the removal of an older checkpoint.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm_core.assembly import build_trainer, completed, load_data
from lm_core.config.resolution import Binding, ConfigSources, FileArgument, resolve
from lm_core.record import RunDirectory
from lm_core.training.trainer import Trainer

PROJECT = Path(__file__).resolve().parents[1]
CADENCE = 10
SAVES = 11
# What the default promises: a checkpoint costs no more than this share of the time.
LIMIT = 0.01


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The function, with a list of how long its calls take."""

    def measured(*arguments: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments)
        seconds.append(time.perf_counter() - start)
        return result

    return measured


def main() -> None:
    """Trains, and prints what steps and saves took."""
    sources = ConfigSources(
        files=[FileArgument("--config", str(PROJECT / "configs" / "default.yaml"))],
        bindings=[
            Binding("--gin_bindings", f"Trainer.checkpoint_cadence = {CADENCE}"),
            Binding("--gin_bindings", f"Trainer.max_steps = {CADENCE * SAVES}"),
        ],
    )
    default = resolve(ConfigSources(files=sources.files)).values.checkpoint_cadence
    steps: list[float] = []
    saves: list[float] = []
    Trainer.train_step = timed(Trainer.train_step, steps)
    Trainer._save = timed(Trainer._save, saves)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        config = completed(resolve(sources))
        trainer = build_trainer(config, load_data(config))
        run = RunDirectory.create(Path(folder) / "run", "", "", {"corpus": {"sha256": ""}})
        trainer.train(run)
        newest = max(run.checkpoints.iterdir())
        n_bytes = sum(file.stat().st_size for file in newest.iterdir())
    # The first step starts PyTorch's threads; the first save makes the folder.
    step, save = statistics.median(steps[1:]), statistics.median(saves[1:])
    print(f"a step: {step:.3f} s, the median of {len(steps) - 1}")
    print(f"a save of {n_bytes:,} bytes: {save:.3f} s, the median of {len(saves) - 1}")
    for name, seconds in (("median", save), ("longest", max(saves))):
        share = seconds / (default * step)
        print(f"the {name} save after {default:,} steps: {share:.3%} (limit {LIMIT:.0%})")


if __name__ == "__main__":
    main()
