"""The wiring, called as the command line calls it but in this process."""

import json
import math
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lm_core import examination, experiment
from lm_core.errors import DivergenceError, InputError, MachineError, StoppedAtOnce
from lm_core.hooks import ForwardHook, UpdateHook, forward_hook, update_hook
from lm_core.record import RunDirectory
from lm_core.sampling import printable
from lm_core.training import signals
from lm_core.training.checkpoint import load_checkpoint, save_checkpoint
from lm_core.training.checkpoint_folder import list_checkpoints
from lm_core.training.signals import stop_at_once_on_signals
from lm_core.training.trainer import Trainer
from tests.tiny_run import looking_at, request


@forward_hook("test_growing")
class Growing(ForwardHook):
    """Scales activations by the number of training passes it has seen."""

    in_evaluation = True

    def __init__(self):
        self.passes = torch.zeros(())

    def on_activations(self, site, activations, context):
        if context.training:
            self.passes = self.passes + 1
        return activations * (1 + self.passes)

    def state(self):
        return {"passes": self.passes}

    def load_state(self, state):
        self.passes = state["passes"]


def validation_loss(output):
    return re.findall(r"validation loss: (.*)", output)[-1]


def test_evaluation_and_samples_see_what_hooks_remember(tmp_path, capsys):
    hooks = {"forward": [{"name": "test_growing", "sites": "final_norm"}]}
    experiment.train(request(tmp_path, Trainer__hooks=hooks, Trainer__sampling_cadence=3))
    trained = capsys.readouterr().out
    examination.evaluate(looking_at(tmp_path))
    assert validation_loss(capsys.readouterr().out) == validation_loss(trained)
    examination.sample(looking_at(tmp_path))
    recorded = json.loads((tmp_path / "run" / "samples.jsonl").read_text())
    assert capsys.readouterr().out == recorded["text"]


def test_several_samples_are_told_and_recorded_each_with_its_number(tmp_path, capsys):
    settings = {"Trainer__sampling_cadence": 3, "Sampler__num_samples": 2}
    experiment.train(request(tmp_path, **settings, Sampler__max_length=5))
    told = capsys.readouterr().out
    lines = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    assert [json.loads(line)["sample"] for line in lines] == [0, 1]
    for index, text in enumerate(texts):
        assert f"sample {index}:\n{printable(text)}\n" in told


def test_a_run_on_a_folder_says_how_much_was_found_in_it(tmp_path, capsys):
    (tmp_path / "text").mkdir()
    for name in ("a", "b"):
        (tmp_path / "text" / f"{name}.txt").write_text("a text of a line\n" * 300)
    path = str(tmp_path / "text")
    experiment.train(request(tmp_path, load_corpus__path=path))
    assert f"corpus: {path}, 10,200 bytes in 2 files\n" in capsys.readouterr().out


def test_a_lack_of_memory_says_what_needs_less(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "train", lambda self, *arguments: torch.empty(10**15))
    with pytest.raises(MachineError, match=r"batch_size need less .*DefaultCPUAllocator"):
        experiment.train(request(tmp_path))


def test_a_text_too_short_to_evaluate_on_says_how_long_it_must_be(tmp_path):
    experiment.train(request(tmp_path))
    (tmp_path / "short.txt").write_text("abc")
    with pytest.raises(ValueError, match=r"short.txt has 3 tokens; one window of .* needs 17"):
        examination.evaluate(looking_at(tmp_path, str(tmp_path / "short.txt")))


@pytest.mark.parametrize("moment", ["the run is made", "the run goes on", "its record changes"])
def test_a_signal_that_meets_the_record_is_obeyed_once_its_end_can_be_recorded(
    tmp_path, monkeypatch, moment
):
    if moment != "the run is made":
        experiment.train(request(tmp_path))
    stop_at_once_on_signals()
    rename, update = Path.rename, RunDirectory.update_manifest

    def signalled_rename(self, target):
        os.kill(os.getpid(), signal.SIGTERM)
        return rename(self, target)

    def signalled_update(self, **fields):
        if ("config_hash" if moment == "its record changes" else "outcome") in fields:
            os.kill(os.getpid(), signal.SIGTERM)
        update(self, **fields)

    monkeypatch.setattr(Path, "rename", signalled_rename)
    monkeypatch.setattr(RunDirectory, "update_manifest", signalled_update)
    with pytest.raises(StoppedAtOnce) as error:
        experiment.train(request(tmp_path, resume=True, Trainer__max_steps=5))
    assert error.value.exit_code == 143
    manifest = RunDirectory(tmp_path / "run").manifest
    assert manifest["outcome"] == "stopped at once by SIGTERM"
    if moment == "the run is made":
        assert manifest["reason"] == "nothing was saved"
    else:
        assert manifest["reason"] == "nothing was saved after step 3"
        assert [start["before"]["outcome"] for start in manifest["resumed"]] == ["completed"]
    assert manifest["end"] is not None


def test_two_signals_while_a_resume_is_recorded_do_not_keep_its_end_out_of_the_record(
    tmp_path, monkeypatch
):
    experiment.train(request(tmp_path))
    monkeypatch.setattr(signals, "SECONDS_OF_ONE_REQUEST", 0.0)
    stop_at_once_on_signals()
    update, pending = RunDirectory.update_manifest, [signal.SIGINT] * 2

    def signalled(self, **fields):
        update(self, **fields)
        while pending:
            os.kill(os.getpid(), pending.pop())

    monkeypatch.setattr(RunDirectory, "update_manifest", signalled)
    with pytest.raises(StoppedAtOnce):
        experiment.train(request(tmp_path, resume=True, Trainer__max_steps=5))
    manifest = RunDirectory(tmp_path / "run").manifest
    assert (manifest["outcome"], pending) == ("stopped at once by SIGINT", [])


def test_a_complete_run_stays_complete_when_a_look_at_it_fails(tmp_path):
    experiment.train(request(tmp_path))
    (tmp_path / "copy").hardlink_to(tmp_path / "run" / "metrics.jsonl")
    with pytest.raises(MachineError, match=r"metrics.jsonl is a hard link"):
        experiment.train(request(tmp_path, resume=True))
    manifest = RunDirectory(tmp_path / "run").manifest
    assert manifest["outcome"] == "completed"
    assert "is a hard link" in manifest["reason"]


def test_two_signals_while_the_end_is_recorded_do_not_keep_it_out_of_the_record(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(signals, "SECONDS_OF_ONE_REQUEST", 0.0)
    stop_at_once_on_signals()
    update, pending = RunDirectory.update_manifest, [signal.SIGINT] * 2

    def signalled(self, **fields):
        while "end" in fields and pending:
            os.kill(os.getpid(), pending.pop())
        update(self, **fields)

    monkeypatch.setattr(RunDirectory, "update_manifest", signalled)
    with pytest.raises(StoppedAtOnce):
        experiment.train(request(tmp_path))
    assert pending == []
    assert RunDirectory(tmp_path / "run").manifest["outcome"] == "completed"


@update_hook("test_wrong_in_step_two")
class WrongInStepTwo(UpdateHook):
    def on_gradients(self, gradients, key):
        return 3 if key.step == 2 else None


def test_a_hook_that_ends_a_run_on_the_way_is_no_end_of_it(tmp_path):
    hooks = {"update": [{"name": "test_wrong_in_step_two"}]}
    settings = {"Trainer__hooks": hooks, "Trainer__checkpoint_cadence": 1}
    with pytest.raises(
        InputError, match=r"hooks.update\[0\].* a int; .* --resume goes on after step 1"
    ):
        experiment.train(request(tmp_path, **settings))


def test_weights_that_give_no_loss_are_no_result(tmp_path):
    experiment.train(request(tmp_path))
    (_, path), *_ = list_checkpoints(tmp_path / "run" / "checkpoints")
    checkpoint = load_checkpoint(path)
    checkpoint.model["final_norm.bias"][0] = math.nan
    save_checkpoint(path.parent, checkpoint)
    with pytest.raises(DivergenceError, match=r"of step 3 gives no finite loss on .*, but nan"):
        examination.evaluate(looking_at(tmp_path))


def test_the_name_of_the_link_to_the_newest_run_is_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="runs/latest is the link to the newest run, and there is"):
        experiment.train(replace(request(tmp_path), run_dir=Path("runs/latest"), resume=True))
    assert not (tmp_path / "runs").exists()
    experiment.train(replace(request(tmp_path), run_dir=Path("runs/a")))
    experiment.train(
        replace(request(tmp_path, Trainer__max_steps=4), run_dir=Path("runs/latest"), resume=True)
    )
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"a", "latest"}


def test_two_runs_of_the_same_second_take_two_names(tmp_path, monkeypatch, capsys):
    names = [tmp_path / "runs" / name for name in ("a", "a", "a-2")]
    monkeypatch.setattr(experiment, "default_run_path", lambda name: names.pop(0))
    unnamed = replace(request(tmp_path), run_dir=None)
    experiment.train(unnamed)
    experiment.train(unnamed)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"a", "a-2"}
    assert f"run directory: {tmp_path / 'runs' / 'a-2'}" in capsys.readouterr().out


def test_where_no_run_can_be_made_none_is_tried_for_ever(tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("in the way")
    monkeypatch.setattr(experiment, "default_run_path", lambda name: tmp_path / "runs" / "a")
    with pytest.raises(InputError, match="cannot be made: a file is in the place"):
        experiment.train(replace(request(tmp_path), run_dir=None))
