"""Runs a recipe with several seeds, and what is left of it without one of its choices at a time.

    pip install -e '.[bench]'
    python -m benchmarks.recipes --config=speedrun.yaml --corpus=tinyshakespeare.txt --out=speedrun
    python -m benchmarks.recipes --config=speedrun.yaml --corpus=tinyshakespeare.txt --ablate

Each run is ``python run.py`` in a process of its own, and its seconds are those of the whole
process. ``--out`` names a folder for what is worth keeping of the runs
(``benchmarks/recipe_records.py``). What it has already of the same recipe, on the same machine, is
not run again: seeds can be measured one at a time, and a call that was ended goes on.

In an ablation, a choice is each value that is not the default's, sizes and what belongs to the text
aside; it gets the default's value, with the partners that ``PARTNERS`` gives it. ``--change`` adds
a change of one's own, and may be given several times. ``--max_steps`` makes all runs shorter.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import print_result, world
from benchmarks.recipe_records import (
    Results,
    Run,
    draw,
    folder_of_change,
    keep,
    keep_curve,
    rows_of,
)
from benchmarks.time_to_loss import RUN, end_children_on_termination, turn
from lm_core.config.hyperparameters import KEYS
from lm_core.config.names import unknown_key
from lm_core.config.resolution import Binding, ConfigSources, FileArgument, resolve
from lm_core.config.table import default, gin_parameter
from lm_core.config.training_config import TrainingConfig
from lm_core.data.corpus import load_corpus
from lm_core.errors import InputError

CONFIGS = Path(RUN).parent / "configs"
SEEDS = "1,2,3"
# Values that say how large and how long, on what, or when to look: no choices of a method.
NO_CHOICES = frozenset(
    {
        *("n_layers", "d_model", "n_heads", "d_ff", "max_seq_len", "max_steps", "batch_size"),
        *("decay_steps", "seed", "corpus", "tokenizer", "train_ratio"),
        *("eval_cadence", "sampling_cadence", "checkpoint_cadence", "keep_checkpoints"),
        *("accumulation_steps", "hooks", "precision"),
        *("sampling_temperature", "sampling_prompt", "sampling_max_length", "sampling_num_samples"),
        *("sampling_top_k", "sampling_top_p", "sampling_seed", "early_stopping_evaluations"),
    }
)
# What goes with a choice that is taken back, so that the rest is not made for the other one, in a
# row each: alone, AdamW wants smaller steps than beside Muon, and how small differs by the recipe.
PARTNERS: dict[str, list[dict[str, Any]]] = {
    "optimizer": [{"learning_rate": 1e-3}, {"learning_rate": 2e-3}]
}
# What flags of this program say, for all runs alike: a change cannot.
FLAGS = {"seed": "--seeds", "max_steps": "--max_steps", "corpus": "--corpus"}
# Two matrices of this many times the width have as many parameters as three.
WIDTH_WITHOUT_A_GATE = 1.5
# The name of what is changed nowhere, and whose sample is kept, with which options.
RECIPE = "the recipe"
SAMPLED = 1
SAMPLING = ("--gin.Sampler.max_length=400", "--gin.Sampler.temperature=0.8")
# The built-in corpus differs between versions of Python.
BUILT_IN = f"the documentation of Python {platform.python_version()}"


def changes_of(values: TrainingConfig) -> dict[str, dict[str, Any]]:
    """The recipe less one choice at a time: names, and the values that differ from the recipe.

    Args:
        values: The recipe.
    """
    changes = {}
    for key, value in values.to_dict().items():
        if key in NO_CHOICES or value == default(key):
            continue
        for partners in PARTNERS.get(key, [{}]):
            changed = {key: default(key), **partners}
            if key == "activation" and value == "swiglu":
                changed["d_ff"] = round(values.d_ff * WIDTH_WITHOUT_A_GATE)
            changes[name_of(changed)] = changed
    return changes


def name_of(changed: Mapping[str, Any]) -> str:
    """What the table calls a change."""
    return ", ".join(f"{key}: {json.dumps(new)}" for key, new in changed.items()).replace('"', "")


def change_of(text: str) -> dict[str, Any]:
    """The values of a ``--change``.

    Raises:
        InputError: It is no JSON object of hyperparameters, or of one that a flag is for.
    """
    try:
        changed = json.loads(text)
    except ValueError:
        changed = None
    if not isinstance(changed, dict) or not changed:
        raise InputError(f'--change={text}: it takes JSON such as {{"norm": "layernorm"}}')
    for key in changed:
        if key not in KEYS:
            raise InputError(f"--change: {key}: {unknown_key(key)}")
        if key in FLAGS:
            raise InputError(f"--change: {key}: {FLAGS[key]} gives it, to all runs")
    return changed


def resolved(
    config: str, changed: Mapping[str, Any], max_steps: int | None = None
) -> TrainingConfig:
    """The values of a recipe with a change to it.

    Args:
        config: The recipe.
        changed: The values that differ from it.
        max_steps: Its steps; None: its own.

    Raises:
        InputError: They make no configuration.
    """
    sources = ConfigSources(
        files=[FileArgument("--config", config)],
        bindings=[Binding("--change", text) for text in statements(changed)],
        overrides={} if max_steps is None else {"max_steps": max_steps},
        yaml_folders=[Path(), CONFIGS],
    )
    return resolve(sources).values


def statements(changed: Mapping[str, Any]) -> list[str]:
    """The gin bindings that make a change to a recipe."""
    return [f"{gin_parameter(key)} = {value!r}" for key, value in changed.items()]


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
    words = [RUN, *words, f"--gin.Trainer.seed={seed}", f"--run_dir={run_dir}"]
    done = turn(f"{name} with seed {seed}", words)
    print(f"{name}, seed {seed}: {done.seconds:.1f} s", file=sys.stderr, flush=True)
    return Run(seed, done.loss, done.seconds)


def run_recipe(words: Sequence[str], given: argparse.Namespace, results: Results) -> None:
    """The recipe with each seed; what is worth keeping goes into the folder, if there is one."""
    for seed in given.seeds:
        if (RECIPE, seed) in results:
            continue
        with tempfile.TemporaryDirectory() as place:
            run_dir = Path(place) / f"seed-{seed}"
            run = trained(words, run_dir, seed, RECIPE)
            if given.out is not None:
                folder = given.out / run_dir.name
                keep(run_dir, folder, given.corpus)
                keep_curve(run_dir, folder)
                if seed == SAMPLED:
                    (given.out / "sample.txt").write_text(sampled(run_dir))
            results.add(RECIPE, run)
            if given.out is not None:
                draw(given.out, [run.seed for run in results.runs()[RECIPE]])


def sampled(run_dir: Path) -> str:
    """A text that a run's model writes."""
    command = [sys.executable, RUN, "--mode=sample", f"--run_dir={run_dir}", *SAMPLING]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def run_changes(
    words: Sequence[str],
    changes: Mapping[str, Mapping[str, Any]],
    given: argparse.Namespace,
    results: Results,
) -> None:
    """Each change with each seed; seeds come first, so that a part of the table is of use."""
    for seed in given.seeds:
        for name in (RECIPE, *changes):
            if (name, seed) in results:
                continue
            with tempfile.TemporaryDirectory() as place:
                flags = [f"--gin_bindings={text}" for text in statements(changes.get(name, {}))]
                run_dir = Path(place) / f"seed-{seed}"
                run = trained([*words, *flags], run_dir, seed, name)
                if given.out is not None:
                    keep(run_dir, folder_of_change(given.out, name) / run_dir.name, given.corpus)
                results.add(name, run)


def facts_of(given: argparse.Namespace, recipe: TrainingConfig) -> dict[str, Any]:
    """What the runs are of, for a reader of the records and for a later call that adds to them.

    Raises:
        InputError: The text cannot be read.
    """
    path = recipe.corpus if given.corpus is None else str(given.corpus)
    text = load_corpus(path)
    values = {key: value for key, value in recipe.to_dict().items() if value != default(key)}
    return {
        "world": world(),
        "configuration": given.config,
        "corpus": BUILT_IN if path is None else Path(path).name,
        "sha256 of the corpus": text.sha256,
        "steps": given.max_steps or recipe.max_steps,
        "recipe": values,
    }


def seeds_of(text: str) -> list[int]:
    """The seeds that a flag names.

    Raises:
        ArgumentTypeError: They are no numbers from 0 on.
    """
    words = text.split(",")
    if not all(word.isascii() and word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text}: it takes numbers with commas, such as {SEEDS}")
    return [int(word) for word in words]


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="the recipe, a file in configs/")
    parser.add_argument("--corpus", type=Path, help="the text; left out: the recipe's own")
    parser.add_argument(
        "--seeds",
        type=seeds_of,
        default=seeds_of(SEEDS),
        help=f"those of the runs, with commas between them (default {SEEDS})",
    )
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


def run_and_print(given: argparse.Namespace) -> None:
    """Does what the command line asks for.

    Raises:
        InputError: It is wrong; nothing has run.
    """
    words = [f"--config={given.config}"]
    words += [] if given.corpus is None else [f"--corpus={given.corpus}"]
    words += [] if given.max_steps is None else [f"--max_steps={given.max_steps}"]
    recipe = resolved(given.config, {})
    changes = changes_of(recipe) if given.ablate else {}
    changes |= {name_of(changed): changed for changed in map(change_of, given.change)}
    # A mistake in the last one is told before the first one runs for an hour.
    for changed in ({}, *changes.values()):
        resolved(given.config, changed, given.max_steps)
    if given.out is not None:
        try:
            given.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out={given.out}: {error.strerror}; give a folder") from error
    facts = facts_of(given, recipe)
    name = "ablation.json" if changes else "result.json"
    results = Results(None if given.out is None else given.out / name, facts)
    if changes:
        run_changes(words, changes, given, results)
    else:
        run_recipe(words, given, results)
    told = {key: facts[key] for key in ("configuration", "steps")}
    print_result(facts["world"], rows_of((RECIPE, *changes), results.runs()), given.json, told)


def main() -> None:
    """Runs and prints; a mistake of who calls ends as one of ``run.py`` does."""
    end_children_on_termination()
    try:
        run_and_print(parsed())
    except InputError as error:
        print(f"error: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
