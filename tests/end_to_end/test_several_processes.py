"""Training with torchrun: real processes, started, stopped, killed and started again."""

import hashlib
import os
import re
import signal

import pytest

from tests.end_to_end.command_line import TINY, manifest, metrics, run
from tests.end_to_end.torchrun import checkpoints, launched, launching, wait_for, workers_of

BASE = [*TINY, "--gin.Trainer.batch_size=8", "--gin.Trainer.seed=1", "--gin.Trainer.eval_cadence=5"]
SHORT = [*BASE, "--max_steps=10", "--gin.Trainer.precision='float32'"]
LONG = [*BASE, "--max_steps=100000", "--gin.Trainer.checkpoint_cadence=10"]


def said(done):
    """What the program says of errors, without the launcher's report."""
    return [line for line in done.stderr.splitlines() if line.startswith(("error:", "warning:"))]


def digest(run_dir, step):
    return [
        hashlib.sha256((run_dir / "checkpoints" / f"step-{step:08d}" / name).read_bytes()).digest()
        for name in ("model.safetensors", "optimizer.safetensors")
    ]


def test_two_processes_leave_one_record_of_what_one_would_learn(folder):
    run(*SHORT, "--run_dir=one", cwd=folder, check=0)
    done = launched(2, *SHORT, "--run_dir=two", cwd=folder, check=0)
    assert done.stdout.count("run directory: two") == 2
    assert done.stdout.count("step 5  validation loss") == 1
    assert "processes: 2, by ddp" in done.stdout
    assert not said(done)
    assert manifest(folder / "two")["processes"] == 2
    assert manifest(folder / "two")["outcome"] == "completed"
    assert manifest(folder / "two")["config_hash"] == manifest(folder / "one")["config_hash"]
    for theirs, ours in zip(metrics(folder / "two"), metrics(folder / "one"), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)
    # What several processes left can be looked at by one.
    text = run("--mode=evaluate", "--run_dir=two", cwd=folder, check=0).stdout
    assert f"validation loss: {metrics(folder / 'two')[-1]['val_loss']:.4f}" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--corpus=nowhere.txt"], "nowhere.txt' does not exist"),
        *(
            pytest.param(*mistake, marks=pytest.mark.exhaustive)
            for mistake in [
                (["--gin.Trainer.batch_size=1"], "batch_size: 1 sequences are too few for 2 proc"),
                (["--gin.Trainer.parallelism='none'"], "parallelism: none is for one process"),
                (["--gin.Trainer.learning_rate=-1"], "learning_rate: -1 is not greater than 0"),
                (["--bogus"], "unknown flag --bogus"),
                (["--mode=search", "--config=search/muon.yaml"], "start it without torchrun"),
            ]
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_told_once_and_ends_all(folder, arguments, words):
    arguments = arguments if "--mode=search" in arguments else [*SHORT, *arguments]
    done = launched(2, *arguments, cwd=folder)
    assert done.returncode
    (line,) = said(done)
    assert words in line
    assert re.search(r"exitcode +: 2 ", done.stderr)
    assert not (folder / "runs").exists()


@pytest.mark.exhaustive
def test_a_signal_to_the_launcher_saves_and_ends_all_and_fewer_processes_go_on(folder):
    arguments = [*LONG, "--run_dir=run", "--resume", "--gin.Trainer.exact_reduction=True"]
    with launching(4, *arguments, cwd=folder) as launcher:
        wait_for(lambda: checkpoints(folder / "run"), "checkpoint")
        launcher.send_signal(signal.SIGTERM)
        _, errors = launcher.communicate(timeout=60)
    (step,) = map(int, re.findall(r"stopped after step (\d+), which is saved", errors))
    assert checkpoints(folder / "run")[-1] == step
    assert manifest(folder / "run")["outcome"] == "stopped by SIGTERM"
    last = step + 7
    done = launched(2, *arguments, f"--max_steps={last}", cwd=folder, check=0)
    assert f"going on after step {step:,}" in done.stdout
    assert not said(done)
    run(*arguments[:-3], arguments[-1], "--run_dir=alone", f"--max_steps={last}", cwd=folder)
    assert digest(folder / "run", last) == digest(folder / "alone", last)
    assert metrics(folder / "run")[-1] == metrics(folder / "alone")[-1]


@pytest.mark.exhaustive
def test_a_killed_process_ends_the_run_and_the_launcher_starts_it_again(folder):
    options = ["--standalone", "--max-restarts=1"]
    arguments = [*LONG[:-2], "--max_steps=400", LONG[-1], "--gin.Trainer.parallelism='fsdp'"]
    with launching(2, *arguments, cwd=folder, options=options) as launcher:
        wait_for(lambda: checkpoints(folder / "runs" / "latest"), "checkpoint")
        os.kill(workers_of(launcher)[1], signal.SIGKILL)
        output, errors = launcher.communicate(timeout=200)
    assert launcher.returncode == 0, errors
    assert errors.count("error: one of the 2 processes of this run was lost") == 1
    # Nobody has said where the run is, or to go on with it.
    assert re.search(r"going on after step \d+", output)
    (run_dir,) = (path for path in (folder / "runs").iterdir() if not path.is_symlink())
    record = manifest(run_dir)
    assert record["outcome"] == "completed"
    assert [entry["before"]["outcome"] for entry in record["resumed"]] == ["failed"]
    assert [row["step"] for row in metrics(run_dir)] == list(range(1, 401))


@pytest.mark.exhaustive
def test_what_a_person_has_to_mend_is_not_tried_again(folder):
    options = ["--standalone", "--max-restarts=3"]
    arguments = [*SHORT, "--gin.Trainer.learning_rate=1e30", "--run_dir=run"]
    done = launched(2, *arguments, cwd=folder, options=options)
    (line,) = said(done)
    assert "training diverged at step" in line
    assert manifest(folder / "run")["outcome"] == "diverged"


@pytest.mark.exhaustive
def test_two_launchers_as_on_two_machines_train_together(folder):
    options = ["--nnodes=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:29653"]
    arguments = [*SHORT, "--run_dir=run"]
    with launching(1, *arguments, cwd=folder, options=options) as other:
        done = launched(2, *arguments, cwd=folder, options=options)
        output = done.stdout + other.communicate(timeout=60)[0]
        assert other.returncode == 0
    assert done.returncode == 0, done.stderr
    assert output.count("processes: 3, by ddp") == 1
    assert manifest(folder / "run")["outcome"] == "completed"


@pytest.mark.exhaustive
@pytest.mark.parametrize("first", ["pass", "time.sleep(100)"], ids=["idle", "busy"])
def test_a_mistake_of_one_process_alone_is_told_too_and_not_tried_again(folder, first):
    (folder / "only_here.py").write_text(
        "import os, time\nif os.environ['RANK'] == '1':\n"
        f"    raise ValueError('not on this machine')\n{first}\n"
    )
    options = ["--standalone", "--max-restarts=1"]
    done = launched(2, *SHORT, "--allow_gin_import=only_here", cwd=folder, options=options)
    assert done.returncode
    (line,) = said(done)
    assert "process 1 of 2 on" in line
    assert "--allow_gin_import=only_here: cannot be imported: ValueError: not on this" in line


@pytest.mark.exhaustive
def test_one_process_that_is_started_again_goes_on_too(folder):
    (folder / "dies.py").write_text(
        "import os, signal\nfrom lm_core.hooks import UpdateHook, update_hook\n"
        "@update_hook('dies')\nclass Dies(UpdateHook):\n"
        "    def on_gradients(self, gradients, key):\n"
        "        if key.step == 8 and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    hooks = "--gin.Trainer.hooks={'update': [{'name': 'dies'}]}"
    arguments = [*SHORT, "--gin.Trainer.checkpoint_cadence=5", "--allow_gin_import=dies", hooks]
    options = ["--standalone", "--max-restarts=1"]
    done = launched(1, *arguments, cwd=folder, check=0, options=options)
    assert "going on after step 5" in done.stdout
    (run_dir,) = (path for path in (folder / "runs").iterdir() if not path.is_symlink())
    assert [row["step"] for row in metrics(run_dir)] == list(range(1, 11))


@pytest.mark.exhaustive
def test_where_the_first_process_is_killed_another_one_tells_it(folder):
    with launching(2, *LONG, "--run_dir=run", cwd=folder) as launcher:
        wait_for(lambda: checkpoints(folder / "run"), "checkpoint")
        os.kill(workers_of(launcher)[0], signal.SIGKILL)
        _, errors = launcher.communicate(timeout=100)
    lines = [line for line in errors.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "one of the 2 processes of this run was lost" in lines[0]


@pytest.mark.exhaustive
def test_a_learned_tokenizer_is_that_of_all_processes(folder):
    arguments = [*SHORT, "--gin.Tokenizer.kind='bpe'", "--gin.Tokenizer.vocab_size=300"]
    arguments += ["--gin.Trainer.exact_reduction=True"]
    launched(2, *arguments, "--run_dir=two", cwd=folder, check=0)
    run(*arguments, "--run_dir=one", cwd=folder, check=0)
    assert digest(folder / "two", 10) == digest(folder / "one", 10)
    assert manifest(folder / "two")["tokenizer"] == manifest(folder / "one")["tokenizer"]
    more = [*arguments, "--run_dir=two", "--resume", "--max_steps=12"]
    assert "going on after step 10" in launched(2, *more, cwd=folder, check=0).stdout


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "more", [["--gin.Trainer.exact_reduction=True"], ["--gin.Trainer.parallelism='fsdp'"]]
)
def test_weights_of_another_run_are_begun_with_in_all_processes(folder, more):
    # The characters of this tokenizer are in its text, and come with the weights.
    short = [*SHORT, "--gin.Tokenizer.kind='char'"]
    run(*short, "--run_dir=source", cwd=folder, check=0)
    arguments = [*short, *more, "--gin.load_initial_weights.init_from='source'", "--max_steps=2"]
    launched(2, *arguments, "--run_dir=two", cwd=folder, check=0)
    run(*arguments, "--run_dir=one", cwd=folder, check=0)
    for theirs, ours in zip(metrics(folder / "two"), metrics(folder / "one"), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)
    # What it began with is not needed any more.
    (folder / "source").rename(folder / "gone")
    arguments = [*arguments, "--run_dir=two", "--resume", "--max_steps=4"]
    assert "going on after step 2" in launched(2, *arguments, cwd=folder, check=0).stdout


@pytest.mark.exhaustive
def test_launchers_with_different_commands_are_told_which(folder):
    options = ["--nnodes=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:29657"]
    with (
        launching(1, *SHORT, "--run_dir=a", cwd=folder, options=options) as one,
        launching(1, *SHORT, "--run_dir=b", cwd=folder, options=options) as other,
    ):
        errors = "".join(each.communicate(timeout=100)[1] for each in (one, other))
    assert one.returncode
    assert other.returncode
    (line,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert "process 1 of 2 on" in line
    assert "it was started with other words than the first one" in line
    assert not [path for path in folder.iterdir() if path.name in ("a", "b")]


@pytest.mark.exhaustive
def test_a_search_that_a_launcher_has_started_starts_trials_that_are_alone(folder):
    (folder / "study.yaml").write_text(
        "search: {learning_rate: {log_uniform: [1e-4, 1e-2]}}\n"
        "sampler: random\npruner: none\ntrials: 2\nseeds_for_best: 1\n"
        "n_layers: 1\nd_model: 16\nn_heads: 2\nd_ff: 32\nmax_seq_len: 16\nbatch_size: 4\n"
        "max_steps: 4\neval_cadence: 2\nsampling_cadence: null\n"
    )
    arguments = ["--mode=search", "--config=study.yaml", "--run_dir=study"]
    done = launched(1, *arguments, cwd=folder, check=0)
    assert "2 trials: 2 completed" in done.stdout


@pytest.mark.exhaustive
def test_where_the_launcher_is_killed_the_run_goes_on_to_its_end(folder):
    arguments = [*LONG[:-2], "--max_steps=300", LONG[-1], "--run_dir=run"]
    with launching(2, *arguments, cwd=folder) as launcher:
        wait_for(lambda: checkpoints(folder / "run"), "checkpoint")
        workers = workers_of(launcher)
        launcher.kill()
        wait_for(lambda: manifest(folder / "run")["outcome"] != "running", "end")
        output, errors = launcher.communicate(timeout=60)
    assert len(workers) == 2
    assert manifest(folder / "run")["outcome"] == "completed"
    assert "final validation loss" in output
    assert "error" not in errors
    assert len(errors.splitlines()) < 10


@pytest.mark.exhaustive
def test_what_the_first_process_cannot_write_ends_all(folder):
    arguments = [*LONG, "--run_dir=run", "--gin.Transformer.d_model=64"]
    with launching(2, *arguments, cwd=folder) as launcher:
        wait_for(lambda: checkpoints(folder / "run"), "checkpoint")
        # A file in the place of the folder of checkpoints: nothing can be saved any more.
        (folder / "run" / "checkpoints").rename(folder / "elsewhere")
        (folder / "run" / "checkpoints").write_text("")
        _, errors = launcher.communicate(timeout=100)
    assert launcher.returncode
    lines = [line for line in errors.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "checkpoints is no folder" in lines[0]


@pytest.mark.exhaustive
def test_machines_may_join_and_leave_while_a_run_goes_on(folder, monkeypatch):
    # Else a launcher of PyTorch 2.13 looks for one that joined where it has written nothing.
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    options = ["--nnodes=1:2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:29654"]
    options += ["--rdzv-conf=last_call_timeout=2", "--max-restarts=3"]
    arguments = [*LONG, "--run_dir=run", "--resume"]
    path = folder / "run"

    def n_resumes():
        return len(manifest(path).get("resumed", [])) if path.exists() else 0

    def saved_since(n):
        return n_resumes() == n and checkpoints(path) and n_rows() > known + 20

    def n_rows():
        return len(metrics(path))

    with launching(1, *arguments, cwd=folder, options=options) as one:
        known = 0
        wait_for(lambda: path.exists() and saved_since(0), "steps of one process")
        with launching(1, *arguments, cwd=folder, options=options) as other:
            known = n_rows()
            wait_for(lambda: saved_since(1), "steps of two processes")
            other.send_signal(signal.SIGTERM)
            other.communicate(timeout=60)
        known = n_rows()
        wait_for(lambda: saved_since(2), "steps of one process again")
        one.send_signal(signal.SIGTERM)
        output, _ = one.communicate(timeout=60)
    assert "processes: 2, by ddp" in output
    assert [entry["processes"] for entry in manifest(path)["resumed"]] == [2, 1]
    steps = [row["step"] for row in metrics(path)]
    assert steps == list(range(1, len(steps) + 1))
