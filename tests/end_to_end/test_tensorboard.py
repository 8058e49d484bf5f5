"""Events for TensorBoard, asked for on the command line."""

import json
import signal

import pytest

from tests.end_to_end.command_line import TINY, manifest, run, run_cold
from tests.event_reading import compared, curves, status

# A module that makes trouble after a step; the file `trouble` says which.
TROUBLE = """
import glob, os
from lm_core.hooks import UpdateHook, update_hook

kind, after = open("trouble").read().split()


def no_file():
    (file,) = glob.glob("out/tensorboard/*")
    os.remove(file)
    os.mkdir(file)


@update_hook("trouble")
class Trouble(UpdateHook):
    def on_gradients(self, gradients, key):
        if key.step == int(after):
            if kind.isdigit():
                os.kill(os.getpid(), int(kind))
            elif kind == "unwritable":
                no_file()
"""
OPTIONS = [
    *TINY,
    "--max_steps=12",
    "--gin.Trainer.seed=5",
    "--gin.Trainer.eval_cadence=4",
    "--gin.Trainer.sampling_cadence=4",
    "--gin.Trainer.checkpoint_cadence=5",
    "--gin.Sampler.max_length=5",
    "--gin.split_corpus.train_ratio=0.999",
    "--allow_gin_import=trouble",
    "--gin_bindings=Trainer.hooks = {'update': [{'name': 'trouble'}]}",
    "--run_dir=out",
    "--resume",
    "--tensorboard",
]


def in_trouble(folder, kind, after=8):
    (folder / "trouble.py").write_text(TROUBLE)
    (folder / "trouble").write_text(f"{kind} {after}")


def losses(run_dir):
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row["train_loss"] for row in map(json.loads, lines)}


def assert_events_are_the_record(run_dir):
    found = curves(run_dir)["loss/train"]
    assert [step for step, _ in found] == list(range(1, 13))
    assert dict(found) == pytest.approx(losses(run_dir))


def test_a_run_that_was_stopped_goes_on_in_the_same_events(tmp_path):
    in_trouble(tmp_path, int(signal.SIGTERM))
    run(*OPTIONS, cwd=tmp_path, check=143)
    (row,) = compared(tmp_path)
    assert status(row) == "STATUS_UNKNOWN"
    assert dict(curves(tmp_path / "out")["loss/train"]) == pytest.approx(losses(tmp_path / "out"))
    in_trouble(tmp_path, "none")
    run(*OPTIONS, cwd=tmp_path, check=0)
    assert_events_are_the_record(tmp_path / "out")
    (row,) = compared(tmp_path)
    assert status(row) == "STATUS_SUCCESS"


def test_what_a_killed_run_wrote_is_readable_and_not_there_twice_in_the_end(tmp_path):
    in_trouble(tmp_path, int(signal.SIGKILL))
    assert run(*OPTIONS, cwd=tmp_path).returncode == -signal.SIGKILL
    assert dict(curves(tmp_path / "out")["loss/train"]) == pytest.approx(losses(tmp_path / "out"))
    in_trouble(tmp_path, "none")
    run(*OPTIONS, cwd=tmp_path, check=0)
    assert_events_are_the_record(tmp_path / "out")


def test_events_that_cannot_be_written_are_told_and_the_run_is_complete(tmp_path):
    in_trouble(tmp_path, "unwritable")
    done = run(*OPTIONS, cwd=tmp_path, check=0)
    (told,) = done.stderr.splitlines()
    assert told == (
        "warning: out/tensorboard: events for TensorBoard cannot be written: Is a directory; "
        "training goes on without them"
    )
    assert manifest(tmp_path / "out")["outcome"] == "completed"


def package(folder, name, text):
    (folder / "packages" / name).mkdir(parents=True)
    (folder / "packages" / name / "__init__.py").write_text(text)
    return {"PYTHONPATH": str(folder / "packages")}


def test_a_missing_package_is_told_in_one_line_and_nothing_is_made(tmp_path):
    missing = "raise ModuleNotFoundError(\"No module named 'tensorboard'\")"
    where = package(tmp_path, "tensorboard", missing)
    done = run_cold("--tensorboard", *TINY, "--run_dir=out", cwd=tmp_path, **where)
    assert done.returncode == 2
    assert done.stderr == (
        "error: --tensorboard needs the package tensorboard: No module named 'tensorboard'; "
        "python -m pip install -c constraints.txt -e '.[tensorboard]' installs it\n"
    )
    assert not (tmp_path / "out").exists()
    done = run_cold(*TINY, "--max_steps=1", "--run_dir=out", cwd=tmp_path, **where)
    assert done.returncode == 0, done.stderr


def test_a_package_that_fails_otherwise_is_told_like_a_missing_one(tmp_path):
    broken = 'raise TypeError("Descriptors cannot be created directly.\\nIf this call came...")'
    where = package(tmp_path, "tensorboard", broken)
    done = run_cold("--tensorboard", *TINY, "--run_dir=out", cwd=tmp_path, **where)
    assert done.returncode == 2
    assert "tensorboard: Descriptors cannot be created directly.; python -m pip" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_tensorflow_is_not_imported_and_the_terminal_stays_quiet(tmp_path):
    where = package(tmp_path, "tensorflow", "print('TensorFlow was imported')")
    quiet = ["--tensorboard", *TINY, "--max_steps=2", "--run_dir=out"]
    done = run_cold(*quiet, cwd=tmp_path, **where)
    assert (done.returncode, done.stderr) == (0, "")
    assert "TensorFlow" not in done.stdout
    assert curves(tmp_path / "out")["loss/train"]


def test_the_flag_is_for_training_only(tmp_path):
    done = run("--mode=evaluate", "--run_dir=out", "--tensorboard", cwd=tmp_path, check=2)
    assert "--tensorboard does not apply to --mode=evaluate" in done.stderr
