"""What the programs that measure speed share: taking turns, medians, ratios, and who measured.

A time says little on a machine that others use too: a ratio of two things that took turns in one
process says much. Each program hands its cases to ``take_turns`` and prints a table of medians.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

import torch

from lm_core.manifest import processor
from lm_core.model.linear import product

# Shapes (rows, inner, columns) like those of a model's layers, and one that favours the processor.
RATE_SHAPES = ((4096, 256, 1024), (4096, 1024, 256), (2048, 2048, 2048))
RATE_REPETITIONS = 9
PACKAGES = ("torch", "numpy", "transformers", "lm_core")


def arguments(description: str, repetitions: int) -> argparse.ArgumentParser:
    """A parser with what every program takes: ``--repetitions`` and ``--json``.

    Args:
        description: What the program measures.
        repetitions: How many turns there are by default.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repetitions",
        type=int,
        default=repetitions,
        help=f"turns that count, after one that does not (default {repetitions})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def take_turns(
    cases: Mapping[str, Callable[[], Any]], repetitions: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Runs every case in turn, again and again, so that a slow moment of the machine meets all.

    Args:
        cases: What to run, by name. One that returns a number has measured its seconds itself.
        repetitions: Turns that count.
        warm_up: Turns before them that do not.

    Returns:
        Seconds of each case in each turn that counts.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(-warm_up, repetitions):
        for name, case in cases.items():
            start = time.perf_counter()
            told = case()
            taken = told if isinstance(told, float) else time.perf_counter() - start
            if turn >= 0:
                seconds[name].append(taken)
    return seconds


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """The median, over the turns, of how many times longer the one took than the other."""
    pairs = zip(numerator, denominator, strict=True)
    return statistics.median(above / below for above, below in pairs)


def quartile_ratios(numerator: Sequence[float], denominator: Sequence[float]) -> str:
    """The quartiles of such ratios: between them lies half of what the machine has shown."""
    pairs = zip(numerator, denominator, strict=True)
    first, _, third = statistics.quantiles((above / below for above, below in pairs), n=4)
    return f"{shown(first)} to {shown(third)}"


def matrix_rate(dtype: torch.dtype) -> float:
    """Floating-point operations a second of matrix products: the limit of what is measured.

    It is the best median over a few shapes and both libraries that PyTorch multiplies with, on as
    many threads as PyTorch uses.
    """
    rates = []
    for rows, inner, columns in RATE_SHAPES:
        left = torch.randn(rows, inner).to(dtype)
        right = torch.randn(inner, columns).to(dtype)
        products = {
            "PyTorch's choice": lambda left=left, right=right: left @ right,
            "the lab's choice": lambda left=left, right=right: product(left, right.t(), None),
        }
        for seconds in take_turns(products, RATE_REPETITIONS, warm_up=3).values():
            rates.append(2 * rows * inner * columns / statistics.median(seconds))
    return max(rates)


def world() -> dict[str, Any]:
    """The machine and the versions that a result belongs to."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def print_result(
    world: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    as_json: bool,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Prints a result: the machine, facts that hold for all, and a table.

    Args:
        world: From ``world``.
        rows: The table: cells by the name of their column, the same names in every row.
        as_json: Whether to print one JSON object instead.
        facts: More to say above the table, by name.
    """
    if as_json:
        print(json.dumps({"world": world, **(facts or {}), "rows": list(rows)}, indent=2))
        return
    versions = ", ".join(f"{name} {version}" for name, version in world["versions"].items())
    print(f"{world['processor']}: {world['cores']} cores, {world['threads']} threads, ", end="")
    print(world["instructions"])
    print(versions)
    for name, value in (facts or {}).items():
        print(f"{name}: {shown(value)}")
    print()
    print_table(rows)


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints cells by the name of their column, the same names in every row."""
    table = [list(rows[0]), *([shown(cell) for cell in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        first, *others = line
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join(cells).rstrip())


def shown(cell: Any) -> str:
    """A cell as people read it: numbers with three digits, nothing for None."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return str(cell)
