"""Kills an export, an import, and a run that begins with other weights, at each thing it does.

    python -m tests.end_to_end.exchange_crash_points FOLDER

Like ``crash_points``, which has the kills: a child dies right before its n-th change to the disk.
Then the same is asked for once more, and has to end as if nobody had been killed.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import sys
from pathlib import Path

import torch

from lm_core import experiment
from lm_core.config.resolution import ConfigSources
from lm_core.exchange import exporting, importing
from lm_core.request import Request
from lm_core.training.checkpoint import load_checkpoint
from tests.end_to_end.crash_points import in_child
from tests.tiny_run import request

SMALL = {
    "Trainer__seed": 3,
    "Trainer__max_steps": 2,
    "Trainer__checkpoint_cadence": 1,
    "Trainer__ema_decay": 0.5,
}


def contents(path):
    """The names below a folder, each with a digest; of what tells the time, the name alone."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.suffix not in (".html", ".json", ".jsonl", "")
    }


def exported(source, folder):
    exporting.export(Request(ConfigSources(), run_dir=source / "run", to=folder / "made"))


def imported(source, folder):
    asked = Request(ConfigSources(), run_dir=folder / "made", source=source / "exported")
    importing.import_folder(asked)


def begun(source, folder):
    path = str(source / "run")
    asked = request(source, resume=True, load_initial_weights__init_from=path, **SMALL)
    experiment.train(dataclasses.replace(asked, run_dir=folder / "made"))


def is_whole(folder):
    """Whether what has the name of an export or an import is all of it."""
    there = {path.name for path in folder.iterdir()}
    needed = {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    if "manifest.json" in there:
        load_checkpoint(folder / "checkpoints" / "step-00000000")
        needed = {"config.yaml", "config.gin", "fine-tune.yaml"}
    return needed <= there


def die_everywhere(source, folder, work):
    """How often it was killed; what it comes to in the end is compared each time."""
    straight = folder / "straight"
    straight.mkdir(parents=True)
    in_child(straight, -1, lambda: work(source, straight))
    expected = contents(straight / "made")
    for n in itertools.count():
        place = folder / str(n)
        place.mkdir()
        n_changes = in_child(place, n, lambda place=place: work(source, place))
        if n_changes is not None:
            return n
        made = place / "made"
        if work is not begun and made.exists():
            if not is_whole(made):
                raise AssertionError(f"{made} is there, and not whole")
        else:
            in_child(place, -1, lambda place=place: work(source, place))
        found = contents(made)
        ignored = {name for name in {*found, *expected} if name.endswith((".yaml", ".gin"))}
        if any(found.get(name) != expected.get(name) for name in {*found, *expected} - ignored):
            raise AssertionError(f"{made}: another end")
        rest = [path.name for path in place.iterdir() if path != made]
        if rest and work is begun:
            raise AssertionError(f"{place}: left {rest}")


def main():
    folder = Path(sys.argv[1]).resolve()
    torch.set_num_threads(1)
    os.chdir(folder)
    source = folder / "source"
    source.mkdir()
    # Who has computed with threads cannot be forked.
    in_child(source, -1, lambda: experiment.train(request(source, **SMALL)))
    asked = Request(ConfigSources(), run_dir=source / "run", to=source / "exported")
    in_child(source, -1, lambda: exporting.export(asked))
    works = (exported, imported, begun)
    tried = {work.__name__: die_everywhere(source, folder / work.__name__, work) for work in works}
    print(json.dumps(tried))


if __name__ == "__main__":
    main()
