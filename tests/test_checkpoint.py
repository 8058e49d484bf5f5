import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from lm_core.errors import MachineError
from lm_core.training import checkpoint as module
from lm_core.training.checkpoint import CheckpointDamagedError, load_checkpoint, save_checkpoint
from tests.tiny_checkpoint import FILES, assert_equal, damage_zero, make, newest, rewrite


def test_the_folder_of_checkpoints_is_on_the_disk_before_anything_in_it(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(module, "sync_folder", lambda path: synced.append(path.name))
    for step in (1, 2):
        save_checkpoint(tmp_path / "checkpoints", make(step))
    one, two = ([f".step-{step:08d}.writing", "checkpoints"] for step in (1, 2))
    assert synced == [tmp_path.name, *one, *two]


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


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("model.safetensors", struct.pack("<Q", 2**60) + b"{}"),
        ("model.safetensors", struct.pack("<Q", 2) + b"[]"),
        ("model.safetensors", b"\x80\x04\x95"),
        ("state.json", b"[]"),
        ("state.json", b"{}"),
        ("state.json", b'{"step": "x"}'),
        ("state.json", b'{"step": Infinity, "format": 2}'),
        ("state.json", b'{"step": 7.5, "format": 2}'),
        ("state.json", b'{"step": 7, "format": []}'),
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


def test_a_file_that_looks_larger_than_any_memory_is_not_read(tmp_path):
    path = save_checkpoint(tmp_path, make())
    size = 10**14
    with (path / "model.safetensors").open("r+b") as stream:
        try:
            stream.truncate(size)
        except OSError:
            size = 10**13
            stream.truncate(size)
    listed = json.loads((path / "checksums.json").read_text())["files"]
    listed["model.safetensors"]["bytes"] = size
    content = {"files": listed, "sha256": module._digest_of_list(listed)}
    (path / "checksums.json").write_bytes(module._json(content))
    with pytest.raises(MachineError, match="this machine has"):
        load_checkpoint(path)


LOADS_WITH_LITTLE_MEMORY = """
import resource
from lm_core.training.checkpoint import *
weights = torch.ones(10_000_000)
path = save_checkpoint(Path("."), Checkpoint(1, {"weight": weights}, {}))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
for least_left in range(0, 200 * 2**20, 20 * 2**20):
    resource.setrlimit(resource.RLIMIT_AS, (used + least_left, resource.RLIM_INFINITY))
    try:
        load_checkpoint(path)
    except MachineError as error:
        print(error)
    else:
        print("loaded")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system tells no sizes")
def test_too_little_memory_is_told_in_words_and_nothing_else(tmp_path):
    command = [sys.executable, "-c", LOADS_WITH_LITTLE_MEMORY]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    told = done.stdout.splitlines()
    assert set(told) == {"step-00000001 does not fit into memory", "loaded"}
    assert len(told) == 10


@pytest.mark.parametrize("size", [float("inf"), "10", 1.5, True, None, -1])
def test_a_size_that_is_none_is_refused(tmp_path, size):
    path = save_checkpoint(tmp_path, make())
    listed = json.loads((path / "checksums.json").read_text())["files"]
    listed["state.json"]["bytes"] = size
    content = {"files": listed, "sha256": module._digest_of_list(listed)}
    (path / "checksums.json").write_bytes(module._json(content))
    with pytest.raises(CheckpointDamagedError, match=r"checksums.json is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("data", [b"[" * 9_999, b"\xff", b"", b"{}", b'{"files": {}}'])
def test_a_list_of_checksums_that_is_none_is_damage(tmp_path, data):
    path = save_checkpoint(tmp_path, make())
    (path / "checksums.json").write_bytes(data)
    with pytest.raises(CheckpointDamagedError, match=r"checksums.json is damaged"):
        load_checkpoint(path)


def test_what_a_kill_left_of_a_replacement_is_not_in_the_way_of_the_next(tmp_path):
    path = save_checkpoint(tmp_path, make(value=1.0))
    shutil.copytree(path, tmp_path / f".{path.name}.replaced")
    save_checkpoint(tmp_path, make(value=2.0))
    assert load_checkpoint(path).model["weight"].eq(2).all()
    assert list(tmp_path.iterdir()) == [path]


def test_a_huge_list_of_checksums_is_not_read(tmp_path):
    path = save_checkpoint(tmp_path, make())
    with (path / "checksums.json").open("wb") as stream:
        stream.truncate(10**12)
    with pytest.raises(CheckpointDamagedError, match="larger than it may be"):
        load_checkpoint(path)


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
        patch.setattr(module, "_FORMAT", 4)
        path = save_checkpoint(tmp_path, make())
    with pytest.raises(ValueError, match="format 4, this version of the lab reads up to format 3"):
        load_checkpoint(path)


@pytest.mark.parametrize("former", [1, 2])
def test_a_checkpoint_of_a_former_format_is_read(tmp_path, monkeypatch, former):
    monkeypatch.setattr(module, "_FORMAT", former)
    assert load_checkpoint(save_checkpoint(tmp_path, make())).step == 7
