"""A checkpoint of a few numbers, and every way to damage it."""

import hashlib
import json
import os

import torch

from lm_core.training import checkpoint as module
from lm_core.training.checkpoint import Checkpoint
from lm_core.training.checkpoint_folder import newest_sound_checkpoint

FILES = ("model.safetensors", "optimizer.safetensors", "hooks.safetensors", "state.json")


def make(step=7, value=0.5):
    return Checkpoint(
        step=step,
        model={
            "weight": torch.full((3, 4), value),
            "half": torch.tensor([1.5, -2.25], dtype=torch.bfloat16),
            "transposed": torch.arange(6.0).reshape(2, 3).T,
        },
        optimizer={"weight/step": torch.tensor(float(step)), "weight/exp_avg": torch.rand(3, 4)},
        hooks={"hooks.update[0]/seen": torch.tensor([step], dtype=torch.int64)},
        state={"seed": 3, "best_validation_loss": None, "nested": {"a": [1, 2.5, "x"]}},
    )


def assert_equal(a, b):
    assert a.step == b.step
    for group in ("model", "optimizer", "hooks"):
        mine, theirs = getattr(a, group), getattr(b, group)
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert mine[name].dtype == theirs[name].dtype
            assert torch.equal(mine[name], theirs[name])


def newest(folder):
    reports = []
    return newest_sound_checkpoint(folder, reports.append), reports


def damage_truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def damage_empty(path):
    path.write_bytes(b"")


def damage_zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def damage_lengthen(path):
    path.write_bytes(path.read_bytes() + b" ")


def damage_remove(path):
    path.unlink()


def damage_link(path):
    target = path.with_name("elsewhere")
    path.rename(path.parents[1] / "elsewhere")
    path.symlink_to(path.parents[1] / "elsewhere")
    assert not target.exists()


def damage_folder(path):
    path.unlink()
    path.mkdir()


def damage_pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGES = [
    damage_truncate,
    damage_empty,
    damage_zero,
    damage_lengthen,
    damage_remove,
    damage_link,
    damage_folder,
    damage_pipe,
]


def rewrite(path, name, data):
    """Puts other content into a checkpoint with checksums that fit it, as an attacker can."""
    (path / name).write_bytes(data)
    listed = json.loads((path / "checksums.json").read_text())["files"]
    listed[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    content = {"files": listed, "sha256": module._digest_of_list(listed)}
    (path / "checksums.json").write_bytes(module._json(content))
