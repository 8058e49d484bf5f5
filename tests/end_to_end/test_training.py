"""The main job from the command line, and the record it leaves."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from ruamel.yaml import YAML

from lm_core.compute import chosen_precision
from lm_core.config.hyperparameters import KEYS
from lm_core.model.transformer import Transformer
from lm_core.training.checkpoint import load_checkpoint
from tests.end_to_end.command_line import PROJECT, RUN, TINY, manifest, metrics, run, start


def yaml_of(path):
    return YAML(typ="safe", pure=True).load(path.read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the default name in a folder of its own, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    options = [*TINY, "--max_steps=6", "--gin.Trainer.eval_cadence=3", "--gin.Trainer.seed=5"]
    done = run(*options, "--gin.Trainer.sampling_cadence=3", cwd=folder, check=0)
    (path,) = [p for p in (folder / "runs").iterdir() if not p.is_symlink()]
    return folder, path, done


def test_the_design_cards_command_trains_six_layers(tmp_path):
    arguments = ["--gin_file=base.gin", "--gin_bindings=Transformer.n_layers=6", "--max_steps=2"]
    small = ["--gin.Trainer.batch_size=2"]
    run(*arguments, *small, "--run_dir=out", cwd=tmp_path, check=0)
    assert yaml_of(tmp_path / "out" / "config.yaml")["n_layers"] == 6
    expected = Transformer(128, n_layers=6).n_parameters
    assert manifest(tmp_path / "out")["n_parameters"] == expected
    assert expected - Transformer(128, n_layers=4).n_parameters == 2 * 789_760
    saved = load_checkpoint(tmp_path / "out" / "checkpoints" / "step-00000002")
    assert sum(tensor.numel() for tensor in saved.model.values()) == expected


def test_it_ends_by_telling_loss_sample_and_run_directory(trained):
    _, path, done = trained
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert lines[-1] == f"run directory: runs/{path.name}"
    pattern = r"final validation loss: \d\.\d{4} nats per token, \d\.\d{4} bits per byte, perplex"
    assert f"report: runs/{path.name}/report.html" in lines
    assert re.match(pattern, lines[-2])
    assert "sample:" in lines
    assert lines[lines.index("sample:") + 1].startswith("The")


def test_the_run_directory_holds_everything(trained):
    _, path, _ = trained
    assert path.name.startswith("base-")
    assert {p.name for p in path.iterdir()} == {
        "config.yaml",
        "config.gin",
        "manifest.json",
        "metrics.jsonl",
        "samples.jsonl",
        "report.html",
        "checkpoints",
        ".lock",
    }
    assert [p.name for p in (path.parent).iterdir() if p.is_symlink()] == ["latest"]
    assert (path.parent / "latest").resolve() == path


def test_the_recorded_configuration_has_every_value_and_its_source(trained):
    _, path, _ = trained
    config = yaml_of(path / "config.yaml")
    assert list(config)
    assert set(config) == set(KEYS)
    assert config["n_layers"] == 1
    assert config["seed"] == 5
    assert config["max_steps"] == 6
    gin_lines = (path / "config.gin").read_text().splitlines()
    assert "Transformer.n_layers = 1  # --gin_bindings" in gin_lines
    assert "Trainer.max_steps = 6  # --max_steps" in gin_lines
    (rate,) = [line for line in gin_lines if line.startswith("Trainer.learning_rate ")]
    assert re.fullmatch(r"Trainer.learning_rate = 0.0003  # .*configs/default.yaml:\d+", rate)


def test_metrics_have_one_line_a_step(trained):
    _, path, _ = trained
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    names = {"step", "train_loss", "learning_rate", "grad_norm", "tokens_per_second"}
    assert all(names <= set(row) for row in rows)
    assert [row["step"] for row in rows if {"val_loss", "bits_per_byte"} <= set(row)] == [3, 6]


def test_samples_are_on_record(trained):
    _, path, _ = trained
    rows = [json.loads(line) for line in (path / "samples.jsonl").read_text().splitlines()]
    assert [(row["step"], row["prompt"], row["seed"]) for row in rows] == [
        (3, "The", 42),
        (6, "The", 42),
    ]
    assert all(len(row["text"]) == 103 for row in rows)


def test_the_manifest_tells_the_whole_story(trained):
    _, path, _ = trained
    found = manifest(path)
    assert found["outcome"] == "completed"
    assert found["start"] <= found["end"]
    assert found["last_step"] == 6
    assert len(found["corpus"]["sha256"]) == 64
    assert found["corpus"]["path"] is None
    precision = chosen_precision("auto", torch.device("cpu"))
    assert found["numerics"]["precision"] == precision
    assert found["numerics"]["device"] == "cpu"
    assert f'\nprecision: "{precision}"' in (path / "config.yaml").read_text()
    assert found["sources"]["precision"] == "auto on this cpu"
    assert len(found["config_hash"]) == 64
    assert "--max_steps=6" in found["command_line"]


@pytest.mark.parametrize("record", ["--config=first/config.yaml", "--gin_file=first/config.gin"])
def test_a_run_can_be_run_again_from_its_own_record_bit_for_bit(tmp_path, record):
    run(*TINY, "--max_steps=3", "--run_dir=first", cwd=tmp_path, check=0)
    run(record, "--run_dir=again", cwd=tmp_path, check=0)
    last = "checkpoints/step-00000003/model.safetensors"
    assert (tmp_path / "first" / last).read_bytes() == (tmp_path / "again" / last).read_bytes()
    assert metrics(tmp_path / "first") == metrics(tmp_path / "again")
    hashes = [manifest(tmp_path / name)["config_hash"] for name in ("first", "again")]
    assert hashes[0] == hashes[1]


def test_a_corpus_of_ones_own_is_found_again_from_anywhere(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("ein Text über π. " * 200, encoding="utf-8")
    options = [*TINY, "--max_steps=2", "--gin.Tokenizer.kind=char"]
    run(*options, "--corpus=texts", "--run_dir=out", cwd=tmp_path, check=0)
    assert yaml_of(tmp_path / "out" / "config.yaml")["corpus"] == str(tmp_path / "texts")
    (tmp_path / "elsewhere").mkdir()
    arguments = ["--config=../out/config.yaml", "--run_dir=again"]
    run(*arguments, cwd=tmp_path / "elsewhere", check=0)
    again = manifest(tmp_path / "elsewhere" / "again")
    assert again["corpus"] == manifest(tmp_path / "out")["corpus"]
    options = ["--mode=evaluate", "--run_dir=../out"]
    run(*options, cwd=tmp_path / "elsewhere", check=0)


def test_hyphens_work_as_in_max_steps(tmp_path):
    run(*TINY, "--max-steps=1", "--run_dir=out", cwd=tmp_path, check=0)
    assert yaml_of(tmp_path / "out" / "config.yaml")["max_steps"] == 1


def test_files_are_found_by_name_by_path_and_in_search_paths(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tiny.gin").write_text("Transformer.n_layers = 2\n")
    (tmp_path / "my.yaml").write_text("d_ff: 24\n")
    arguments = ["--config=my.yaml", "--gin_file=tiny.gin", "--gin_search_paths=mine"]
    small = [option for option in TINY if "n_layers" not in option and "d_ff" not in option]
    run(*arguments, *small, "--max_steps=1", "--run_dir=out", cwd=tmp_path, check=0)
    config = yaml_of(tmp_path / "out" / "config.yaml")
    assert (config["n_layers"], config["d_ff"]) == (2, 24)


def test_the_documented_fast_training_is_a_config_by_name(tmp_path):
    run("--config=fast-training.yaml", "--max_steps=1", "--run_dir=out", cwd=tmp_path, check=0)
    own = yaml_of(PROJECT / "configs" / "fast-training.yaml")
    assert own.pop("extends") == "default.yaml"
    recorded = yaml_of(tmp_path / "out" / "config.yaml")
    assert {key: recorded[key] for key in own} == {**own, "max_steps": 1}


def wait_for_step(process, path, step):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"no step {step}: {process.communicate()}")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.exhaustive)],
)
def test_interrupted_at_a_random_step_and_resumed_the_weights_are_equal(tmp_path, number, code):
    seed = random.SystemRandom().randrange(2**31)
    options = [*TINY, "--max_steps=600", f"--gin.Trainer.seed={seed}", "--resume"]
    process = start(*options, "--run_dir=pieces", cwd=tmp_path)
    wait_for_step(process, tmp_path / "pieces" / "metrics.jsonl", 1)
    time.sleep(random.SystemRandom().uniform(0, 0.4))
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    (step,) = re.findall(r"stopped after step (\d+), which is saved", errors)
    assert "Traceback" not in errors
    assert 1 <= int(step) < 600
    assert len(metrics(tmp_path / "pieces")) == int(step)
    assert manifest(tmp_path / "pieces")["outcome"] == f"stopped by {number.name}"

    run(*options, "--run_dir=pieces", cwd=tmp_path, check=0)
    run(*options, "--run_dir=straight", cwd=tmp_path, check=0)
    for name in ("model", "optimizer"):
        last = f"checkpoints/step-00000600/{name}.safetensors"
        assert (tmp_path / "pieces" / last).read_bytes() == (
            tmp_path / "straight" / last
        ).read_bytes()
    assert metrics(tmp_path / "pieces") == metrics(tmp_path / "straight")
    assert manifest(tmp_path / "pieces")["outcome"] == "completed"
    assert manifest(tmp_path / "pieces")["resumed"][0]["step"] == int(step)


def test_ctrl_c_while_the_program_is_being_imported_ends_it_without_a_traceback(tmp_path):
    (tmp_path / "absl.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = run("--help", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.exhaustive
def test_a_killed_run_is_resumed_with_a_seed_that_was_drawn(tmp_path):
    options = [*TINY, "--max_steps=400", "--gin.Trainer.checkpoint_cadence=20", "--resume"]
    process = start(*options, "--run_dir=out", cwd=tmp_path)
    wait_for_step(process, tmp_path / "out" / "metrics.jsonl", 60)
    process.kill()
    process.communicate()
    seed = yaml_of(tmp_path / "out" / "config.yaml")["seed"]
    assert manifest(tmp_path / "out")["outcome"] == "running"
    done = run(*options, "--run_dir=out", cwd=tmp_path, check=0)
    assert re.search(r"going on after step \d+", done.stdout)
    straight = [o for o in options if o != "--resume"]
    run(*straight, f"--gin.Trainer.seed={seed}", "--run_dir=straight", cwd=tmp_path, check=0)
    last = "checkpoints/step-00000400/model.safetensors"
    assert (tmp_path / "out" / last).read_bytes() == (tmp_path / "straight" / last).read_bytes()
    assert metrics(tmp_path / "out") == metrics(tmp_path / "straight")


def test_resume_refuses_another_experiment_and_lists_the_differences(tmp_path):
    run(*TINY, "--max_steps=2", "--run_dir=out", cwd=tmp_path, check=0)
    changed = [o for o in TINY if "d_ff" not in o]
    arguments = ["--resume", "--run_dir=out", "--gin.Transformer.d_ff=48", "--gin.Trainer.seed=1"]
    before = (tmp_path / "out" / "metrics.jsonl").read_bytes()
    done = run(*changed, *arguments, "--max_steps=9", cwd=tmp_path, check=2)
    assert "d_ff: 32 in the run, 48 now (--gin_bindings)" in done.stderr
    assert re.search(r"seed: \d+ in the run, 1 now", done.stderr)
    assert "max_steps" not in done.stderr
    assert (tmp_path / "out" / "metrics.jsonl").read_bytes() == before


def test_resume_warns_when_the_numbers_will_not_be_the_same_to_the_bit(tmp_path):
    options = [*TINY, "--run_dir=out", "--resume"]
    run(*options, "--max_steps=2", cwd=tmp_path, check=0, OMP_NUM_THREADS="1")
    other = run(*options, "--max_steps=4", cwd=tmp_path, check=0, OMP_NUM_THREADS="2")
    assert "warning: " in other.stderr
    assert "threads 1 then, 2 now" in other.stderr


@pytest.mark.parametrize("place", ["module", "hook"])
def test_code_that_ends_the_program_does_not_look_like_success(tmp_path, place):
    hook = (
        "from lm_core.hooks import UpdateHook, update_hook\n\n\n"
        '@update_hook("leaving")\nclass Leaving(UpdateHook):\n'
        "    def on_updates(self, updates, key):\n"
        "        raise SystemExit(0)\n"
    )
    (tmp_path / "leaving.py").write_text(hook if place == "hook" else "raise SystemExit(0)\n")
    hooks = "--gin_bindings=Trainer.hooks = {'update': [{'name': 'leaving'}]}"
    options = [*TINY, "--max_steps=2", "--allow_gin_import=leaving", hooks]
    done = run(*options, cwd=tmp_path, check=1 if place == "hook" else 2)
    assert "SystemExit" in done.stderr


def test_resume_passes_over_a_damaged_checkpoint(tmp_path):
    options = [*TINY, "--gin.Trainer.checkpoint_cadence=2", "--run_dir=out", "--resume"]
    run(*options, "--max_steps=4", cwd=tmp_path, check=0)
    damaged = tmp_path / "out" / "checkpoints" / "step-00000004" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    done = run(*options, "--max_steps=6", cwd=tmp_path, check=0)
    assert "warning: " in done.stderr
    assert "step-00000004/model.safetensors" in done.stderr
    assert "going on after step 2" in done.stdout
    assert [row["step"] for row in metrics(tmp_path / "out")] == [1, 2, 3, 4, 5, 6]


def test_a_hook_of_ones_own_needs_the_flag_and_then_works(tmp_path):
    (tmp_path / "my_hooks.py").write_text(
        "from lm_core.hooks import UpdateHook, update_hook\n\n\n"
        '@update_hook("zero")\nclass Zero(UpdateHook):\n'
        "    def on_updates(self, updates, key):\n"
        "        return {name: update * 0 for name, update in updates.items()}\n"
    )
    hooks = "--gin_bindings=Trainer.hooks = {'update': [{'name': 'zero'}]}"
    options = [*TINY, hooks, "--max_steps=3", "--run_dir=out", "--gin.Trainer.checkpoint_cadence=1"]
    done = run(*options, cwd=tmp_path, check=2)
    assert "Trainer.hooks.update[0].name: 'zero' is an unknown update hook" in done.stderr
    assert "--allow_gin_import" in done.stderr
    run(*options, "--allow_gin_import=my_hooks", cwd=tmp_path, check=0)
    folder = tmp_path / "out" / "checkpoints"
    first, last = (folder / f"step-0000000{n}" / "model.safetensors" for n in (1, 3))
    assert first.read_bytes() == last.read_bytes()


def test_divergence_ends_with_its_own_exit_code(tmp_path):
    options = [*TINY, "--gin.Trainer.learning_rate=1e30", "--max_steps=50", "--run_dir=out"]
    done = run(*options, cwd=tmp_path, check=3)
    assert "error: training diverged at step" in done.stderr
    assert "Traceback" not in done.stderr
    assert manifest(tmp_path / "out")["outcome"] == "diverged"


@pytest.mark.exhaustive
@pytest.mark.skipif(
    not os.environ.get("LM_CORE_TINYSHAKESPEARE"),
    reason="the environment variable LM_CORE_TINYSHAKESPEARE names no text",
)
def test_the_default_hyperparameters_learn_shakespeare_in_300_steps(tmp_path):
    corpus = f"--corpus={os.environ['LM_CORE_TINYSHAKESPEARE']}"
    options = [corpus, "--max_steps=300", "--run_dir=out"]
    run(*options, cwd=tmp_path, check=0, timeout=1800)
    assert metrics(tmp_path / "out")[-1]["val_loss"] < 2.5


@pytest.mark.parametrize("options", [(), ("-u",)])
def test_a_run_whose_reader_goes_away_is_completed(tmp_path, options):
    command = [sys.executable, *options, str(RUN), *TINY, "--max_steps=9", "--run_dir=out"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert manifest(tmp_path / "out")["outcome"] == "completed"
    assert len(metrics(tmp_path / "out")) == 9
