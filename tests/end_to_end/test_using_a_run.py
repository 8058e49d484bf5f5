"""``--mode=evaluate`` and ``--mode=sample``."""

import json
import math
import re
import shutil
import subprocess
import sys

import pytest

from lm_core.training.checkpoint import load_checkpoint, save_checkpoint
from tests.end_to_end.command_line import RUN, TINY, metrics, run

TEXT = "one two three four five six seven eight nine ten. " * 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a text and a run that was trained on it."""
    folder = tmp_path_factory.mktemp("use")
    (folder / "text.txt").write_text(TEXT)
    (folder / "other.gin").write_text("Transformer.d_ff = 64\n")
    options = [*TINY, "--corpus=text.txt", "--max_steps=4", "--gin.Sampler.prompt=one"]
    run(*options, "--run_dir=out", cwd=folder, check=0)
    return folder


def test_evaluate_gives_the_number_that_training_ended_with(folder):
    done = run("--mode=evaluate", "--run_dir=out", cwd=folder, check=0)
    last = metrics(folder / "out")[-1]
    assert f"validation loss: {last['val_loss']:.4f} nats per token" in done.stdout
    assert f"{last['bits_per_byte']:.4f} bits per byte" in done.stdout
    assert "checkpoint: step 4 of out" in done.stdout
    n_targets = len(TEXT) - int(len(TEXT) * 0.95) - 1
    assert f"{n_targets:,} targets" in done.stdout
    assert math.isfinite(last["val_loss"])


def test_the_checkpoint_to_look_at_is_chosen_by_a_flag(folder, tmp_path):
    options = [*TINY, "--max_steps=5", "--gin.Trainer.eval_cadence=2", "--run_dir=out"]
    run(*options, "--gin.Trainer.keep_checkpoints=None", cwd=tmp_path, check=0)
    losses = {
        row["step"]: row["val_loss"] for row in metrics(tmp_path / "out") if "val_loss" in row
    }
    best = min(losses, key=losses.get)
    for which, step in (("2", 2), ("best", best), ("newest", 5)):
        arguments = ["--mode=evaluate", "--run_dir=out", f"--checkpoint={which}"]
        done = run(*arguments, cwd=tmp_path, check=0)
        assert f"checkpoint: step {step} of out" in done.stdout
        assert f"validation loss: {losses[step]:.4f} nats" in done.stdout
    arguments = ["--mode=sample", "--run_dir=out", "--checkpoint=7"]
    done = run(*arguments, cwd=tmp_path, check=2)
    assert "--checkpoint=7: there is no such checkpoint (there are newest, best, " in done.stderr


def test_evaluate_takes_any_other_text_whole(folder):
    (folder / "other.txt").write_text("eleven twelve thirteen fourteen fifteen")
    arguments = ["--mode=evaluate", "--run_dir=out", "--corpus=other.txt"]
    done = run(*arguments, cwd=folder, check=0)
    assert "other.txt, 38 targets" in done.stdout


def test_evaluate_takes_json_lines_whose_text_has_another_key_than_in_the_run(folder):
    (folder / "other.txt").write_text("eleven twelve thirteen fourteen fifteen\n")
    line = json.dumps({"content": "eleven twelve thirteen fourteen fifteen"}) + "\n"
    (folder / "other.jsonl").write_text(line)
    arguments = ["--mode=evaluate", "--run_dir=out"]
    key = "--gin.load_corpus.text_key=content"
    plain = run(*arguments, "--corpus=other.txt", cwd=folder, check=0)
    done = run(*arguments, "--corpus=other.jsonl", key, cwd=folder, check=0)
    assert done.stdout == plain.stdout.replace("other.txt", "other.jsonl")
    done = run(*arguments, "--corpus=other.jsonl", cwd=folder, check=2)
    assert "gin parameter load_corpus.text_key, names the one with the text" in done.stderr


def test_evaluate_refuses_a_text_that_has_changed(folder, tmp_path):
    shutil.copytree(folder / "out", tmp_path / "out")
    (tmp_path / "text.txt").write_text(TEXT + "!")
    config = tmp_path / "out" / "config.yaml"
    config.write_text(config.read_text().replace(str(folder), str(tmp_path)))
    done = run("--mode=evaluate", "--run_dir=out", cwd=tmp_path, check=2)
    assert "is another one than the run was trained on" in done.stderr


def test_sample_writes_the_prompt_and_the_new_tokens_and_nothing_else(folder):
    done = run("--mode=sample", "--run_dir=out", cwd=folder, check=0)
    assert done.stdout.startswith("one")
    assert len(done.stdout) == 3 + 100
    assert done.stderr == ""


def test_sampler_bindings_apply(folder):
    def sample(*options):
        return run("--mode=sample", "--run_dir=out", *options, cwd=folder, check=0).stdout

    assert sample() == sample()
    assert sample("--gin.Sampler.seed=1") != sample()
    bindings = ["--gin_bindings=Sampler.temperature=0", "--gin.Sampler.max_length=7"]
    greedy = sample(*bindings, "--gin_bindings=Sampler.prompt='two '")
    assert greedy.startswith("two ")
    assert len(greedy) == 4 + 7


def test_several_samples_are_told_apart_and_the_first_is_the_one_that_is_written_alone(folder):
    def sample(*options):
        return run("--mode=sample", "--run_dir=out", *options, cwd=folder, check=0).stdout

    several = sample("--gin.Sampler.num_samples=3")
    parts = re.split(r"--- sample (\d) ---\n", several)
    assert parts[:3] == ["", "0", sample() + "\n"]
    assert parts[3::2] == ["1", "2"]
    assert all(len(text) == 3 + 100 + 1 and text.startswith("one") for text in parts[2::2])


def test_sample_does_not_change_the_run(folder):
    before = {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("*")}
    run("--mode=sample", "--run_dir=out", "--gin.Sampler.seed=1", cwd=folder, check=0)
    assert {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode=sample", "--gin.Trainer.max_steps=3"], "Trainer.max_steps does not apply to"),
        (["--mode=sample", "--gin.Transformer.n_layers=3"], "Transformer.n_layers does not apply"),
        (
            ["--mode=sample", "--gin_bindings=include 'other.gin'"],
            "other.gin:1: Transformer.d_ff does not apply to --mode=sample",
        ),
        (["--mode=sample", "--gin.Sampler.temprature=3"], "did you mean Sampler.temperature?"),
        (["--mode=sample", "--gin.Sampler.temperature=-1"], "-1 is less than 0"),
        (["--mode=sample", "--gin_bindings=Sampler.prompt=''"], "is empty"),
        (
            ["--mode=sample", "--gin_bindings=Sampler.prompt='é'"],
            "has characters unknown to tokenizer 'ascii'",
        ),
        (["--mode=sample", "--config=default.yaml"], "--config does not apply to --mode=sample"),
        (["--mode=sample", "--corpus=text.txt"], "--corpus does not apply to --mode=sample"),
        (
            ["--mode=evaluate", "--gin.Sampler.seed=3"],
            "Sampler.seed does not apply to --mode=evaluate, which takes load_corpus.text_key",
        ),
        (["--mode=evaluate", "--gin.load_corpus.path='text.txt'"], "load_corpus.path does not"),
        (["--mode=evaluate", "--gin.load_corpus.text_kye=a"], "mean load_corpus.text_key?"),
        (["--mode=evaluate", "--config=default.yaml"], "--config does not apply to"),
        (["--mode=evaluate", "--max_steps=3"], "--max_steps does not apply to --mode=evaluate"),
        (["--mode=evaluate", "--resume"], "--resume does not apply to --mode=evaluate"),
        (["--mode=evaluate", "--corpus=nope.txt"], "does not exist"),
    ],
)
def test_what_does_not_apply_is_refused(folder, arguments, message):
    done = run(*arguments, "--run_dir=out", cwd=folder, check=2)
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mode", ["evaluate", "sample"])
def test_without_a_run_or_a_checkpoint_it_says_so(folder, tmp_path, mode):
    done = run(f"--mode={mode}", cwd=tmp_path, check=2)
    assert "--run_dir is missing" in done.stderr
    done = run(f"--mode={mode}", "--run_dir=nope", cwd=tmp_path, check=2)
    assert "nope is no run directory: there is no such folder" in done.stderr
    shutil.copytree(folder / "out", tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "checkpoints")
    done = run(f"--mode={mode}", "--run_dir=out", cwd=tmp_path, check=2)
    assert "out holds no checkpoint" in done.stderr


def test_with_only_damaged_checkpoints_the_machine_has_failed(folder, tmp_path):
    shutil.copytree(folder / "out", tmp_path / "out")
    (tmp_path / "out" / "checkpoints" / "step-00000004" / "state.json").write_text("{}")
    done = run("--mode=sample", "--run_dir=out", cwd=tmp_path, check=1)
    assert "none of the 1 checkpoints" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "no checkpoint of this lab"),
        ({"model": {"vocab_size": 128}}, "4,560 weights for a model of 3,257,856"),
        ({"tokenizer": {"kind": "byte"}}, "its byte tokenizer does not fit its model"),
        ({"tokenizer": {"kind": "words"}}, "unknown tokenizer"),
    ],
)
def test_a_checkpoint_that_describes_another_model_is_refused(folder, tmp_path, changes, message):
    checkpoint = load_checkpoint(folder / "out" / "checkpoints" / "step-00000004")
    checkpoint.state |= changes
    shutil.copytree(folder / "out", tmp_path / "out")
    save_checkpoint(tmp_path / "out" / "checkpoints", checkpoint)
    done = run("--mode=sample", "--run_dir=out", cwd=tmp_path, check=1)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_reader_that_stops_early_gets_no_traceback(folder, tmp_path):
    command = f"{sys.executable} {RUN} --mode=sample --run_dir={folder}/out | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert "Traceback" not in done.stderr


@pytest.mark.exhaustive
def test_neither_training_nor_what_uses_a_run_loads_the_compiler_of_pytorch(tmp_path):
    # The compiler takes as long to load as PyTorch itself; sympy is the first that it needs.
    (tmp_path / "sympy.py").write_text("raise SystemExit('the compiler was loaded')")
    for arguments in (
        [*TINY, "--max_steps=2"],
        ["--resume", "--max_steps=3"],
        ["--mode=evaluate"],
        ["--mode=sample"],
    ):
        run(*arguments, "--run_dir=out", cwd=tmp_path, check=0, PYTHONPATH=str(tmp_path))
