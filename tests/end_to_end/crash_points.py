"""Kills a run at every single thing it does to the disk, and sees how the resumed run ends.

    python -m tests.end_to_end.crash_points FOLDER EVERY

A process that has imported everything forks a child for each run, so that a run takes a moment. The
child kills itself, with a real SIGKILL, right before its n-th change to the disk: a file opened for
writing, a name given, changed or taken away, a wait for the disk. The resume is killed once more,
at a change that depends on n; then the run is finished, and compared with one that nobody killed.
"""

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import torch

from benchmarks import faults
from lm_core import experiment, manifest
from tests.tiny_run import request
from tests.tiny_trainer import HOOKS

BINDINGS = {
    "Transformer.dropout": 0.1,
    "Trainer.seed": 3,
    "Trainer.max_steps": 8,
    "Trainer.hooks": HOOKS,
    "Trainer.checkpoint_cadence": 2,
    "Trainer.eval_cadence": 3,
    "Trainer.sampling_cadence": 3,
    "Trainer.keep_checkpoints": 1,
    "Sampler.max_length": 4,
    "split_corpus.train_ratio": 0.9,
}
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.symlink"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def count_changes(folder, deadly):
    """Counts the changes to the disk below a folder; the process dies right before one of them."""
    count = itertools.count()

    def happens():
        if next(count) == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event, arguments):
        if event not in CHANGES and event != "open":
            return
        is_writing = event == "open" and (arguments[2] or 0) & WRITING
        # A folder that is removed is opened, and the names in it stand without their folder.
        is_ours = str(arguments[0]).startswith(str(folder)) or event in ("os.remove", "os.rmdir")
        if (event in CHANGES or is_writing) and is_ours:
            happens()

    fsync = os.fsync
    os.fsync = lambda descriptor: (happens(), fsync(descriptor))
    sys.addaudithook(hook)
    return count


def in_child(folder, deadly, work):
    """Does work in a child: the number of its changes below a folder, None where it died."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as output, contextlib.redirect_stdout(output):  # noqa: PTH123
            count = count_changes(folder, deadly)
            # To ask git takes longer than all the rest.
            manifest._git_state = lambda project: None
            work()
        os.write(writer, json.dumps(next(count)).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as stream:  # noqa: PTH123 -- of a descriptor
        told = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise AssertionError(f"{folder}: ended with {status}")
    return json.loads(told) if told else None


def run(folder, deadly):
    """A run in a child, or what is left of it, as ``in_child`` has it."""

    def train():
        table = {**BINDINGS, "load_corpus.path": str(folder.parent / "text.txt")}
        bindings = {name.replace(".", "__"): value for name, value in table.items()}
        experiment.train(request(folder, resume=True, **bindings))

    return in_child(folder, deadly, train)


def rubbish(run_dir):
    """Whatever is there that a run does not leave."""
    known = {".lock", "config.yaml", "config.gin", "manifest.json", "checkpoints"}
    known |= {"metrics.jsonl", "samples.jsonl", "report.html"}
    beside = [path for path in run_dir.parent.iterdir() if path.name.endswith(".new")]
    inside = [path for path in run_dir.iterdir() if path.name not in known]
    checkpoints = (run_dir / "checkpoints").iterdir()
    return beside + inside + [path for path in checkpoints if path.name.startswith(".")]


def main():
    folder, every = Path(sys.argv[1]).resolve(), int(sys.argv[2])
    torch.set_num_threads(1)
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 30)
    straight = folder / "straight"
    straight.mkdir()
    n_changes = run(straight, -1)
    expected = faults.fingerprint(straight / "run")
    n_tried = n_in_saves = 0
    for n in range(0, n_changes, every):
        place = folder / str(n)
        place.mkdir()
        if run(place, n) is not None:
            raise AssertionError(f"{place}: did not die")
        n_in_saves += bool(faults.leftovers(place / "run"))
        run(place, random.Random(n).randrange(n_changes))
        run(place, -1)
        if faults.fingerprint(place / "run") != expected:
            raise AssertionError(f"{place}: another end")
        if left := rubbish(place / "run"):
            raise AssertionError(f"{place}: left {left}")
        shutil.rmtree(place)
        n_tried += 1
    print(json.dumps({"changes": n_changes, "tried": n_tried, "in_saves": n_in_saves}))


if __name__ == "__main__":
    main()
