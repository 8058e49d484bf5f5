"""Runs a recipe with several seeds, and what is left of it without one of its choices at a time.

    pip install -e '.[bench]'
    python -m benchmarks.recipes --config=speedrun.yaml --corpus=tinyshakespeare.txt --out=speedrun
    python -m benchmarks.recipes --config=speedrun.yaml --corpus=tinyshakespeare.txt --ablate

Each run is ``python run.py`` in a process of its own, and its seconds are those of the whole
process. ``--out`` names a folder for what is worth keeping of the recipe's runs: each one's
configuration and last line of metrics, the losses as a picture, a sample of the first, and
``result.json``, or ``ablation.json``, with all that was measured. In an ablation, a choice is each
value that is not the default's, sizes and what belongs to the text aside; it gets the default's
value, with the partners that ``PARTNERS`` gives it. ``--change`` runs changes of one's own instead.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import print_result, world
from benchmarks.time_to_loss import RUN, loss_in
from lm_core.config.hyperparameters import KEYS
from lm_core.config.names import unknown_key
from lm_core.config.resolution import ConfigSources, FileArgument, resolve
from lm_core.config.table import default, gin_parameter
from lm_core.config.training_config import TrainingConfig
from lm_core.errors import InputError

CONFIGS = Path(RUN).parent / "configs"
SEEDS = 3
# Values that say how large and how long, on what, or when to look: no choices of a method.
NO_CHOICES = frozenset(
    {
        *("n_layers", "d_model", "n_heads", "d_ff", "max_seq_len", "max_steps", "batch_size"),
        *("learning_rate", "muon_learning_rate", "muon_momentum", "beta1", "beta2"),
        *("decay_share", "min_learning_rate_ratio", "decay_steps", "warmup_steps", "seed"),
        *("corpus", "tokenizer", "train_ratio", "eval_cadence", "sampling_cadence"),
        *("checkpoint_cadence", "keep_checkpoints", "accumulation_steps", "hooks", "precision"),
        *("sampling_temperature", "sampling_prompt", "sampling_max_length", "sampling_num_samples"),
        *("sampling_top_k", "sampling_top_p", "sampling_seed", "early_stopping_evaluations"),
    }
)
# What goes with a choice that is taken back, so that the rest is not made for the other one: AdamW
# takes other steps than Muon, and with two matrices an MLP is wider for as many parameters.
PARTNERS: dict[str, dict[str, Any]] = {"optimizer": {"learning_rate": 4e-3}}
# Two matrices of this many times the width have as many parameters as three.
WIDTH_WITHOUT_A_GATE = 1.5
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


def changes_of(values: TrainingConfig) -> dict[str, dict[str, Any]]:
    """The recipe less one choice at a time: names, and the values that differ from the recipe.

    Args:
        values: The recipe.
    """
    changes = {}
    for key, value in values.to_dict().items():
        if key in NO_CHOICES or value == default(key):
            continue
        changed = {key: default(key), **PARTNERS.get(key, {})}
        if key == "activation" and value == "swiglu":
            changed["d_ff"] = round(values.d_ff * WIDTH_WITHOUT_A_GATE)
        name = ", ".join(f"{name}: {json.dumps(new)}" for name, new in changed.items())
        changes[name.replace('"', "")] = changed
    return changes


def change_of(text: str) -> dict[str, Any]:
    """The values of a ``--change``.

    Raises:
        SystemExit: It is no JSON object of hyperparameters.
    """
    try:
        changed = json.loads(text)
    except ValueError:
        changed = None
    if not isinstance(changed, dict) or not changed:
        raise SystemExit(f'--change={text}: it takes JSON such as {{"norm": "layernorm"}}')
    for key in changed:
        if key not in KEYS:
            raise SystemExit(f"--change: {key}: {unknown_key(key)}")
    return changed


def bindings_of(changed: Mapping[str, Any]) -> list[str]:
    """The flags that make changes to a recipe."""
    return [f"--gin_bindings={gin_parameter(key)} = {value!r}" for key, value in changed.items()]


def trained(words: Sequence[str], run_dir: Path, seed: int, name: str) -> Run:
    """Trains in a process of its own.

    Args:
        words: Arguments of the lab, but for the seed and the run directory.
        run_dir: Where the record of the run goes.
        seed: The run's seed.
        name: What to call it where it fails.

    Raises:
        SystemExit: It failed.
    """
    command = [sys.executable, RUN, *words, f"--gin.Trainer.seed={seed}", f"--run_dir={run_dir}"]
    start = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SystemExit(f"{name} with seed {seed} ended with {done.returncode}: {last}")
    print(f"{name}, seed {seed}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return Run(seed, loss_in(name, done.stdout), seconds)


def keep(run_dir: Path, folder: Path, corpus: Path) -> None:
    """Keeps a run's configuration, without the place of the text, and its last line of metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (run_dir / "config.yaml").read_text()
    for place in (str(corpus.resolve()), str(corpus)):
        text = text.replace(place, corpus.name)
    lines = text.replace(f"{run_dir}/", "").splitlines(keepends=True)
    root = f"{Path(RUN).parent}/"
    (folder / "config.yaml").write_text("".join(line.replace(root, "") for line in lines))
    (folder / "metrics.jsonl").write_text(
        (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)[-1]
    )


def draw(curves: Mapping[int, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draws the losses of some runs, by their seeds, against the step."""
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "recipes"
    figure, panel = plt.subplots(figsize=FIGURE_INCHES, layout="constrained")
    for index, (seed, rows) in enumerate(curves.items()):
        size = max(1, len(rows) // N_POINTS)
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        steps = [part[-1]["step"] for part in parts]
        means = [statistics.mean(row["train_loss"] for row in part) for part in parts]
        panel.plot(steps, means, color=f"C{index}", alpha=0.6, label=f"training, seed {seed}")
        evaluated = [(row["step"], row["val_loss"]) for row in rows if "val_loss" in row]
        panel.plot(*zip(*evaluated, strict=True), "o", color=f"C{index}", label="validation")
    panel.set(xlabel="step", ylabel="nats per token")
    panel.legend(ncols=len(curves))
    figure.savefig(path, metadata={"Date": None})


def recipe_runs(words: Sequence[str], given: argparse.Namespace) -> list[Run]:
    """The recipe with each seed; what is worth keeping goes into the folder, if there is one."""
    runs, curves = [], {}
    with tempfile.TemporaryDirectory() as place:
        for seed in range(1, given.seeds + 1):
            run_dir = Path(place) / f"seed-{seed}"
            runs.append(trained(words, run_dir, seed, "the recipe"))
            lines = (run_dir / "metrics.jsonl").read_text().splitlines()
            curves[seed] = [json.loads(line) for line in lines]
            if given.out is not None and given.corpus is not None:
                keep(run_dir, given.out / run_dir.name, given.corpus)
        if given.out is not None:
            draw(curves, given.out / "losses.svg")
            sampled = [sys.executable, RUN, "--mode=sample", f"--run_dir={place}/seed-1"]
            options = ["--gin.Sampler.max_length=400", "--gin.Sampler.temperature=0.8"]
            with (given.out / "sample.txt").open("w") as file:
                subprocess.run([*sampled, *options], stdout=file, check=True)
    return runs


def changed_runs(
    words: Sequence[str], changes: Mapping[str, Mapping[str, Any]], n_seeds: int
) -> dict[str, list[Run]]:
    """Each change with each seed; seeds come first, so that a part of the table is of use."""
    runs: dict[str, list[Run]] = {name: [] for name in ("the recipe", *changes)}
    with tempfile.TemporaryDirectory() as place:
        for seed in range(1, n_seeds + 1):
            for index, name in enumerate(runs):
                run_dir = Path(place) / f"{index}-{seed}"
                flags = bindings_of(changes.get(name, {}))
                runs[name].append(trained([*words, *flags], run_dir, seed, name))
                shutil.rmtree(run_dir)
    return runs


def rows_of(runs: Mapping[str, Sequence[Run]]) -> list[dict[str, Any]]:
    """A row for each change: its losses, and how much is lost by it."""
    means = {name: statistics.mean(run.loss for run in mine) for name, mine in runs.items()}
    first = next(iter(means.values()))
    return [
        {
            "run": name,
            "seeds": str(len(mine)),
            "mean loss": f"{means[name]:.4f}",
            "standard deviation": f"{deviation(mine):.4f}",
            "worse by": f"{means[name] - first:+.4f}",
            "median seconds": statistics.median(run.seconds for run in mine),
        }
        for name, mine in runs.items()
    ]


def deviation(runs: Sequence[Run]) -> float:
    """The standard deviation of losses; 0 of a lone one."""
    return statistics.stdev(run.loss for run in runs) if len(runs) > 1 else 0.0


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="the recipe, a file in configs/")
    parser.add_argument("--corpus", type=Path, help="the text; left out: the recipe's own")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"from 1 on (default {SEEDS})")
    parser.add_argument("--max_steps", type=int, help="fewer steps than the recipe has")
    parser.add_argument("--out", type=Path, help="a folder for what is worth keeping")
    parser.add_argument("--ablate", action="store_true", help="the recipe less each of its choices")
    parser.add_argument(
        "--change",
        action="append",
        default=[],
        help='the recipe with other values, as JSON: --change=\'{"norm": "layernorm"}\'',
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def main() -> None:
    """Runs and prints."""
    given = parsed()
    words = [f"--config={given.config}"]
    words += [] if given.corpus is None else [f"--corpus={given.corpus}"]
    words += [] if given.max_steps is None else [f"--max_steps={given.max_steps}"]
    sources = ConfigSources(
        files=[FileArgument("--config", given.config)], yaml_folders=[Path(), CONFIGS]
    )
    changes = {text: change_of(text) for text in given.change}
    try:
        recipe = resolve(sources).values
    except InputError as error:
        raise SystemExit(error.message) from error
    if given.ablate:
        changes = changes_of(recipe)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
    if changes:
        runs, name = changed_runs(words, changes, given.seeds), "ablation.json"
    else:
        runs, name = {"the recipe": recipe_runs(words, given)}, "result.json"
    facts = {"configuration": given.config, "steps": given.max_steps or "all"}
    if given.out is not None:
        table = {label: [run._asdict() for run in mine] for label, mine in runs.items()}
        document = {"world": world(), **facts, "runs": table}
        (given.out / name).write_text(json.dumps(document, indent=2) + "\n")
    print_result(world(), rows_of(runs), given.json, facts)


if __name__ == "__main__":
    main()
