"""What is kept of a recipe's runs: files that a later call of ``benchmarks.recipes`` adds to.

A recipe's folder has ``result.json`` with each run of it, ``ablation.json`` with the runs that lack
one of its choices, ``losses.svg``, ``sample.txt`` of one seed, and for each seed a folder with the
run's ``config.yaml``, the last line of its ``metrics.jsonl``, and ``curve.json``. The runs of an
ablation have the first two in ``ablation/``, in a folder for each change.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.time_to_loss import RUN
from lm_core.errors import InputError

# How the losses of a run are drawn: training losses as means of so many parts of it.
N_POINTS = 60
FIGURE_INCHES = (7, 4)


class Run(NamedTuple):
    """What a run came to.

    Attributes:
        seed: Its seed.
        loss: Validation loss in nats per token.
        seconds: From the start of the process to its end.
    """

    seed: int
    loss: float
    seconds: float


class Results:
    """Runs by the name of what was run and their seeds, in a file if there is one.

    Args:
        path: The file. What it has already was measured before. None: nothing is kept.
        facts: What the runs are of: the machine, the recipe, its steps.

    Raises:
        InputError: The file has runs of something else.
    """

    def __init__(self, path: Path | None, facts: Mapping[str, Any]) -> None:
        self._path, self._facts = path, dict(facts)
        self._runs: dict[str, dict[int, Run]] = {}
        if path is None or not path.exists():
            return
        way_out = "remove it to measure anew, or give another --out"
        try:
            document = json.loads(path.read_text())
            other = [name for name, value in self._facts.items() if document[name] != value]
            for name, runs in document["runs"].items():
                self._runs[name] = {run["seed"]: Run(**run) for run in runs}
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise InputError(f"{path}: these are no results of recipes; {way_out}") from error
        if other:
            before, now = (json.dumps(facts[other[0]]) for facts in (document, self._facts))
            raise InputError(
                f"{path}: its runs are of another {other[0]}, {before} and not {now}; {way_out}"
            )

    def __contains__(self, name_and_seed: tuple[str, int]) -> bool:
        name, seed = name_and_seed
        return seed in self._runs.get(name, {})

    def add(self, name: str, run: Run) -> None:
        """Keeps a run at once, so that what ends a later one loses nothing."""
        self._runs.setdefault(name, {})[run.seed] = run
        if self._path is None:
            return
        runs = {name: [run._asdict() for run in mine] for name, mine in self.runs().items()}
        text = json.dumps({**self._facts, "runs": runs}, indent=2) + "\n"
        beside = self._path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self._path)

    def runs(self) -> dict[str, list[Run]]:
        """All runs, those of a name in the order of their seeds."""
        return {name: [mine[seed] for seed in sorted(mine)] for name, mine in self._runs.items()}


def keep(run_dir: Path, folder: Path, corpus: Path | None) -> None:
    """Keeps of a run what a reader may want to see, without the places of this machine.

    Args:
        run_dir: The record of the run.
        folder: Where to put its configuration and its last line of metrics.
        corpus: The text as it was given to the lab. None: the recipe's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = (run_dir / "config.yaml").read_text()
    for place in () if corpus is None else (str(corpus.resolve()), str(corpus)):
        text = text.replace(place, corpus.name)
    text = text.replace(f"{run_dir}/", "").replace(f"{Path(RUN).parent}/", "")
    (folder / "config.yaml").write_text(text)
    lines = (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text(lines[-1])


def keep_curve(run_dir: Path, folder: Path) -> None:
    """Keeps the losses of a run, beside what ``keep`` has put into the folder."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    curve = curve_of([json.loads(line) for line in lines])
    (folder / "curve.json").write_text(json.dumps(curve) + "\n")


def folder_of_change(out: Path, name: str) -> Path:
    """Where the records of a change are, such as ``ablation/activation=gelu,d_ff=480``.

    Args:
        out: The recipe's folder.
        name: What the table calls the change.
    """
    return out / "ablation" / name.replace(": ", "=").replace(", ", ",").replace(" ", "-")


def curve_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The losses of a run, as steps and nats per token: means in training, and all validations."""
    size = max(1, len(rows) // N_POINTS)
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    return {
        "training": [
            (part[-1]["step"], round(statistics.mean(row["train_loss"] for row in part), 4))
            for part in parts
        ],
        "validation": [
            (row["step"], round(row["val_loss"], 4)) for row in rows if "val_loss" in row
        ],
    }


def draw(folder: Path, seeds: Sequence[int]) -> None:
    """Draws the losses of the runs that a recipe's folder has, against the step."""
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "recipes"
    figure, panel = plt.subplots(figsize=FIGURE_INCHES, layout="constrained")
    for index, seed in enumerate(seeds):
        curve = json.loads((folder / f"seed-{seed}" / "curve.json").read_text())
        color = f"C{index}"
        training = zip(*curve["training"], strict=True)
        panel.plot(*training, color=color, alpha=0.6, label=f"training, seed {seed}")
        validation = zip(*curve["validation"], strict=True)
        panel.plot(*validation, "o", color=color, markersize=4, label="validation")
    panel.set(xlabel="step", ylabel="nats per token")
    panel.legend(ncols=len(seeds))
    figure.savefig(folder / "losses.svg", metadata={"Date": None})


def rows_of(names: Sequence[str], runs: Mapping[str, Sequence[Run]]) -> list[dict[str, Any]]:
    """A row for each name: its losses, and how much worse than those of the first they are.

    Args:
        names: What was to be run; the first is what the others are compared with.
        runs: What was. Cells of a name without runs are empty, and losses are compared with those
            of the first for the same seeds.
    """
    rows = []
    for name in names:
        mine = runs.get(name, ())
        seeds = {run.seed for run in mine}
        same = [run.loss for run in runs.get(names[0], ()) if run.seed in seeds]
        mean = statistics.mean(run.loss for run in mine) if mine else None
        worse = mean - statistics.mean(same) if same and len(same) == len(mine) else None
        seconds = statistics.median(run.seconds for run in mine) if mine else None
        rows.append(
            {
                "run": name,
                "seeds": str(len(mine)),
                "mean loss": "" if mean is None else f"{mean:.4f}",
                "standard deviation": f"{deviation(mine):.4f}" if len(mine) > 1 else "",
                "worse by": "" if worse is None else f"{worse:+.4f}",
                "median seconds": f"{seconds:.1f}" if mine else "",
            }
        )
    return rows


def deviation(runs: Sequence[Run]) -> float:
    """The standard deviation of the losses of at least two runs, as of a sample."""
    return statistics.stdev(run.loss for run in runs)
