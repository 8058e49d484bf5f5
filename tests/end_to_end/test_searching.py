"""Searches from the outside: whole, killed, shared, refused.

But for the first test and the exhaustive ones, a trial is a formula (``tests/stand_in.py``), which
takes a moment where a training takes seconds; everything else is real.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from lm_core.record import RunDirectory
from tests.end_to_end.command_line import PROJECT, manifest, metrics, run, run_cold

STAND_IN = PROJECT / "tests" / "stand_in.py"
STUDY = """
max_steps: 40
eval_cadence: 10
seed: 1
search:
  learning_rate: {log_uniform: [1e-4, 1e-1]}
  dropout: {uniform: [0.0, 0.5]}
trials: 6
seeds_for_best: 2
"""
REAL = """
n_layers: 1
d_model: 16
n_heads: 2
d_ff: 32
max_seq_len: 16
batch_size: 4
train_ratio: 0.999
max_steps: 6
eval_cadence: 3
search:
  learning_rate: {choice: [0.01, 1e30]}
sampler: grid
seeds_for_best: 1
"""
SEARCH = ("--mode=search", "--config=my.yaml")


def started(folder, *arguments, text=STUDY, **environment):
    """Starts a search whose trials are formulas, in a session of its own."""
    if not (folder / "my.yaml").exists():
        (folder / "my.yaml").write_text(text)
    return subprocess.Popen(
        [sys.executable, str(STAND_IN), *SEARCH, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "80", **environment},
    )


def searched(folder, *arguments, check=0, **given):
    """A search that has ended: what it said."""
    process = started(folder, *arguments, **given)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == check, said + errors
    return said, errors


def wait_until(happened, what):
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)


def starts(folder):
    """How often each run was started."""
    path = folder / "starts.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter(line.split()[0] for line in lines)


def results(folder):
    """The trials of the study, from its journal."""
    from lm_core.search.storage import open_journal
    from lm_core.search.trial_records import TrialRecords
    from tests.small_studies import study

    found = study(folder, (folder / "my.yaml").read_text())
    return TrialRecords(open_journal(folder / "studies/my/study.journal"), "study", found).all()


@pytest.fixture
def straight(tmp_path):
    """The trials of the study that nothing disturbed."""
    folder = tmp_path / "straight"
    folder.mkdir()
    searched(folder)
    return [(record.values, record.loss) for record in results(folder)]


def test_a_study_of_real_runs_ends_with_a_winner_that_can_be_trained(tmp_path):
    (tmp_path / "my.yaml").write_text(REAL)
    done = run(*SEARCH, cwd=tmp_path, check=0)
    study = tmp_path / "studies" / "my"
    assert "2 trials: 1 completed, 0 pruned, 1 diverged, 0 failed" in done.stdout
    outcomes = {}
    for name in ("0000", "0001"):
        found = RunDirectory.open(study / "trials" / name)
        outcomes[found.manifest["outcome"]] = found.path
        assert f"run directory: studies/my/trials/{name}" in (
            (study / "logs" / f"{name}.txt").read_text()
        )
    assert set(outcomes) == {"completed", "diverged"}
    loss = metrics(outcomes["completed"])[-1]["val_loss"]
    assert f"{loss:.4f} nats in the search" in done.stdout
    assert re.search(r"^again: \d\.\d{4} nats on 1 fresh seed$", done.stdout, re.M)
    (fresh,) = (study / "best").glob("*/seed-*")
    # The winner's file, trained from anywhere, is the winner.
    again = ("--mode=config", f"--config={study}/best.yaml", "--format=json")
    shown = json.loads(run(*again, cwd="/", check=0).stdout)["hyperparameters"]
    assert shown["learning_rate"]["value"] == 0.01
    seeds = {manifest(outcomes["completed"])["outcome"]: shown["seed"]["value"]}
    assert seeds == {"completed": int(re.search(r"seed (\d+)", done.stdout)[1])}
    assert manifest(fresh)["outcome"] == "completed"
    # A study that is done is told again, and nothing is run.
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*.jsonl")}
    again = run(*SEARCH, cwd=tmp_path, check=0)
    assert again.stdout.splitlines()[-6:] == done.stdout.splitlines()[-6:]
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*.jsonl")} == before


def test_a_study_that_is_killed_three_times_ends_with_exactly_its_trials(tmp_path, straight):
    for n_begun in (1, 3, 5):
        process = started(tmp_path, STAND_IN_SECONDS="0.01")
        wait_until(lambda n=n_begun: len(starts(tmp_path)) >= n, f"trial {n_begun - 1}")
        time.sleep(0.05)
        process.kill()
        process.communicate()
    said, _ = searched(tmp_path)
    assert "going on: " in said
    found = results(tmp_path)
    # Every trial is what it would have been.
    assert [(record.values, record.loss) for record in found] == straight
    trials = {name: n for name, n in starts(tmp_path).items() if not name.startswith("seed")}
    assert set(trials) == {f"{n:04d}" for n in range(6)}
    # At each kill one was interrupted, and goes on; no other is started again.
    assert sum(trials.values()) <= 6 + 3
    assert not (tmp_path / "doubled.txt").exists()
    assert len([name for name in starts(tmp_path) if name.startswith("seed")]) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_trial_whose_search_is_killed_saves_and_ends_and_goes_on_from_there(tmp_path):
    process = started(tmp_path, STAND_IN_SECONDS="0.05")
    row = tmp_path / "studies/my/trials/0000/metrics.jsonl"
    wait_until(lambda: row.exists() and len(row.read_text().splitlines()) > 3, "some steps")
    process.kill()
    process.communicate()
    ending = tmp_path / "studies/my/trials/0000/manifest.json"
    wait_until(ending.exists, "its end")
    assert json.loads(ending.read_text())["outcome"] == "stopped by SIGTERM"
    n_steps = len(row.read_text().splitlines())
    assert n_steps < 40
    searched(tmp_path)
    assert [json.loads(line)["step"] for line in row.read_text().splitlines()] == [*range(1, 41)]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.exhaustive)],
)
def test_a_signal_saves_what_is_running_and_the_same_command_goes_on(
    tmp_path, straight, number, code
):
    process = started(tmp_path, "--workers=2", STAND_IN_SECONDS="0.05")
    wait_until(lambda: len(starts(tmp_path)) == 2, "two trials")
    time.sleep(0.3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors == "stopped; what was running is saved, and the same command goes on\n"
    for name in ("0000", "0001"):
        assert manifest(tmp_path / "studies/my/trials" / name)["outcome"] == "stopped by SIGTERM"
    report = tmp_path / "studies" / "my" / "report.html"
    assert "has not come to its end" in report.read_text()
    said, _ = searched(tmp_path)
    assert "going on: 0 of 6 trials are done, 2 not finished yet" in said
    assert len(results(tmp_path)) == 6
    assert "<p>The study has not come to its end" not in report.read_text()


def test_two_commands_at_once_share_one_study_without_a_doubled_trial(tmp_path):
    processes = [started(tmp_path, "--workers=2", STAND_IN_SECONDS="0.01") for _ in range(2)]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert not (tmp_path / "doubled.txt").exists()
    assert set(starts(tmp_path).values()) == {1}
    assert len(starts(tmp_path)) == 6 + 2
    # Both wait for the end, and tell it.
    ends = {"\n".join(out.splitlines()[-6:]) for out, _ in said}
    assert len(ends) == 1
    assert "6 trials: 6 completed" in ends.pop()


def test_whatever_befalls_a_trial_costs_that_trial(tmp_path):
    fates = {"STAND_IN_0000": "kill", "STAND_IN_0001": "1", "STAND_IN_0002": "2"}
    said, _ = searched(tmp_path, **fates, STAND_IN_0003="3", STAND_IN_0004="stop")
    assert "trial 0: failed: killed by SIGKILL, out of memory?" in said
    assert "trial 1: failed: the machine failed: 1 is its fate" in said
    assert "trial 2: failed: refused: 2 is its fate" in said
    assert "trial 3: diverged: " in said
    # Somebody stopped it, and it went on.
    assert "trial 4: failed: stopped by somebody else 3 times" in said
    assert starts(tmp_path)["0004"] == 3
    assert "6 trials: 1 completed, 0 pruned, 1 diverged, 4 failed" in said
    assert "best: trial 5" in said


def test_where_every_trial_fails_the_commonest_reason_is_told(tmp_path):
    fates = {f"STAND_IN_{n:04d}": "kill" for n in range(6)}
    _, errors = searched(tmp_path, check=1, **fates)
    assert errors == (
        "error: none of the 6 trials was completed; 6 of them failed: killed by SIGKILL, out of "
        "memory?\n"
    )


def test_unpromising_trials_are_pruned_and_what_that_saves_is_told(tmp_path):
    text = STUDY.replace("trials: 6", "trials: 10") + "pruner: hyperband\n"
    said, _ = searched(tmp_path, text=text, STAND_IN_SECONDS="0.01")
    assert re.search(r"pruned after step (\d+) of 40, ", said)
    match = re.search(r"([\d,]+) of 400 steps were done, which saves (\d+)%", said)
    assert int(match[2]) >= 20
    records = results(tmp_path)
    assert sum(record.steps for record in records) == int(match[1])


def test_more_trials_and_seeds_may_be_asked_for_later(tmp_path):
    searched(tmp_path)
    (tmp_path / "my.yaml").write_text(STUDY.replace("trials: 6", "trials: 9"))
    said, _ = searched(tmp_path)
    assert "going on: 6 of 9 trials are done" in said
    assert "9 trials: 9 completed" in said
    trials = [n for name, n in starts(tmp_path).items() if not name.startswith("seed")]
    assert trials == [1] * 9
    assert "trials: 9" in (tmp_path / "studies/my/study.yaml").read_text()


def test_the_folder_of_another_study_or_of_something_else_is_refused(tmp_path):
    searched(tmp_path)
    (tmp_path / "my.yaml").write_text(STUDY.replace("1e-1", "1.0").replace("dropout", "beta1"))
    _, errors = searched(tmp_path, check=2)
    assert errors.splitlines()[0] == (
        "error: studies/my holds another study; --run_dir names another folder:"
    )
    assert [line.split(":")[0].strip() for line in errors.splitlines()[1:]] == [
        "search.learning_rate",
        "search.dropout",
        "search.beta1",
    ]
    _, errors = searched(tmp_path, "--run_dir=studies/my/trials/0000", check=2)
    assert "holds a run, no study" in errors
    _, errors = searched(tmp_path, "--run_dir=.", check=2)
    assert "holds other files (my.yaml, " in errors


def test_a_flag_reaches_every_trial(tmp_path):
    searched(tmp_path, "--max_steps=20", "--gin.Trainer.beta1=0.8")
    base = (tmp_path / "studies/my/base.yaml").read_text()
    assert "beta1: 0.8\n" in base
    assert {record.steps for record in results(tmp_path)} == {20}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workers=0"], "--workers: 0 is not an integer from 1 to 1024"),
        (["--workers=two"], "--workers: 'two' is not an integer"),
        (["--storage=postgresql://127.0.0.1:1/none"], "none: cannot be reached: "),
        (["--storage=nonsense"], "is no address of a database"),
        (["--resume"], "--resume does not apply to --mode=search"),
        (["--gin.Trainer.learning_rate=0.1"], "is searched (my.yaml:6); leave out one of the two"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_made(tmp_path, arguments, sentence):
    (tmp_path / "my.yaml").write_text(STUDY)
    done = run(*SEARCH, *arguments, cwd=tmp_path, check=2)
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]


def test_a_missing_extra_is_told_with_what_to_install(tmp_path):
    (tmp_path / "my.yaml").write_text(STUDY)
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "optuna.py").write_text("raise ImportError('not here')\n")
    done = run_cold(*SEARCH, cwd=tmp_path, PYTHONPATH=str(tmp_path / "without"))
    assert (done.returncode, done.stderr) == (
        2,
        "error: --mode=search needs the package optuna: not here; python -m pip install "
        "-c constraints.txt -e '.[search]' installs it\n",
    )
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize("mode", ["train", "config", "plan"])
def test_a_study_given_to_another_mode_names_the_right_one(tmp_path, mode):
    (tmp_path / "my.yaml").write_text(STUDY)
    done = run(f"--mode={mode}", "--config=my.yaml", cwd=tmp_path, check=2)
    assert done.stderr == "error: my.yaml:5: search: makes this a study, which --mode=search runs\n"


def python(program, folder):
    """Runs lines of Python that import the lab, in a process of their own."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )


def test_a_wrong_study_and_its_help_need_neither_pytorch_nor_optuna(tmp_path):
    (tmp_path / "my.yaml").write_text(STUDY.replace("trials: 6", "trials: 0"))
    program = (
        "import sys, run\n"
        f"code = run.main({[*SEARCH]!r})\n"
        "print(code, sorted({'torch', 'optuna'} & set(sys.modules)))\n"
    )
    done = python(program, tmp_path)
    assert done.stdout == "2 []\n"
    assert done.stderr.startswith("error: my.yaml:8: trials: 0 is not an integer")


def test_a_search_never_loads_pytorch_itself(tmp_path):
    (tmp_path / "my.yaml").write_text(STUDY)
    program = (
        "import sys, run\n"
        f"sys.argv[0] = {str(STAND_IN)!r}\n"
        f"code = run.main({[*SEARCH]!r})\n"
        "print(code, 'torch' in sys.modules)\n"
    )
    done = python(program, tmp_path)
    assert done.stdout.endswith("0 False\n"), done.stderr


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_study_of_real_runs_that_is_killed_again_and_again_is_what_it_would_have_been(tmp_path):
    text = REAL.replace("max_steps: 6", "max_steps: 60").replace(
        "eval_cadence: 3", "eval_cadence: 5"
    )
    text = text.replace("[0.01, 1e30]", "[0.001, 0.01, 0.1]") + "seed: 3\ncheckpoint_cadence: 5\n"
    found = []
    for name, kills in (("straight", ()), ("killed", (4, 5, 6, 7, 8))):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "my.yaml").write_text(text)
        for seconds in kills:
            process = subprocess.Popen(
                [sys.executable, str(PROJECT / "run.py"), *SEARCH],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(seconds)
            process.kill()
            process.wait()
        done = run_cold(*SEARCH, cwd=folder, timeout=300)
        assert done.returncode == 0, done.stderr
        trials = folder / "studies" / "my" / "trials"
        assert sorted(path.name for path in trials.iterdir()) == ["0000", "0001", "0002"]
        found.append([metrics(trials / f"{n:04d}") for n in range(3)])
        outcomes = {manifest(trials / f"{n:04d}")["outcome"] for n in range(3)}
        assert outcomes == {"completed"}
    assert found[0] == found[1]


@pytest.mark.exhaustive
def test_pruning_saves_a_third_of_the_steps_of_the_study_that_the_lab_brings(tmp_path):
    study = ("--mode=search", "--config=search/learning-rate.yaml", "--gin.Trainer.seed=1")
    done = run_cold(*study, "--workers=2", cwd=tmp_path, timeout=3000)
    assert done.returncode == 0, done.stderr
    match = re.search(r"([\d,]+) of ([\d,]+) steps were done, which saves (\d+)%", done.stdout)
    n_done, n_all = (int(number.replace(",", "")) for number in match.groups()[:2])
    assert n_all == 20 * 240
    assert n_done <= n_all * 2 / 3
    assert "20 trials: " in done.stdout
