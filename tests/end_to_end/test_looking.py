"""Looking at configurations from the command line, in processes of their own."""

import json
import re

import pytest

from lm_core.config.hyperparameters import KEYS
from tests.end_to_end.command_line import PROJECT, TINY, run


@pytest.fixture
def folder(tmp_path):
    """A working directory in which neither PyTorch nor Numba can be imported."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "torch.py").write_text("raise SystemExit('PyTorch was imported')")
    (folder / "numba.py").write_text("raise SystemExit('Numba was imported')")
    return folder


def quick(*arguments, cwd, check):
    return run(*arguments, cwd=cwd, check=check, PYTHONPATH=str(cwd))


def contents(folder):
    return sorted(path.name for path in folder.rglob("*") if path.name != "__pycache__")


def test_a_configuration_is_shown_without_loading_pytorch_and_nothing_is_written(folder):
    before = contents(folder)
    done = quick("--mode=config", "--gin.Transformer.n_layers=6", cwd=folder, check=0)
    assert re.search(r"^\*    n_layers +6 +4 +--gin_bindings$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith(f"1 of {len(KEYS)} values differ from the default (*)\n")
    assert done.stderr == ""
    assert contents(folder) == before


def test_hooks_are_checked_against_the_model_without_loading_the_compiler_of_pytorch(tmp_path):
    # The compiler takes as long to load as PyTorch itself; sympy is the first that it needs.
    (tmp_path / "sympy.py").write_text("raise SystemExit('the compiler was loaded')")
    hooks = {"forward": [{"name": "ablate_heads", "heads": [9]}]}
    binding = f"--gin_bindings=Trainer.hooks = {hooks}"
    done = quick("--mode=config", binding, cwd=tmp_path, check=2)
    assert "hooks.forward[0].heads: the model has no head 9" in done.stderr


def test_a_mistake_is_told_without_loading_pytorch_in_every_mode(folder):
    (folder / "my.yaml").write_text("n_layer: 3\n")
    told = "error: my.yaml:1: n_layer: unknown hyperparameter; did you mean n_layers?\n"
    for mode in ("train", "config", "plan"):
        done = quick(f"--mode={mode}", "--config=my.yaml", cwd=folder, check=2)
        assert (done.stdout, done.stderr) == ("", told)
    done = quick("--mode=diff", "my.yaml", "default.yaml", cwd=folder, check=2)
    assert (done.stdout, done.stderr) == ("", told)


def test_two_files_are_compared_without_loading_pytorch(folder):
    arguments = ["--mode=diff", "default.yaml", "small-model.yaml", "--format=json"]
    found = json.loads(quick(*arguments, cwd=folder, check=0).stdout)
    assert found["hyperparameters"]["n_layers"]["left"]["value"] == 4
    assert found["hyperparameters"]["n_layers"]["right"]["value"] == 2
    assert found["runs"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode=diff"], "configuration files, named without a flag, not 0"),
        (["--mode=diff", "a"], "configuration files, named without a flag, not 1"),
        (["--mode=diff", "a", "b", "c"], "configuration files, named without a flag, not 3"),
        (["--mode=diff", "a", "b", "--config=c"], "--config does not apply to --mode=diff"),
        (["--mode=diff", "nope", "default.yaml"], "'nope' is neither a run directory nor a"),
        (["--mode=diff", "a", "b", "--format=gin"], "--format=gin does not apply to --mode=diff"),
        (["--mode=diff", "--config=a.yaml"], "--config does not apply to --mode=diff"),
        (["--mode=diff", "base.gin", "fast-trainin"], "did you mean fast-training.yaml?"),
        (["--mode=config", "stray"], "'stray' belongs to no flag"),
        (["--mode=config", "--resume"], "--resume does not apply to --mode=config"),
        (["--mode=config", "--log_config=all"], "--log_config does not apply to --mode=config"),
        (["--mode=config", "--run_dir=nope"], "nope is no run directory: there is no such folder"),
        (["--mode=plan", "--run_dir=x"], "--run_dir does not apply to --mode=plan"),
        (["--mode=plan", "--format=yaml"], "--format=yaml does not apply to --mode=plan"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_a_flag_that_would_do_nothing_is_refused(folder, arguments, message):
    done = quick(*arguments, cwd=folder, check=2)
    assert message in done.stderr
    assert done.stdout == ""


def test_a_default_file_of_that_name_in_the_working_directory_is_not_taken(folder):
    (folder / "base.gin").write_text("Transformer.n_layers = 9\n")
    (folder.parent / "configs").mkdir()
    (folder.parent / "configs" / "default.yaml").write_text("n_layers: 8\n")
    done = quick("--mode=config", "--format=json", cwd=folder, check=0)
    found = json.loads(done.stdout)["hyperparameters"]["n_layers"]
    assert found["value"] == 4
    lines = (PROJECT / "configs" / "default.yaml").read_text().splitlines()
    line = 1 + next(i for i, text in enumerate(lines) if text.startswith("n_layers:"))
    assert found["source"].endswith(f"configs/default.yaml:{line}")


def test_a_run_logs_its_configuration_with_sources_and_its_hash_names_it(tmp_path):
    first = ["--config=fast-training.yaml", *TINY, "--gin.Trainer.seed=3", "--max_steps=2"]
    done = run(*first, "--run_dir=first", cwd=tmp_path, check=0)
    name = json.loads((tmp_path / "first" / "manifest.json").read_text())["config_hash"]
    lines = done.stdout.splitlines()
    (head,) = [line for line in lines if line.startswith(f"configuration {name}: ")]
    assert head.endswith(f" of {len(KEYS)} values differ from the default")
    logged = lines[lines.index(head) + 1 :]
    assert "  n_layers: 1 (--gin_bindings)" in logged
    assert "  max_steps: 2 (--max_steps)" in logged
    (rate,) = [line for line in logged if line.startswith("  learning_rate: 0.002 (")]
    assert "configs/fast-training.yaml:" in rate
    assert not any(line.startswith("  beta1: ") for line in logged)
    again = ["--gin_file=first/config.gin", "--run_dir=again", "--log_config=all"]
    done = run(*again, cwd=tmp_path, check=0)
    assert f"configuration {name}: " in done.stdout
    assert "  beta1: 0.9 (first/config.gin:" in done.stdout


def test_a_plan_of_the_command_line_is_made_of_the_configuration_that_is_given(tmp_path):
    done = run("--mode=plan", *TINY, "--max_steps=3", "--format=json", cwd=tmp_path, check=0)
    plan = json.loads(done.stdout)
    assert plan["run"]["tokens"] == 3 * 4 * 16
    assert contents(tmp_path) == []
