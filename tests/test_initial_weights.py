"""Runs that begin with the weights of another."""

import dataclasses
import json
import shutil

import pytest
import torch

from benchmarks import stateful_hooks  # noqa: F401 -- makes its hooks known
from lm_core import examination, experiment
from lm_core.config.resolution import ConfigSources, FileArgument
from lm_core.data.tokenizer import ByteTokenizer
from lm_core.errors import InputError, MachineError
from lm_core.initial_weights import load_initial_weights
from lm_core.record import RunDirectory
from lm_core.request import Request
from lm_core.training.checkpoint import load_checkpoint
from tests import tiny_run

TINY = {"Tokenizer__kind": "byte", "Trainer__device": "cpu"}
ROPE = {"Transformer__position": "rope"}


def begin(path, name="b", source="a", resume=False, **bindings):
    """A run in ``path/b`` that begins with the one in ``path/a``."""
    table = {**TINY, **bindings}
    if source is not None:
        table["load_initial_weights__init_from"] = str(path / source)
    asked = tiny_run.request(path, resume, **table)
    experiment.train(dataclasses.replace(asked, run_dir=path / name))
    return RunDirectory.open(path / name)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a run ``a``."""
    monkeypatch.chdir(tmp_path)
    begin(tmp_path, "a", source=None)
    return tmp_path


def weights(run, step):
    return load_checkpoint(run.checkpoints / f"step-{step:08d}").model


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def told(folder, **bindings):
    with pytest.raises(InputError) as caught:
        begin(folder, **bindings)
    return caught.value.message


def test_a_run_begins_where_the_other_has_come_to_and_goes_on_alone(folder):
    run = begin(folder, Trainer__learning_rate=1e-9)
    begun = RunDirectory.open(folder / "a")
    assert equal(weights(run, 0), weights(begun, 3))
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    (last,) = [json.loads(line) for line in begun.metrics.read_text().splitlines()][-1:]
    assert rows[0]["step"] == 1
    assert rows[-1]["val_loss"] == pytest.approx(last["val_loss"], rel=1e-5)
    record = run.manifest["init_from"]
    assert record["path"] == str(folder / "a")
    assert record["step"] == 3
    files = json.loads((begun.checkpoints / "step-00000003" / "checksums.json").read_text())
    assert record["sha256"] == files["files"]["model.safetensors"]["sha256"]
    assert f'init_from: "{folder / "a"}"' in (run.path / "config.yaml").read_text()


def test_a_single_checkpoint_may_be_meant(folder):
    begin(folder, "a2", source=None, Trainer__checkpoint_cadence=1)
    run = begin(folder, source="a2/checkpoints/step-00000002")
    assert equal(weights(run, 0), weights(RunDirectory.open(folder / "a2"), 2))


def test_the_result_of_a_run_that_may_stop_early_is_its_best_checkpoint(folder):
    early = {"Trainer__eval_cadence": 1, "Trainer__early_stopping_evaluations": 2}
    hot = {"Trainer__learning_rate": 3.0, "Trainer__max_steps": 9}
    best = begin(folder, "early", source=None, **early, **hot)
    state = load_checkpoint(sorted(best.checkpoints.iterdir())[-1]).state
    assert state["best_step"] < 9
    run = begin(folder, source="early")
    assert equal(weights(run, 0), weights(best, state["best_step"]))


def test_averaged_weights_are_what_a_run_begins_with_and_may_be_averaged_again(folder):
    average = {"Trainer__ema_decay": 0.9}
    begun = begin(folder, "averaged", source=None, **average)
    run = begin(folder, source="averaged", **average)
    assert equal(weights(run, 0), weights(begun, 3))
    shutil.rmtree(run.checkpoints / "step-00000003")
    before = run.metrics.read_text()
    run.update_manifest(saved_step=None)
    begin(folder, source="averaged", resume=True, **average)
    assert losses(before) == losses(run.metrics.read_text())


def losses(text):
    return [json.loads(line)["train_loss"] for line in text.splitlines()]


def test_what_differs_is_told_one_by_one_with_its_source(folder):
    message = told(
        folder,
        Transformer__d_ff=64,
        Transformer__norm="rmsnorm",
        Tokenizer__kind="ascii",
        Transformer__dropout=0.3,
    )
    first, *lines = message.splitlines()
    assert f"--config={folder / 'a' / 'config.yaml'}" in first
    assert lines == [
        "  d_ff: 32 there, 64 here (--gin_bindings)",
        "  norm: 'layernorm' there, 'rmsnorm' here (--gin_bindings)",
        "  tokenizer: 'byte' there, 'ascii' here (--gin_bindings)",
    ]
    assert not (folder / "b").exists()


def test_the_file_that_states_the_model_is_not_named_where_it_is_the_one_in_use(folder):
    asked = tiny_run.request(folder, Transformer__d_ff=64)
    source = {"load_initial_weights__init_from": str(folder / "a")}
    bindings = tiny_run.request(folder, **TINY, **source, Transformer__d_ff=64).config.bindings
    file = FileArgument("--config", "a/config.yaml")
    config = dataclasses.replace(asked.config, files=[file], bindings=bindings)
    with pytest.raises(InputError) as caught:
        experiment.train(dataclasses.replace(asked, config=config, run_dir=folder / "b"))
    first, second = caught.value.message.splitlines()
    assert first.endswith("than this configuration asks for; set these to what is there:")
    assert second == "  d_ff: 32 there, 64 here (--gin_bindings)"


def test_dropout_may_be_another_and_the_context_shorter(folder):
    run = begin(folder, Transformer__dropout=0.3, Transformer__max_seq_len=7)
    begun = weights(RunDirectory.open(folder / "a"), 3)
    positions = "position_embedding.weight"
    assert equal(weights(run, 0), begun | {positions: begun[positions][:7]})


def test_a_context_that_is_longer_needs_rotary_positions(folder):
    message = told(folder, Transformer__max_seq_len=17)
    assert "max_seq_len: 16 there, 17 here (--gin_bindings), and no more can be had" in message
    begin(folder, "rope", source=None, **ROPE)
    run = begin(folder, source="rope", Transformer__max_seq_len=40, **ROPE)
    assert load_checkpoint(run.checkpoints / "step-00000003").state["model"]["max_seq_len"] == 40


def test_the_tokenizer_is_the_other_s_whatever_the_text_has(folder):
    (folder / "one.txt").write_text("abcdefg " * 300)
    (folder / "two.txt").write_text("gfe bad " * 300)
    (folder / "three.txt").write_text("xyz " * 600)
    char = {"Tokenizer__kind": "char", "Trainer__sampling_cadence": None}
    begin(folder, "chars", source=None, load_corpus__path=str(folder / "one.txt"), **char)
    run = begin(folder, source="chars", load_corpus__path=str(folder / "two.txt"), **char)
    state = load_checkpoint(run.checkpoints / "step-00000003").state
    assert state["tokenizer"]["characters"] == " abcdefg"
    message = told(
        folder, name="c", source="chars", load_corpus__path=str(folder / "three.txt"), **char
    )
    assert "the char tokenizer has no 'x'" in message


def test_hooks_that_keep_something_begin_as_they_are_made(folder):
    looks = {"name": "faults_counts_looks", "sites": "embedding"}
    hooks = {"forward": [looks], "update": [{"name": "faults_running_mean"}]}
    kept = {"Trainer__hooks": hooks, "Trainer__seed": 5}
    whole = begin(folder, "whole", **kept)
    run = begin(folder, **kept)
    shutil.rmtree(run.checkpoints / "step-00000003")
    run.update_manifest(saved_step=None, outcome="running")
    examination.evaluate(Request(ConfigSources(), run_dir=run.path))
    begin(folder, resume=True, **kept)
    assert equal(weights(run, 3), weights(whole, 3))


def test_a_disk_that_is_full_at_the_start_is_how_the_run_ended(folder, monkeypatch):
    def fails(*arguments):
        raise MachineError("the disk is full")

    monkeypatch.setattr(experiment, "save_start", fails)
    with pytest.raises(MachineError, match="the disk is full; when that is mended, --resume"):
        begin(folder)
    manifest = RunDirectory.open(folder / "b").manifest
    assert (manifest["outcome"], manifest["reason"]) == ("failed", manifest["reason"])
    assert "the disk is full" in manifest["reason"]
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert begin(folder, resume=True).manifest["outcome"] == "completed"


def test_going_on_needs_the_source_no_more(folder):
    whole = begin(folder, "whole", Trainer__max_steps=4, Trainer__seed=5)
    begin(folder, Trainer__max_steps=2, Trainer__seed=5)
    (folder / "a").rename(folder / "gone")
    run = begin(folder, resume=True, Trainer__max_steps=4, Trainer__seed=5)
    assert equal(weights(run, 4), weights(whole, 4))
    record = RunDirectory.open(folder / "b").manifest
    assert record["init_from"]["path"] == str(folder / "a")
    assert record["resumed"][0]["init_from"] == record["init_from"]


def test_a_run_that_was_killed_before_its_first_checkpoint_reads_the_same_weights_again(folder):
    whole = begin(folder, "whole", Trainer__seed=5)
    run = begin(folder, Trainer__seed=5)
    for checkpoint in run.checkpoints.iterdir():
        shutil.rmtree(checkpoint)
    run.update_manifest(saved_step=None, outcome="running")
    begin(folder, resume=True, Trainer__seed=5)
    assert equal(weights(run, 3), weights(whole, 3))


def test_it_does_not_go_on_with_other_weights_than_it_began_with(folder):
    run = begin(folder)
    for checkpoint in run.checkpoints.iterdir():
        shutil.rmtree(checkpoint)
    run.update_manifest(saved_step=None, outcome="running")
    shutil.rmtree(folder / "a")
    begin(folder, "a", source=None, Trainer__seed=77)
    assert "has other weights than" in told(folder, resume=True)


def test_another_source_means_nothing_to_a_run_that_goes_on_and_is_told_so(folder, capsys):
    begin(folder, "other", source=None)
    begin(folder)
    capsys.readouterr()
    begin(folder, resume=True, Trainer__max_steps=4)
    assert "init_from" not in capsys.readouterr().err
    run = begin(folder, source="other", resume=True, Trainer__max_steps=5)
    warning = f"changes nothing in a run that began with {folder / 'a'}"
    assert warning in capsys.readouterr().err
    assert f'init_from: "{folder / "a"}"' in (run.path / "config.yaml").read_text()
    begin(folder, source=None, resume=True, Trainer__max_steps=6)
    assert "init_from" not in capsys.readouterr().err


def test_a_configuration_is_known_by_its_weights_wherever_they_lie(folder):
    first = begin(folder, Trainer__seed=5)
    (folder / "a").rename(folder / "moved")
    second = begin(folder, "c", source="moved", Trainer__seed=5)
    random = begin(folder, "d", source=None, Trainer__seed=5)
    assert first.manifest["config_hash"] == second.manifest["config_hash"]
    assert first.manifest["config_hash"] != random.manifest["config_hash"]
    assert "init_from" not in random.manifest


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "is no folder"),
        ("empty", "is no run directory: it has no config.yaml"),
        ("a/checkpoints", "is no run directory"),
    ],
)
def test_what_is_no_run_is_told_with_the_place_that_named_it(folder, source, message):
    (folder / "empty").mkdir()
    sentence = told(folder, source=source)
    assert message in sentence
    assert sentence.startswith("--gin_bindings: load_initial_weights.init_from: ")


def test_a_run_without_a_checkpoint_and_a_damaged_one_are_told(folder):
    begin(folder, "empty", source=None)
    for checkpoint in (folder / "empty" / "checkpoints").iterdir():
        shutil.rmtree(checkpoint)
    assert "holds no checkpoint yet" in told(folder, source="empty")
    file = folder / "a" / "checkpoints" / "step-00000003" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(MachineError, match=r"model.safetensors has .* bytes instead of"):
        begin(folder)


def test_without_gin_it_gives_what_a_program_needs(folder):
    assert load_initial_weights() is None
    found = load_initial_weights(str(folder / "a"))
    assert found.tokenizer == ByteTokenizer()
    assert found.arguments["d_model"] == 16
