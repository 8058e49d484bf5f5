import hashlib
import json
import os
import shutil
import struct
from pathlib import Path

import pytest
import torch

from lm_core.errors import MachineError
from lm_core.training import checkpoint as module
from lm_core.training.checkpoint import (
    Checkpoint,
    CheckpointDamagedError,
    clean_up,
    list_checkpoints,
    load_checkpoint,
    newest_sound_checkpoint,
    save_checkpoint,
)

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


def test_everything_comes_back_bit_for_bit(tmp_path):
    checkpoint = make()
    path = save_checkpoint(tmp_path / "checkpoints", checkpoint)
    assert path.name == "step-00000007"
    loaded = load_checkpoint(path)
    assert_equal(loaded, checkpoint)
    assert loaded.state == {**checkpoint.state, "step": 7}


def test_loaded_tensors_can_be_trained_on(tmp_path):
    loaded = load_checkpoint(save_checkpoint(tmp_path, make()))
    loaded.model["weight"].add_(1)
    assert loaded.model["weight"].eq(1.5).all()


def test_hooks_without_state_leave_no_file(tmp_path):
    checkpoint = make()
    checkpoint.hooks = {}
    path = save_checkpoint(tmp_path, checkpoint)
    assert not (path / "hooks.safetensors").exists()
    assert load_checkpoint(path).hooks == {}


def test_the_listed_checksums_are_those_of_the_files(tmp_path):
    path = save_checkpoint(tmp_path, make())
    listed = json.loads((path / "checksums.json").read_text())["files"]
    assert set(listed) == set(FILES)
    for name, entry in listed.items():
        data = (path / name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    save_checkpoint(tmp_path, make(value=1.0))
    path = save_checkpoint(tmp_path, make(value=2.0))
    assert load_checkpoint(path).model["weight"].eq(2).all()
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000007"]


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


@pytest.mark.parametrize("name", [*FILES, "checksums.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_passed_over_and_the_one_before_used(tmp_path, name, damage):
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, make(step=1))
    path = save_checkpoint(folder, make(step=2))
    damage(path / name)
    with pytest.raises(CheckpointDamagedError) as error:
        load_checkpoint(path)
    assert str(path / name) in str(error.value)
    found, reports = newest(folder)
    assert found.step == 1
    assert len(reports) == 1
    assert str(path) in reports[0]


@pytest.mark.parametrize("name", [*FILES, "checksums.json"])
def test_a_flipped_bit_is_found_wherever_it_is(tmp_path, name):
    path = save_checkpoint(tmp_path, make()) / name
    sound = path.read_bytes()
    # Every byte of small files, and a spread of those of larger ones.
    positions = range(0, len(sound), max(1, len(sound) // 200))
    for position in positions:
        flipped = bytearray(sound)
        flipped[position] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        with pytest.raises(CheckpointDamagedError):
            load_checkpoint(path.parent)


def test_a_file_that_does_not_belong_there_is_noticed(tmp_path):
    path = save_checkpoint(tmp_path, make())
    (path / "extra.pt").write_bytes(b"pickle")
    with pytest.raises(CheckpointDamagedError, match=r"extra.pt does not belong there"):
        load_checkpoint(path)


def test_nothing_is_parsed_before_everything_is_verified(tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path, make())
    damage_zero(path / "state.json")

    def fail(data):
        raise AssertionError("parsed")

    monkeypatch.setattr(module, "load", fail)
    with pytest.raises(CheckpointDamagedError, match=r"state.json"):
        load_checkpoint(path)


def rewrite(path, name, data):
    """Puts other content into a checkpoint with checksums that fit it, as an attacker can."""
    (path / name).write_bytes(data)
    listed = json.loads((path / "checksums.json").read_text())["files"]
    listed[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    content = {"files": listed, "sha256": module._digest_of_list(listed)}
    (path / "checksums.json").write_bytes(module._json(content))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("model.safetensors", struct.pack("<Q", 2**60) + b"{}"),
        ("model.safetensors", struct.pack("<Q", 2) + b"[]"),
        ("model.safetensors", b"\x80\x04\x95"),
        ("state.json", b"[]"),
        ("state.json", b"{}"),
        ("state.json", b'{"step": "x"}'),
        ("state.json", b"[" * 100_000),
        ("state.json", b"\xff"),
    ],
)
def test_hostile_content_with_right_checksums_is_refused(tmp_path, name, data):
    path = save_checkpoint(tmp_path, make())
    rewrite(path, name, data)
    with pytest.raises(CheckpointDamagedError):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "model.pt", ""])
def test_a_list_that_names_other_files_is_refused(tmp_path, name):
    path = save_checkpoint(tmp_path, make())
    listed = json.loads((path / "checksums.json").read_text())["files"]
    listed[name] = listed["state.json"]
    content = {"files": listed, "sha256": module._digest_of_list(listed)}
    (path / "checksums.json").write_bytes(module._json(content))
    with pytest.raises(CheckpointDamagedError, match=r"checksums.json is damaged"):
        load_checkpoint(path)


def test_a_huge_list_of_checksums_is_not_read(tmp_path):
    path = save_checkpoint(tmp_path, make())
    with (path / "checksums.json").open("wb") as stream:
        stream.truncate(10**12)
    with pytest.raises(CheckpointDamagedError, match="larger than it may be"):
        load_checkpoint(path)


def test_a_step_under_another_steps_name_is_noticed(tmp_path):
    save_checkpoint(tmp_path, make(step=3)).rename(tmp_path / "step-00000004")
    with pytest.raises(MachineError, match="none of the 1 checkpoints"):
        newest(tmp_path)


def test_without_any_checkpoint_there_is_none(tmp_path):
    assert newest(tmp_path) == (None, [])
    assert newest(tmp_path / "missing") == (None, [])


def test_when_all_are_damaged_that_is_an_error(tmp_path):
    for step in (1, 2):
        damage_empty(save_checkpoint(tmp_path, make(step)) / "state.json")
    with pytest.raises(MachineError, match="none of the 2 checkpoints"):
        newest(tmp_path)


def test_only_whole_names_with_ascii_digits_count(tmp_path):
    good = save_checkpoint(tmp_path, make(step=12))
    for name in (
        "step-00000013\n",
        "step-٠٠٠٠٠٠١٤",
        "step-15",
        "xstep-00000016",
        "step-00000017x",
        ".step-00000018.writing",
    ):
        shutil.copytree(good, tmp_path / name)
    (tmp_path / "step-00000019").write_text("a file")
    (tmp_path / "step-00000020").symlink_to(good, target_is_directory=True)
    assert list_checkpoints(tmp_path) == [(12, good)]


def test_checkpoints_are_listed_oldest_first(tmp_path):
    for step in (100, 9, 20):
        save_checkpoint(tmp_path, make(step))
    assert [step for step, _ in list_checkpoints(tmp_path)] == [9, 20, 100]


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


OPERATIONS = [(os, "fsync"), (Path, "rename"), (Path, "mkdir"), (Path, "open"), (shutil, "rmtree")]


def kill_at(monkeypatch, n):
    """Ends the process at its n-th file operation, before it is done."""
    counter = {"left": n}
    for owner, name in OPERATIONS:
        original = getattr(owner, name)

        def operation(*arguments, original=original, **options):
            counter["left"] -= 1
            if counter["left"] < 0:
                raise Killed
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, operation)
    return counter


@pytest.mark.parametrize("same_step", [False, True])
def test_a_kill_at_any_moment_of_a_save_leaves_a_sound_checkpoint(tmp_path, same_step):
    old, new = make(step=1, value=1.0), make(step=1 if same_step else 2, value=2.0)
    n, finished = 0, False
    while not finished:
        folder = tmp_path / str(n)
        save_checkpoint(folder, old)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, n)
            try:
                save_checkpoint(folder, new)
                finished = True
            except Killed:
                pass
        assert newest(folder)[0] is not None
        clean_up(folder)
        found, reports = newest(folder)
        assert reports == []
        assert_equal(found, load_checkpoint(list_checkpoints(folder)[-1][1]))
        assert found.model["weight"].eq(1).all() or found.model["weight"].eq(2).all()
        assert all(path.name.startswith("step-") for path in folder.iterdir())
        save_checkpoint(folder, new)
        assert newest(folder)[0].model["weight"].eq(2).all()
        n += 1
    assert n > 10


@pytest.mark.parametrize("n", range(0, 14, 2))
def test_a_disk_error_is_told_and_leaves_no_rubbish(tmp_path, n):
    save_checkpoint(tmp_path, make(step=1))
    with pytest.MonkeyPatch.context() as patch:
        remaining = {"left": n}
        original = os.fsync

        def fsync(descriptor):
            remaining["left"] -= 1
            if remaining["left"] < 0:
                raise OSError(28, "No space left on device")
            return original(descriptor)

        patch.setattr(os, "fsync", fsync)
        if n < 6:
            with pytest.raises(MachineError, match=r"step 2 cannot be saved .* No space left"):
                save_checkpoint(tmp_path, make(step=2))
    assert newest(tmp_path)[0].step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_when_a_replacement_fails_the_old_checkpoint_is_back(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, make(value=1.0))
    original = Path.rename

    def rename(self, target):
        if self.name.endswith(".writing"):
            raise OSError(5, "Input/output error")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(MachineError, match="earlier checkpoints are untouched"):
        save_checkpoint(tmp_path, make(value=2.0))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000007"]
    assert newest(tmp_path)[0].model["weight"].eq(1).all()


def test_a_checkpoint_of_another_format_is_refused_in_words(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "_FORMAT", 2)
        path = save_checkpoint(tmp_path, make())
    with pytest.raises(ValueError, match="is of format 2, this version of the lab reads format 1"):
        load_checkpoint(path)


def test_cleaning_up_a_missing_folder_is_nothing(tmp_path):
    clean_up(tmp_path / "missing")


def test_cleaning_up_touches_nothing_else(tmp_path):
    path = save_checkpoint(tmp_path, make())
    (tmp_path / "notes.writing").write_text("mine")
    (tmp_path / ".step-00000009.writing").mkdir()
    clean_up(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "notes.writing"}
