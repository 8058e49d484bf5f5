"""Signals in every phase of a run, two writers, and divergence, from the outside."""

import re
import signal

import pytest

from lm_core.training.checkpoint import load_checkpoint
from lm_core.training.checkpoint_folder import list_checkpoints
from tests.end_to_end.command_line import TINY, manifest, metrics
from tests.end_to_end.warm import Warm, wait_until

# A module that sends its process signals when the run first gets, after a step, to a phase; the
# file `phase` says which, and after which step.
PHASES = """
import os
from lm_core.hooks import ForwardHook, forward_hook
from lm_core.training import checkpoint, recorder, signals

signals.SECONDS_OF_ONE_REQUEST = 0.0
phase, after, *numbers = open("phase").read().split()
step = 0
if phase == "import":
    os.kill(os.getpid(), int(numbers[0]))


def reached(name):
    if name == phase and step > int(after):
        while numbers:
            os.kill(os.getpid(), int(numbers.pop(0)))
        while name == "waiting" and not os.path.exists("go"):
            pass


@forward_hook("phases")
class Phases(ForwardHook):
    in_evaluation = True

    def on_activations(self, site, activations, context):
        global step
        if context.training:
            step = context.key.step
            reached("step")
            reached("waiting")
        else:
            reached("evaluation" if activations.shape[0] > 1 else "sampling")


def watched(owner, function, name):
    original = getattr(owner, function)

    def watching(*arguments):
        reached(name)
        return original(*arguments)

    setattr(owner, function, watching)


watched(checkpoint, "write_synced", "saving")
watched(recorder, "remove_superseded", "removing")
"""
OPTIONS = [
    *TINY,
    "--max_steps=12",
    "--gin.Trainer.seed=5",
    "--gin.Trainer.eval_cadence=4",
    "--gin.Trainer.sampling_cadence=4",
    "--gin.Trainer.checkpoint_cadence=2",
    "--gin.Trainer.keep_checkpoints=2",
    "--gin.Sampler.max_length=5",
    "--gin.split_corpus.train_ratio=0.999",
    "--allow_gin_import=phases",
    "--gin_bindings=Trainer.hooks = {'forward': [{'name': 'phases', 'sites': 'embedding'}]}",
    "--run_dir=out",
    "--resume",
]


@pytest.fixture(scope="module")
def warm():
    with Warm(OMP_NUM_THREADS="1") as started:
        yield started


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "phases.py").write_text(PHASES)
    return tmp_path


def in_phase(folder, phase, *numbers, after=5):
    words = [phase, after, *map(int, numbers)]
    (folder / "phase").write_text(" ".join(map(str, words)))


@pytest.fixture(scope="module")
def straight(warm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    (folder / "phases.py").write_text(PHASES)
    in_phase(folder, "none")
    warm.run(*OPTIONS, cwd=folder, check=0)
    return folder / "out"


def assert_sound(run_dir):
    found = list_checkpoints(run_dir / "checkpoints")
    assert [load_checkpoint(path).step for _, path in found] == [step for step, _ in found]
    assert not [path for path in (run_dir / "checkpoints").iterdir() if path.name[0] == "."]


def assert_ends_like(run_dir, straight):
    last = list_checkpoints(straight / "checkpoints")[-1][1]
    for file in last.iterdir():
        assert (run_dir / "checkpoints" / last.name / file.name).read_bytes() == file.read_bytes()
    assert metrics(run_dir) == metrics(straight)
    assert (run_dir / "samples.jsonl").read_bytes() == (straight / "samples.jsonl").read_bytes()
    assert manifest(run_dir)["outcome"] == "completed"


STOPS = {"step": 6, "evaluation": 8, "sampling": 8, "saving": 6, "removing": 7}


@pytest.mark.parametrize("phase", STOPS)
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.exhaustive),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.exhaustive),
    ],
)
def test_a_signal_in_any_phase_stops_after_saving_and_the_resume_ends_as_if_none_had_come(
    warm, folder, straight, phase, number, code
):
    in_phase(folder, phase, number)
    done = warm.run(*OPTIONS, cwd=folder, check=code)
    message = f"stopped after step {STOPS[phase]}, which is saved; --resume goes on from there\n"
    assert done.stderr == message
    found = manifest(folder / "out")
    assert found["outcome"] == f"stopped by {number.name}"
    assert found["reason"] == message.strip()
    assert (found["last_step"], found["end"] is None) == (STOPS[phase], False)
    assert list_checkpoints(folder / "out" / "checkpoints")[-1][0] == STOPS[phase]
    assert_sound(folder / "out")
    in_phase(folder, "none")
    done = warm.run(*OPTIONS, cwd=folder, check=0)
    assert f"going on after step {STOPS[phase]}" in done.stdout
    assert "warning" not in done.stderr
    assert_ends_like(folder / "out", straight)


@pytest.mark.parametrize("phase", STOPS)
@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ([signal.SIGINT, signal.SIGINT], 130),
        pytest.param([signal.SIGTERM, signal.SIGTERM], 143, marks=pytest.mark.exhaustive),
        pytest.param([signal.SIGINT, signal.SIGTERM], 143, marks=pytest.mark.exhaustive),
        # The third kills.
        pytest.param([signal.SIGTERM] * 3, 143, marks=pytest.mark.exhaustive),
    ],
)
def test_a_second_signal_stops_at_once_and_the_checkpoint_before_is_sound(
    warm, folder, straight, phase, numbers, code
):
    in_phase(folder, phase, *numbers)
    done = warm.run(*OPTIONS, cwd=folder)
    if len(numbers) == 2:
        assert (done.returncode, done.stderr) == (code, "stopped at once\n")
        found = manifest(folder / "out")
        assert found["outcome"] == f"stopped at once by {numbers[-1].name}"
        assert_sound(folder / "out")
    else:
        assert done.returncode in (code, -numbers[-1])
    in_phase(folder, "none")
    warm.run(*OPTIONS, cwd=folder, check=0)
    assert_sound(folder / "out")
    assert_ends_like(folder / "out", straight)


def test_a_signal_in_the_last_step_is_obeyed_and_nothing_is_lost(warm, folder, straight):
    in_phase(folder, "step", signal.SIGTERM, after=11)
    done = warm.run(*OPTIONS, cwd=folder, check=143)
    assert "stopped after step 12, which is saved; --resume" in done.stderr
    in_phase(folder, "none")
    warm.run(*OPTIONS, cwd=folder, check=0)
    assert_ends_like(folder / "out", straight)


def test_a_signal_in_the_last_save_is_obeyed_and_the_run_is_complete(warm, folder, straight):
    in_phase(folder, "removing", signal.SIGINT, after=11)
    done = warm.run(*OPTIONS, cwd=folder, check=130)
    assert done.stderr == "stopped after step 12, the last one: everything is done and saved\n"
    assert_ends_like(folder / "out", straight)


def test_a_signal_before_the_first_step_leaves_nothing_or_a_run_to_start(warm, folder):
    in_phase(folder, "import", signal.SIGTERM)
    done = warm.run(*OPTIONS, cwd=folder, check=143)
    assert done.stderr == "stopped at once\n"
    assert {path.name for path in folder.iterdir()} <= {"phases.py", "phase", "__pycache__"}


def test_of_two_writers_the_second_is_told_at_once_and_the_first_never_knows(
    warm, folder, straight
):
    in_phase(folder, "waiting")
    first = warm.start(*OPTIONS, cwd=folder)
    wait_until(lambda: (folder / "out" / "manifest.json").exists(), "the run")
    try:
        second = warm.run(*OPTIONS, cwd=folder, check=2)
    finally:
        (folder / "go").touch()
    assert re.fullmatch(
        rf"error: out is being written by process {first} on .*; wait until it has ended, stop it, "
        r"or name another --run_dir\n",
        second.stderr,
    )
    assert warm.wait(first).returncode == 0
    assert_ends_like(folder / "out", straight)


def test_a_killed_writer_blocks_nobody_and_the_history_says_that_it_was_killed(
    warm, folder, straight
):
    in_phase(folder, "saving", signal.SIGKILL)
    assert warm.run(*OPTIONS, cwd=folder).returncode == -signal.SIGKILL
    assert manifest(folder / "out")["outcome"] == "running"
    in_phase(folder, "none")
    warm.run(*OPTIONS, cwd=folder, check=0)
    assert_ends_like(folder / "out", straight)
    (resumed,) = manifest(folder / "out")["resumed"]
    assert resumed["before"]["outcome"] == "killed"
