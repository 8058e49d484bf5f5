"""The power goes: what was not synced may be lost, or be there in part.

A run is watched while it writes. At each moment the disk is imagined as the system may leave it by
its own rules (https://man7.org/linux/man-pages/man2/fsync.2.html): content that was not synced may
be missing, and so may names in a folder that was not synced. From each of these disks the run has
to go on, from the newest checkpoint whose save had returned or a newer one.
"""

import json
import os
import random
import shutil
import signal
import stat
import sys
from functools import partial
from pathlib import Path

import pytest

from lm_core.errors import StoppedError
from lm_core.record import RunDirectory
from lm_core.training import recorder
from lm_core.training.checkpoint_folder import newest_sound_checkpoint
from tests.tiny_trainer import HOOKS, build, new_run, rows

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PROMISE = "promise"


class Watch:
    """Notes every change to the disk below a folder, in its order."""

    def __init__(self, root, monkeypatch):
        self.root, self.changes, self.is_on = str(root), [], True
        fsync = os.fsync

        def noted_fsync(descriptor):
            fsync(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            self.note("sync", path, None if is_folder else path.read_bytes())

        monkeypatch.setattr(os, "fsync", noted_fsync)
        # A hook for audits cannot be taken away again, only made deaf.
        sys.addaudithook(self.hear)

    def hear(self, event, arguments):
        if not self.is_on:
            return
        if event == "open" and (arguments[2] or 0) & WRITING:
            self.note("create", arguments[0])
        elif event == "os.rename":
            self.note("rename", *arguments[:2])
        elif event == "os.mkdir":
            self.note("mkdir", arguments[0])
        elif event in ("os.remove", "os.rmdir"):
            name, descriptor = arguments
            inside = descriptor != -1
            self.note(
                "remove", Path(f"/proc/self/fd/{descriptor}").readlink() / name if inside else name
            )

    def note(self, what, path, *more):
        if str(path).startswith(self.root):
            self.is_on = False
            self.changes.append((what, str(path), *more))
            self.is_on = True

    def promise(self, step):
        self.changes.append((PROMISE, "", step))


class Node:
    """A file or folder: what the system shows of it, and what is safe on the disk."""

    def __init__(self, is_folder):
        self.names, self.safe_names = ({}, {}) if is_folder else (None, None)
        self.safe_content = b""


class Disk:
    """What the system shows and what the disk has, after some changes."""

    def __init__(self, root):
        self.root, self.top = Path(root), Node(is_folder=True)

    def node(self, path):
        found = self.top
        for name in Path(path).relative_to(self.root).parts:
            found = found.names[name]
        return found

    def change(self, what, path, *more):
        path = Path(path)
        if what == "sync":
            node = self.node(path)
            if node.names is None:
                node.safe_content = more[0]
            else:
                node.safe_names = dict(node.names)
            return
        names = self.node(path.parent).names
        if what in ("create", "mkdir"):
            names.setdefault(path.name, Node(is_folder=what == "mkdir"))
        elif what == "remove":
            names.pop(path.name, None)
        elif what == "rename":
            self.node(Path(more[0]).parent).names[Path(more[0]).name] = names.pop(path.name)

    def write(self, folder, luck):
        """Makes the disk as it may be: ``luck()`` says whether a folder has the names not safe."""
        self._write(self.top, folder, luck)

    def _write(self, node, path, luck):
        if node.names is None:
            path.write_bytes(node.safe_content)
            return
        path.mkdir(exist_ok=True)
        for name, inner in (node.names if luck() else node.safe_names).items():
            self._write(inner, path / name, luck)


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """The changes of a run that saves, replaces, removes and is interrupted."""
    root = tmp_path / "disk"
    root.mkdir()
    watch = Watch(root, monkeypatch)
    save = recorder.save_checkpoint

    def promised(folder, checkpoint):
        path = save(folder, checkpoint)
        watch.promise(checkpoint.step)
        return path

    monkeypatch.setattr(recorder, "save_checkpoint", promised)
    run = new_run(root / "runs" / "a")
    watch.promise(0)
    settings = {"hooks": HOOKS, "checkpoint_cadence": 2, "eval_cadence": 4, "keep_checkpoints": 1}
    settings["sampling_cadence"] = 3
    first = build(**settings, max_steps=8)
    evaluate = first._looks.evaluate

    def interrupted(check_stop):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(check_stop)

    first._looks.evaluate = interrupted
    with pytest.raises(StoppedError):
        first.train(run)
    # Its fourth step is to be finished, and is saved a second time.
    second = build(**settings, max_steps=8)
    second.restore(newest_sound_checkpoint(run.checkpoints, print))
    assert (second.step, second.recorded_step) == (4, 3)
    second.rewind(run)
    second.train(run)
    run.update_manifest(outcome="completed")
    watch.is_on = False
    return root, watch.changes


ALWAYS, NEVER = (lambda: True), (lambda: False)


@pytest.mark.parametrize(
    "luck", [ALWAYS, NEVER, *(partial(random.Random(seed).getrandbits, 1) for seed in range(6))]
)
def test_from_every_disk_that_a_power_cut_may_leave_the_run_goes_on(watched, tmp_path, luck):
    root, changes = watched
    disk, promised, n_changes = Disk(root), None, 0
    for number, (what, path, *more) in enumerate(changes):
        if what == PROMISE:
            promised = more[0]
        else:
            disk.change(what, path, *more)
            n_changes += 1
        image = tmp_path / str(number)
        disk.write(image, luck)
        run_dir = image / "runs" / "a"
        assert promised is None or run_dir.exists(), changes[: number + 1]
        if promised is not None:
            run = RunDirectory.open(run_dir)
            newest = newest_sound_checkpoint(run.checkpoints, lambda told: None)
            assert (newest.step if newest else 0) >= promised, changes[: number + 1]
            if newest:
                lines = run.metrics.read_bytes().split(b"\n")
                steps = {json.loads(line)["step"] for line in lines if line.endswith(b"}")}
                lacks_sample = newest.step % 3 == 0 and not newest.state["sampled"]
                lacks_evaluation = newest.step % 4 == 0 and not newest.state["evaluated"]
                recorded = newest.step - (lacks_sample or lacks_evaluation)
                assert steps >= set(range(1, recorded + 1)), changes[: number + 1]
                sampled = {row["step"] for row in rows(run.samples)}
                assert sampled >= set(range(3, recorded + 1, 3)), changes[: number + 1]
        shutil.rmtree(image)
    assert n_changes > 50
