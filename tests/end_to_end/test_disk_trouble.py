"""A disk that is full, files that may not grow, permissions that are lost: while a run saves."""

import os
import re
import subprocess

import pytest

from lm_core.training.checkpoint import load_checkpoint
from lm_core.training.checkpoint_folder import list_checkpoints
from tests.end_to_end.command_line import TINY, manifest, metrics
from tests.end_to_end.warm import Warm

# A module that gets its process into trouble after a step; the file `trouble` says which.
TROUBLE = """
import os, resource
from lm_core.hooks import UpdateHook, update_hook

NOBODY = 65534
kind, after = open("trouble").read().split()


def no_larger_files(most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def lose_permissions(*kept):
    os.chmod(".", 0o755)
    for folder, _, files in os.walk("out"):
        for path in [folder, *(os.path.join(folder, file) for file in files)]:
            os.chmod(path, 0o777 if folder in kept or path in kept else 0o555)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)


def fill_disk():
    try:
        with open("disk/filler", "wb", buffering=0) as stream:
            while stream.write(bytes(512)):
                pass
    except OSError:
        pass


@update_hook("trouble")
class Trouble(UpdateHook):
    def on_gradients(self, gradients, key):
        global kind
        if key.step > int(after):
            troubles = {
                "none": lambda: None,
                "size": lambda: no_larger_files(8000),
                "smaller": lambda: no_larger_files(700),
                "all": lose_permissions,
                "checkpoints": lambda: lose_permissions("out"),
                "full": fill_disk,
            }
            troubles[kind]()
            kind = "none"
"""
OPTIONS = [
    *TINY,
    "--max_steps=12",
    "--gin.Trainer.seed=5",
    "--gin.Trainer.checkpoint_cadence=2",
    "--gin.split_corpus.train_ratio=0.999",
    "--allow_gin_import=trouble",
    "--gin_bindings=Trainer.hooks = {'update': [{'name': 'trouble'}]}",
    "--run_dir=out",
    "--resume",
]


@pytest.fixture(scope="module")
def warm():
    with Warm(OMP_NUM_THREADS="1") as started:
        yield started


def in_trouble(folder, kind, after=5):
    (folder / "trouble.py").write_text(TROUBLE)
    (folder / "trouble").write_text(f"{kind} {after}")


@pytest.fixture(scope="module")
def straight(warm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    in_trouble(folder, "none")
    warm.run(*OPTIONS, cwd=folder, check=0)
    return folder / "out"


def assert_sound_until(run_dir, step):
    """The checkpoints before are sound, and nothing else is there; no line is half there."""
    found = list_checkpoints(run_dir / "checkpoints")
    assert [load_checkpoint(path).step for _, path in found] == list(range(2, step + 1, 2))
    assert len(list((run_dir / "checkpoints").iterdir())) == len(found)
    # Where the disk takes a page, there is one.
    names = {path.name for path in run_dir.iterdir()} - {"report.html"}
    assert names == {
        ".lock",
        "checkpoints",
        "config.gin",
        "config.yaml",
        "manifest.json",
        "metrics.jsonl",
        "samples.jsonl",
    }
    assert len(metrics(run_dir)) >= step


def assert_ends_like(run_dir, straight):
    last = list_checkpoints(straight / "checkpoints")[-1][1]
    for file in last.iterdir():
        assert (run_dir / "checkpoints" / last.name / file.name).read_bytes() == file.read_bytes()
    assert metrics(run_dir) == metrics(straight)
    assert manifest(run_dir)["outcome"] == "completed"


def trouble_ends(folder):
    for path in [folder / "out", *(folder / "out").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("size", r"the checkpoint of step 6 cannot be saved in out/checkpoints: File too large"),
        ("smaller", r"out/metrics.jsonl cannot be written: File too large"),
        ("all", r"out/metrics.jsonl cannot be written: Permission denied"),
        ("checkpoints", r"the checkpoint of step 6 cannot be saved .*: Permission denied"),
    ],
)
def test_a_save_that_the_system_refuses_is_told_and_loses_nothing(
    warm, tmp_path, straight, kind, message
):
    in_trouble(tmp_path, kind)
    done = warm.run(*OPTIONS, cwd=tmp_path, check=1)
    assert re.search(f"^error: {message}", done.stderr), done.stderr
    assert done.stderr.endswith("; when that is mended, --resume goes on after step 4\n")
    assert done.stderr.count("\n") == 1
    trouble_ends(tmp_path)
    assert_sound_until(tmp_path / "out", 4)
    if kind in ("size", "checkpoints"):
        assert manifest(tmp_path / "out")["outcome"] == "failed"
        assert manifest(tmp_path / "out")["reason"] in done.stderr
    in_trouble(tmp_path, "none")
    done = warm.run(*OPTIONS, cwd=tmp_path, check=0)
    assert "going on after step 4" in done.stdout
    assert_ends_like(tmp_path / "out", straight)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of half a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("to mount a small disk takes a user who may do that")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_told_and_loses_nothing(warm, small_disk, straight):
    folder = small_disk.parent
    options = [option.replace("=out", "=disk/out") for option in OPTIONS]
    in_trouble(folder, "full")
    done = warm.run(*options, cwd=folder, check=1)
    message = "No space left on device.*; when that is mended, --resume goes on after step 4"
    assert re.search(f"^error: .* cannot be (saved|written).*{message}$", done.stderr)
    (small_disk / "filler").unlink()
    assert_sound_until(small_disk / "out", 4)
    in_trouble(folder, "none")
    warm.run(*options, cwd=folder, check=0)
    assert_ends_like(small_disk / "out", straight)


def test_a_run_whose_place_takes_no_new_run_is_told_before_a_step(warm, tmp_path):
    in_trouble(tmp_path, "none")
    (tmp_path / "file").write_text("")
    options = [option.replace("=out", "=file/out") for option in OPTIONS]
    done = warm.run(*options, cwd=tmp_path, check=2)
    assert "the run directory file/out cannot be made" in done.stderr
    assert not list(tmp_path.glob(".*.new"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without such limits")
def test_a_run_directory_that_was_taken_away_is_told(warm, tmp_path):
    (tmp_path / "trouble").write_text("none 5")
    moved = TROUBLE.replace('"none": lambda: None', '"none": lambda: os.rename("out", "gone")')
    (tmp_path / "trouble.py").write_text(moved)
    done = warm.run(*OPTIONS, cwd=tmp_path, check=1)
    assert done.stderr.startswith("error: out is no longer the run directory that this process")
    assert not (tmp_path / "out").exists()
    assert_sound_until(tmp_path / "gone", 4)
