"""Kills runs and damages checkpoints, and counts what is lost: nothing, if all is well.

  python benchmarks/faults.py --kills=200 --flips=1000

Each kill is a SIGKILL to ``python run.py ... --resume``: at a random moment, or while a checkpoint
is being saved. A copy of what is left is gone on with to the end, by the same command, and compared
with a run that nobody killed: weights, optimizer and hooks byte for byte, every line of metrics but
the speeds, every sample. The killed run itself is gone on with and killed again, up to four times.

Each damage is done to the newer of two checkpoints: a flipped bit in every region of every file in
turn, and files that are cut, zeroed, lengthened, lost, or taken from the other checkpoint. It is
detected when loading refuses it by name, and the older checkpoint is taken instead.
"""

import argparse
import collections
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from lm_core.training.checkpoint import CheckpointDamagedError, load_checkpoint
from lm_core.training.checkpoint_folder import list_checkpoints, newest_sound_checkpoint

PROJECT = Path(__file__).resolve().parents[1]
# Small enough that a run takes a few seconds, most of them for starting Python and PyTorch.
TINY = (
    "--gin.Transformer.n_layers=1",
    "--gin.Transformer.d_model=16",
    "--gin.Transformer.n_heads=2",
    "--gin.Transformer.d_ff=32",
    "--gin.Transformer.max_seq_len=16",
    "--gin.Trainer.batch_size=4",
    "--gin.Trainer.seed=11",
    "--gin.Sampler.max_length=20",
    "--gin.split_corpus.train_ratio=0.998",
)
# Together they keep states, draw random numbers, and change what is learned.
HOOKS = (
    "{'forward': [{'name': 'faults_counts_looks', 'sites': 'embedding'},"
    " {'name': 'activation_noise', 'std': 0.01, 'sites': 'final_norm'}],"
    " 'update': [{'name': 'gradient_noise', 'std': 0.001}, {'name': 'faults_running_mean'}]}"
)
# What is killed. Together: dropout and none, every tokenizer, evaluations and samples at steps of
# their own and at those of checkpoints, hooks with state, few and all checkpoints kept.
EXPERIMENTS = {
    "checkpoints often": (
        "--max_steps=240",
        "--gin.Trainer.checkpoint_cadence=3",
        "--gin.Trainer.keep_checkpoints=1",
    ),
    "evaluations and samples": (
        "--max_steps=120",
        "--gin.Trainer.checkpoint_cadence=10",
        "--gin.Trainer.eval_cadence=4",
        "--gin.Trainer.sampling_cadence=5",
        "--gin.Transformer.dropout=0.2",
        "--gin.Tokenizer.kind=byte",
    ),
    "hooks that keep state": (
        "--max_steps=120",
        "--gin.Trainer.checkpoint_cadence=7",
        "--gin.Trainer.eval_cadence=9",
        "--gin.Trainer.sampling_cadence=11",
        "--gin.Tokenizer.kind=char",
        "--allow_gin_import=benchmarks.stateful_hooks",
        f"--gin_bindings=Trainer.hooks = {HOOKS}",
    ),
    "all checkpoints kept": (
        "--max_steps=200",
        "--gin.Trainer.checkpoint_cadence=5",
        "--gin.Trainer.keep_checkpoints=None",
        "--gin.Trainer.eval_cadence=20",
        "--gin.Transformer.dropout=0.0",
    ),
}
# Of the kills, this share waits for a save.
SHARE_IN_SAVES = 0.6
# A run is killed at most so often.
MOST_KILLS_OF_A_RUN = 4
# Seconds between two looks at whether a save has begun.
LOOK_SECONDS = 0.0002
# A save takes a few milliseconds here; a kill comes up to so many seconds after its beginning.
LONGEST_AFTER_SAVE_BEGAN = 0.002
# So many saves at the most are left alone before one is killed.
MOST_SAVES_LEFT_OUT = 8
# A run that takes longer than this hangs.
TIMEOUT_SECONDS = 300
# A run takes about so long, half of it for its start; kills at random moments come within it.
RUN_SECONDS = 4.0
# In every file, bits are flipped in so many regions of equal length, its beginning among them.
REGIONS = 8


class Kill(NamedTuple):
    """A kill, what it met, and whether nothing was lost."""

    experiment: str
    in_save: bool
    is_identical: bool


def command(options: tuple[str, ...], run_dir: Path) -> list[str]:
    """The one command line that starts a run, and goes on with it."""
    return [
        sys.executable,
        str(PROJECT / "run.py"),
        *TINY,
        *options,
        f"--run_dir={run_dir}",
        "--resume",
    ]


def finish(options: tuple[str, ...], run_dir: Path) -> None:
    """Runs to the end."""
    done = subprocess.run(
        command(options, run_dir),
        cwd=run_dir.parent,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    if done.returncode:
        raise SystemExit(f"the run in {run_dir} failed:\n{done.stdout}\n{done.stderr}")


def fingerprint(run_dir: Path) -> str:
    """SHA-256 of all that a run learned and recorded, but for the speeds."""
    digest = hashlib.sha256()
    _, last = list_checkpoints(run_dir / "checkpoints")[-1]
    for path in sorted(last.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        del row["tokens_per_second"]
        digest.update(json.dumps(row).encode())
    digest.update((run_dir / "samples.jsonl").read_bytes())
    return digest.hexdigest()


def leftovers(run_dir: Path) -> set[tuple[str, int]]:
    """What a save that was interrupted leaves: names, and what is behind them."""
    found = set()
    for kind in ("writing", "replaced"):
        for path in (run_dir / "checkpoints").glob(f".step-*.{kind}"):
            with contextlib.suppress(FileNotFoundError):
                found.add((path.name, path.stat().st_ino))
    return found


def kill_once(options: tuple[str, ...], run_dir: Path, chance: random.Random) -> bool:
    """Starts a run or goes on with it, and kills it; False where it was faster."""
    process = subprocess.Popen(
        command(options, run_dir),
        cwd=run_dir.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if chance.random() < SHARE_IN_SAVES:
        # Not always the first save, and not what an earlier kill left, which goes at the start.
        left_out, is_clean = chance.randrange(MOST_SAVES_LEFT_OUT), False
        while process.poll() is None:
            is_saving = bool(leftovers(run_dir))
            if is_saving and is_clean:
                left_out -= 1
                if left_out < 0:
                    break
            is_clean = not is_saving
            time.sleep(LOOK_SECONDS)
        time.sleep(chance.uniform(0, LONGEST_AFTER_SAVE_BEGAN))
    else:
        time.sleep(chance.uniform(0, RUN_SECONDS))
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def kill_a_run(
    name: str, folder: Path, expected: str, n_kills: int, chance: random.Random
) -> Iterator[Kill]:
    """Kills one run again and again, and sees after each kill how it would end."""
    options, run_dir = EXPERIMENTS[name], folder / "run"
    for _ in range(n_kills):
        before, copy = leftovers(run_dir), folder / "copy"
        if not kill_once(options, run_dir, chance):
            return
        # What an earlier kill left, and nobody has put away yet, is no work of this one.
        in_save = bool(leftovers(run_dir) - before)
        if run_dir.exists():
            shutil.copytree(run_dir, copy)
        finish(options, copy)
        is_identical = fingerprint(copy) == expected and not leftovers(copy)
        shutil.rmtree(copy)
        yield Kill(name, in_save, is_identical)


def kill_runs(n_kills: int, folder: Path, seed: int) -> Iterator[Kill]:
    """Kills runs of all experiments in turn, two at a time."""
    for name in EXPERIMENTS:
        (folder / name).mkdir()
    # One thread each: two runs share the cores, and equal numbers need equal threads.
    os.environ["OMP_NUM_THREADS"] = "1"

    def straight(name: str) -> str:
        finish(EXPERIMENTS[name], folder / name / "straight")
        return fingerprint(folder / name / "straight")

    def killed(number: int) -> list[Kill]:
        chance = random.Random(f"{seed} {number}")
        name = list(EXPERIMENTS)[number % len(EXPERIMENTS)]
        place = folder / name / str(number)
        place.mkdir()
        most = chance.randint(1, MOST_KILLS_OF_A_RUN)
        kills = list(kill_a_run(name, place, expected[name], most, chance))
        shutil.rmtree(place)
        return kills

    left = n_kills
    if left == 0:
        return
    with ThreadPoolExecutor(2) as pool:
        # There are no more runs than kills.
        needed = list(EXPERIMENTS)[:n_kills]
        expected = dict(zip(needed, pool.map(straight, needed), strict=True))
        number = 0
        while left > 0:
            # A few at a time, so that not many more are done than are asked for.
            several = range(number, number + min(left, 4))
            number = several.stop
            for kills in pool.map(killed, several):
                yield from kills[:left]
                left -= len(kills[:left])


def flip(path: Path, chance: random.Random, region: int) -> None:
    """Flips one bit in a region of a file."""
    data = bytearray(path.read_bytes())
    first, end = (len(data) * edge // REGIONS for edge in (region, region + 1))
    place = chance.randrange(first, max(end, first + 1))
    data[place] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def cut(path: Path, chance: random.Random, other: Path) -> None:
    """Cuts a file off somewhere."""
    os.truncate(path, chance.randrange(path.stat().st_size))


def zero(path: Path, chance: random.Random, other: Path) -> None:
    """Fills a part of a file with zeros, as disks do that lost what was to be written."""
    data = bytearray(path.read_bytes())
    # Where there is something else than zeros, or it would be no damage.
    place = chance.choice([place for place, byte in enumerate(data) if byte])
    data[place:] = bytes(len(data) - place)
    path.write_bytes(data)


def lengthen(path: Path, chance: random.Random, other: Path) -> None:
    """Adds bytes at the end."""
    path.write_bytes(path.read_bytes() + chance.randbytes(chance.randint(1, 99)))


def lose(path: Path, chance: random.Random, other: Path) -> None:
    """Removes a file."""
    path.unlink()


def mix(path: Path, chance: random.Random, other: Path) -> None:
    """Takes the file of the older checkpoint."""
    shutil.copyfile(other / path.name, path)


OTHER_DAMAGES: tuple[Callable[[Path, random.Random, Path], None], ...] = (
    cut,
    zero,
    lengthen,
    lose,
    mix,
)


def damage_checkpoints(n_damages: int, folder: Path, seed: int) -> Iterator[tuple[str, str, bool]]:
    """Does every damage in turn: its kind, the file, and whether it was detected."""
    options = (*EXPERIMENTS["hooks that keep state"], "--max_steps=14")
    finish(options, folder / "damaged")
    checkpoints = folder / "damaged" / "checkpoints"
    (_, older), (_, newer) = list_checkpoints(checkpoints)[-2:]
    older_step, sound = load_checkpoint(older).step, folder / "sound"
    shutil.copytree(newer, sound)
    names = sorted(path.name for path in sound.iterdir())
    damages = [("flip", region) for region in range(REGIONS)]
    damages += [(damage.__name__, damage) for damage in OTHER_DAMAGES]
    for number in range(n_damages):
        chance = random.Random(f"{seed} damage {number}")
        name = names[number % len(names)]
        kind, how = damages[number // len(names) % len(damages)]
        if isinstance(how, int):
            flip(newer / name, chance, how)
        else:
            how(newer / name, chance, older)
        yield kind, name, _is_detected(newer, checkpoints, older_step)
        shutil.rmtree(newer)
        shutil.copytree(sound, newer)


def _is_detected(newer: Path, checkpoints: Path, older_step: int) -> bool:
    try:
        load_checkpoint(newer)
    except CheckpointDamagedError as error:
        told: list[str] = []
        found = newest_sound_checkpoint(checkpoints, told.append)
        is_skipped = found is not None and found.step == older_step and len(told) == 1
        return is_skipped and str(newer) in error.message and str(newer) in told[0]
    return False


def tell_kills(kills: list[Kill]) -> None:
    """Prints what the kills did."""
    n_identical = sum(kill.is_identical for kill in kills)
    print(f"kills: {len(kills)}")
    for name in EXPERIMENTS:
        own = [kill for kill in kills if kill.experiment == name]
        print(f"  {name}: {len(own)}, {sum(kill.in_save for kill in own)} of them in a save")
    print(f"kills that fell into a save: {sum(kill.in_save for kill in kills)}")
    print(f"runs that ended bit-identical: {n_identical} of {len(kills)}")


def tell_damages(damages: list[tuple[str, str, bool]]) -> None:
    """Prints what the damages did."""
    kinds = collections.Counter(kind for kind, _, _ in damages)
    print(f"damages tried: {len(damages)}")
    print("  " + ", ".join(f"{kind} {count}" for kind, count in kinds.items()))
    n_detected = sum(is_detected for _, _, is_detected in damages)
    print(f"damages detected: {n_detected} of {len(damages)}")


def main() -> int:
    """Kills, damages, and tells; 1 where anything was lost or passed unseen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200, help="how many kills (200)")
    parser.add_argument("--flips", type=int, default=1000, help="how many damages (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of moments and places (0)")
    values = parser.parse_args()
    kills, damages = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kill in kill_runs(values.kills, folder, values.seed):
            kills.append(kill)
            print(f"\r{len(kills)} of {values.kills} kills", end="", file=sys.stderr, flush=True)
        damages.extend(damage_checkpoints(values.flips, folder, values.seed))
    print(file=sys.stderr)
    tell_kills(kills)
    tell_damages(damages)
    all_well = all(kill.is_identical for kill in kills)
    return 0 if all_well and all(is_detected for _, _, is_detected in damages) else 1


if __name__ == "__main__":
    sys.exit(main())
