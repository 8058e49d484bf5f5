"""Measures how the time of a training step grows with width, depth, length and batch.

    python -m benchmarks.step_growth --plot=step-growth.svg

One size at a time leaves the default configuration. The exponent is the slope of the line that fits
time against size best, both in logarithms: 1 is in proportion, 2 with the square. Beside it stands
that of the arithmetic, which time follows where nothing else costs.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import arguments, matrix_rate, print_result, take_turns, world
from lm_core.compute import DTYPES, chosen_device, chosen_precision
from lm_core.config.training_config import TrainingConfig
from lm_core.costs import flops_a_step
from lm_core.machine import keep_freed_memory
from lm_core.model.transformer import Transformer
from lm_core.training.trainer import Trainer

REPETITIONS = 5
VOCAB_SIZE = 128
# The sizes along each axis; the default configuration lies on each of them.
AXES = {
    "width": (128, 256, 512, 1024),
    "depth": (2, 4, 8, 16),
    "length": (64, 128, 256, 512, 1024, 2048),
    "batch": (1, 4, 16, 64),
}
# A head stays as wide as in the default configuration, and the hidden layer as many times wider.
HEAD_WIDTH = 64
HIDDEN_FACTOR = 4
FIGURE_INCHES = (8.0, 6.0)


def changes(axis: str, size: int) -> dict[str, int]:
    """What a size along an axis changes in the default configuration."""
    if axis == "width":
        return {"d_model": size, "n_heads": size // HEAD_WIDTH, "d_ff": HIDDEN_FACTOR * size}
    return {{"depth": "n_layers", "length": "max_seq_len", "batch": "batch_size"}[axis]: size}


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """The slope of the best line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def measured(axis: str, precision: str, repetitions: int) -> list[dict[str, Any]]:
    """Seconds and arithmetic of a step for each size of an axis."""
    tokens = np.random.default_rng(0).integers(0, VOCAB_SIZE, 10**6).astype(np.uint8)
    configs, cases = {}, {}
    for size in AXES[axis]:
        config = TrainingConfig(**changes(axis, size))
        names = ("n_layers", "d_model", "n_heads", "d_ff", "dropout", "max_seq_len")
        model = Transformer(VOCAB_SIZE, **{name: getattr(config, name) for name in names}).train()
        trainer = Trainer(model, tokens, batch_size=config.batch_size, precision=precision, seed=1)
        configs[size], cases[size] = config, trainer.train_step
    taken = take_turns(cases, repetitions)
    return [
        {
            "axis": axis,
            "size": size,
            "seconds": statistics.median(taken[size]),
            "tokens": config.batch_size * config.max_seq_len,
            "flops": flops_a_step(config, VOCAB_SIZE),
        }
        for size, config in configs.items()
    ]


def plot(points: Sequence[dict[str, Any]], rate: float, path: Path) -> None:
    """Draws time against size for each axis, with the limit that the products set."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=FIGURE_INCHES, layout="constrained")
    for panel, axis in zip(panels.flat, AXES, strict=True):
        mine = [point for point in points if point["axis"] == axis]
        sizes = [point["size"] for point in mine]
        panel.loglog(sizes, [p["seconds"] for p in mine], "o-", label="a step")
        panel.loglog(sizes, [p["flops"] / rate for p in mine], "--", label="the products alone")
        panel.set(xlabel=axis, ylabel="seconds", xticks=sizes, xticklabels=sizes)
        panel.minorticks_off()
        panel.legend()
    figure.savefig(path)


def main() -> None:
    """Measures and prints."""
    parser = arguments(__doc__, REPETITIONS)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES), help="which to do")
    parser.add_argument("--precision", choices=["auto", *DTYPES], default="auto")
    parser.add_argument("--plot", type=Path, help="a file for the plot: .svg, .png or .pdf")
    given = parser.parse_args()
    keep_freed_memory()
    precision = chosen_precision(given.precision, chosen_device("cpu"))
    rate = matrix_rate(DTYPES[precision])
    points = [
        point for axis in given.axes for point in measured(axis, precision, given.repetitions)
    ]
    rows = [
        {
            "axis": point["axis"],
            "size": str(point["size"]),
            "ms a step": 1e3 * point["seconds"],
            "tokens/s": point["tokens"] / point["seconds"],
            "share of the limit": f"{point['flops'] / rate / point['seconds']:.0%}",
        }
        for point in points
    ]
    facts = {"precision": precision, "products, GFLOP/s": rate / 1e9}
    for axis in given.axes:
        mine = [point for point in points if point["axis"] == axis]
        sizes = [point["size"] for point in mine]
        time, arithmetic = (
            exponent(sizes, [point[what] for point in mine]) for what in ("seconds", "flops")
        )
        facts[f"exponent of {axis}"] = f"{time:.2f}; of its arithmetic {arithmetic:.2f}"
    if given.plot:
        plot(points, rate, given.plot)
    print_result(world(), rows, given.json, facts)


if __name__ == "__main__":
    main()
