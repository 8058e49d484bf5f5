"""Measures how long it takes from the start of a command to a validation loss, beside a peer.

    pip install -e '.[bench]'
    python -m benchmarks.time_to_loss --corpus=my-text.txt

The lab is ``python run.py`` with a configuration; the peer is nanoGPT's recipe for a CPU, trained
with GPT-2 of Hugging Face's transformers (``benchmarks/nanogpt_recipe.py``). For each seed both
take their turn, each in a process of its own. The time is that of the whole process, from just
before it is started until it has ended: with imports, reading of the text and evaluation, and for
the lab also with the record of the run and its checkpoints. The peer predicts every character of
the last tenth of the text once. So does the lab, and losses compare, where its configuration has
``tokenizer: char`` and ``train_ratio: 0.9``.

A turn of the lab comes first that does not count: the loops that Numba compiles once on a machine,
and the tokens of a large text, are kept from then on. Neither does an import of transformers, after
which its files are in the system's memory.

Measure on a machine that does nothing else. PyTorch's threads keep their core busy while they wait
for each other, so where others want the cores too, the peer takes several times as long; the lab
lets them sleep soon. With ``GOMP_SPINCOUNT=1000`` in the environment, the peer's do so as well.
"""

import argparse
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import median_ratio, print_result, world

RUN = str(Path(__file__).resolve().parents[1] / "run.py")
RECIPE = ["-m", "benchmarks.nanogpt_recipe"]
IMPORT = ["-c", "from transformers import GPT2LMHeadModel"]
# The contestants' names in the table.
LAB, PEER = "lm_core", "nanoGPT's recipe"
# Of the project's files in configs/: the one that is made for this.
CONFIG = "speedrun.yaml"
SEEDS = 3
# Nats per token: what nanoGPT's README tells of its recipe for a CPU on Shakespeare's plays.
TARGET = 1.88
# What the lab and the peer print at their end.
LOSS = re.compile(r"^final validation loss: (\S+) nats per token", re.MULTILINE)


class Turn(NamedTuple):
    """What a contestant reached with one seed.

    Attributes:
        seconds: From the start of its process to the end.
        loss: Its validation loss in nats per token.
    """

    seconds: float
    loss: float


def finished(name: str, words: Sequence[str]) -> tuple[float, str]:
    """Runs a Python program to its end.

    Args:
        name: What to call it where it fails.
        words: Its arguments for Python.

    Returns:
        Seconds from just before its start, and what it printed.

    Raises:
        SystemExit: It failed.
    """
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SystemExit(f"{name} ended with {done.returncode}: {last}")
    return seconds, done.stdout


def end_children_on_termination() -> None:
    """Makes SIGTERM an exception, on which ``finished`` ends the process that it waits for."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def loss_in(name: str, printed: str) -> float:
    """The last loss that a contestant printed, in nats per token.

    Raises:
        SystemExit: There is none.
    """
    found = LOSS.findall(printed)
    if not found:
        raise SystemExit(f"{name} printed no final validation loss")
    return float(found[-1])


def turn(name: str, words: Sequence[str]) -> Turn:
    """Runs a contestant once."""
    seconds, printed = finished(name, words)
    return Turn(seconds, loss_in(name, printed))


def turn_of_lab(config: str, corpus: str, seed: int) -> Turn:
    """Trains with the lab, in a run directory that is deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        files = [f"--config={config}", f"--corpus={corpus}", f"--run_dir={Path(folder) / 'run'}"]
        return turn(f"{LAB} with seed {seed}", [RUN, *files, f"--gin.Trainer.seed={seed}"])


def turn_of_peer(corpus: str, seed: int, bfloat16: bool) -> Turn:
    """Trains with the peer."""
    words = [*RECIPE, corpus, f"--seed={seed}", *(["--bfloat16"] if bfloat16 else [])]
    return turn(f"{PEER} with seed {seed}", words)


def rows(turns: Mapping[str, Sequence[Turn]], target: float) -> list[dict[str, Any]]:
    """A row for each seed and contestant; losses with the digits that both print.

    Args:
        turns: Those of each contestant, of seeds from 1 on.
        target: The loss to reach, in nats per token.
    """
    return [
        {
            "trained by": name,
            "seed": str(seed),
            "seconds": one.seconds,
            "loss": f"{one.loss:.4f}",
            f"at most {target}": "yes" if one.loss <= target else "no",
        }
        for seed, of_seed in enumerate(zip(*turns.values(), strict=True), start=1)
        for name, one in zip(turns, of_seed, strict=True)
    ]


def facts(turns: Mapping[str, Sequence[Turn]], target: float) -> dict[str, Any]:
    """What holds for all seeds: medians of seconds and of their ratio, and the losses.

    Args:
        turns: Those of ``LAB`` and ``PEER``, in the order of the seeds.
        target: The loss to reach, in nats per token.
    """
    found: dict[str, Any] = {}
    for name, of_seeds in turns.items():
        losses = [one.loss for one in of_seeds]
        n_above = sum(not loss <= target for loss in losses)
        told = f"{statistics.mean(losses):.4f} nats per token"
        if len(losses) > 1:
            told += f", standard deviation {statistics.stdev(losses):.4f}"
        found[f"median seconds of {name}"] = statistics.median(one.seconds for one in of_seeds)
        found[f"mean loss of {name}"] = told
        seeds = "seed" if len(losses) == 1 else "seeds"
        found[f"losses of {name}"] = f"{n_above} of {len(losses)} {seeds} above {target}"
    seconds = {name: [one.seconds for one in of_seeds] for name, of_seeds in turns.items()}
    found[f"seconds of {PEER} for one of {LAB}"] = median_ratio(seconds[PEER], seconds[LAB])
    return found


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", required=True, help="the text, a file in UTF-8")
    parser.add_argument(
        "--config", default=CONFIG, help=f"the lab's configuration (default {CONFIG})"
    )
    parser.add_argument(
        "--seeds", type=int, default=SEEDS, help=f"how many, from 1 on (default {SEEDS})"
    )
    parser.add_argument(
        "--target",
        type=float,
        default=TARGET,
        help=f"the loss to reach, in nats per token (default {TARGET})",
    )
    parser.add_argument(
        "--peer_bfloat16",
        action="store_true",
        help="the peer's products in bfloat16, by autocast; nanoGPT's on a CPU are in float32",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args()
    if given.seeds < 1:
        parser.error(f"--seeds={given.seeds}: at least one is needed")
    if not Path(given.corpus).is_file():
        parser.error(f"--corpus={given.corpus}: there is no such file")
    return given


def main() -> None:
    """Measures and prints."""
    end_children_on_termination()
    given = parsed()
    # The quick one first: where transformers is not installed, nobody waits to read it.
    finished("the import of transformers", IMPORT)
    turn_of_lab(given.config, given.corpus, seed=1)
    turns: dict[str, list[Turn]] = {LAB: [], PEER: []}
    for seed in range(1, given.seeds + 1):
        turns[LAB].append(turn_of_lab(given.config, given.corpus, seed))
        turns[PEER].append(turn_of_peer(given.corpus, seed, given.peer_bfloat16))
    about = {
        "configuration": f"{given.config} on {Path(given.corpus).name}",
        "precision of the peer": "bfloat16" if given.peer_bfloat16 else "float32",
    }
    result = rows(turns, given.target)
    print_result(world(), result, given.json, about | facts(turns, given.target))


if __name__ == "__main__":
    main()
