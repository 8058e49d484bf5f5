import errno
import importlib
import json
import shutil
from dataclasses import replace

import pytest

from lm_core import examination, experiment, record, resumption
from lm_core.errors import InputError, MachineError
from lm_core.run_lock import RunLock
from lm_core.training.trainer import Trainer
from tests.tiny_run import looking_at, request


def train(path, max_steps, resume=True):
    experiment.train(request(path, resume=resume, Trainer__max_steps=max_steps))


def manifest(path):
    return json.loads((path / "run" / "manifest.json").read_text())


def max_steps_of(path):
    texts = [(path / "run" / name).read_text() for name in ("config.yaml", "config.gin")]
    return [int(text.split("max_steps", 1)[1].lstrip(": =").split(maxsplit=1)[0]) for text in texts]


@pytest.mark.parametrize("name", ["config.yaml", "config.gin"])
def test_after_a_kill_between_the_two_forms_of_the_record_they_agree_again(
    tmp_path, monkeypatch, name
):
    train(tmp_path, 2)
    replace_file = record.replace_file

    def killed(path, data):
        if path.name == name:
            raise KeyboardInterrupt
        replace_file(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(record, "replace_file", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, 3)
    train(tmp_path, 3)
    assert max_steps_of(tmp_path) == [3, 3]


@pytest.mark.parametrize("name", ["config.yaml", "config.gin"])
def test_a_disk_that_is_full_while_the_record_changes_is_told_and_nothing_is_lost(
    tmp_path, monkeypatch, name
):
    train(tmp_path, 2)
    replace_file = record.replace_file

    def full(path, data):
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_file(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(record, "replace_file", full)
        words = f"run/{name} cannot be written: No space left.*; when .* goes on after step 2"
        with pytest.raises(MachineError, match=words):
            train(tmp_path, 3)
    assert manifest(tmp_path)["outcome"] == "failed"
    assert manifest(tmp_path)["reason"].startswith(
        f"{tmp_path}/run/{name} cannot be written: No sp"
    )
    train(tmp_path, 3)
    assert max_steps_of(tmp_path) == [3, 3]


@pytest.mark.parametrize(
    ("is_done", "message"),
    [
        (True, "just made .*/run; the same command, given again, goes on with it"),
        (False, "/run is being written by process [0-9]+ "),
    ],
)
def test_of_two_that_found_no_run_and_start_it_the_later_is_told_about_the_first(
    tmp_path, monkeypatch, is_done, message
):
    describe_world = experiment.describe_world

    with RunLock() as lock:

        def raced(*world):
            with monkeypatch.context() as patch:
                patch.setattr(experiment, "describe_world", describe_world)
                train(tmp_path, 2)
            if not is_done:
                lock.take(tmp_path / "run")
            return describe_world(*world)

        monkeypatch.setattr(experiment, "describe_world", raced)
        with pytest.raises(InputError, match=message):
            train(tmp_path, 2)
    assert manifest(tmp_path)["outcome"] == "completed"


def test_a_resume_that_changes_nothing_keeps_the_sources_in_the_record(tmp_path):
    train(tmp_path, 2)
    before = (tmp_path / "run" / "config.gin").read_bytes()
    assert b"# --gin_bindings" in before
    train(tmp_path, 2)
    assert (tmp_path / "run" / "config.gin").read_bytes() == before


def test_the_history_keeps_how_every_earlier_attempt_ended(tmp_path, monkeypatch):
    def interrupted(self, rows):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(record.RunDirectory, "append_metrics", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, 2)
    train(tmp_path, 2)
    train(tmp_path, 3)
    now = manifest(tmp_path)
    first, second = now["resumed"]
    assert first["before"]["outcome"] == "stopped at once"
    assert second["before"]["outcome"] == now["outcome"] == "completed"
    assert (second["step"], second["before"]["last_step"], now["last_step"]) == (2, 2, 3)
    assert None not in (first["before"]["end"], second["before"]["end"], now["end"])
    assert not {"outcome", "end", "last_step"} & (set(first) | set(second))
    assert now["start"] <= first["start"] <= second["start"] <= now["end"]


def test_a_history_of_long_command_lines_never_makes_a_manifest_that_is_not_read(tmp_path):
    for _ in range(9):
        asked = request(tmp_path, resume=True)
        experiment.train(replace(asked, command_line=("run.py", "x" * 500_000)))
        assert (tmp_path / "run" / "manifest.json").stat().st_size < 4 * 2**20
    resumed = manifest(tmp_path)["resumed"]
    assert 1 < len(resumed) < 8
    # The newest are there.
    assert resumed[-1]["start"] == max(entry["start"] for entry in resumed)


def test_a_kill_before_each_of_two_changes_of_the_record_does_no_harm(tmp_path, capsys):
    train(tmp_path, 2)
    config = tmp_path / "run" / "config.yaml"
    for max_steps in (3, 4):
        old = config.read_bytes()
        train(tmp_path, max_steps)
        # As if the process had ended after the manifest, before the configuration.
        config.write_bytes(old)
    train(tmp_path, 5)
    assert "going on after step 4" in capsys.readouterr().out
    assert max_steps_of(tmp_path) == [5, 5]


def test_other_code_in_a_module_of_hooks_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "test_brought_along.py"
    module.write_text("x = 1\n")
    importlib.import_module("test_brought_along")

    def train_with_module(max_steps):
        asked = request(tmp_path, resume=True, Trainer__max_steps=max_steps)
        config = replace(asked.config, allowed_imports=("test_brought_along",))
        experiment.train(replace(asked, config=config))
        return capsys.readouterr().err

    assert train_with_module(1) == ""
    assert train_with_module(2) == ""
    module.write_text("x = 2\n")
    told = train_with_module(3)
    assert "other code in modules than" in told
    assert "test_brought_along" in told
    assert train_with_module(4) == ""


def test_a_manifest_that_cannot_be_written_at_a_resume_says_how_to_go_on(tmp_path, monkeypatch):
    train(tmp_path, 2)

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record, "replace_file", full)
    with pytest.raises(MachineError, match=r"manifest.json .* --resume goes on after step 2"):
        train(tmp_path, 2)


def test_a_form_of_the_configuration_that_is_lost_is_written_again(tmp_path):
    train(tmp_path, 2)
    text = (tmp_path / "run" / "config.gin").read_bytes()
    (tmp_path / "run" / "config.gin").unlink()
    train(tmp_path, 2)
    assert (tmp_path / "run" / "config.gin").read_bytes() == text


def test_another_commit_of_the_lab_is_told(tmp_path, monkeypatch, capsys):
    commits = iter(["a" * 40, "b" * 40, "b" * 40])
    describe_world = experiment.describe_world

    def at_a_commit(*world):
        return {**describe_world(*world), "git": {"commit": next(commits), "dirty": False}}

    monkeypatch.setattr(experiment, "describe_world", at_a_commit)
    told = []
    for max_steps in (1, 2, 3):
        train(tmp_path, max_steps)
        told.append(capsys.readouterr().err)
    assert told[0] == told[2] == ""
    assert "another commit of the lab than" in told[1]
    assert "'bbb" in told[1]


@pytest.mark.parametrize(
    ("text", "bindings"),
    [
        # None of these texts could be trained on as the run is configured.
        ("é" * 5000, {}),
        ("short", {"Trainer__learning_rate": 0.1}),
        ("x" * 5000, {"Transformer__d_model": 1_000_000, "Trainer__max_steps": 1}),
    ],
)
def test_all_that_makes_it_another_experiment_is_told_before_anything_is_made_of_it(
    tmp_path, text, bindings
):
    train(tmp_path, 2)
    (tmp_path / "other.txt").write_text(text)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")}
    asked = {"load_corpus__path": str(tmp_path / "other.txt"), **bindings}
    with pytest.raises(InputError, match="cannot go on with another configuration") as error:
        experiment.train(request(tmp_path, resume=True, **{"Trainer__max_steps": 2, **asked}))
    lines = error.value.message.splitlines()[1:]
    keys = [name.split("__")[1] for name in bindings]
    told = {line.split(":")[0].strip() for line in lines[:-1]}
    assert told == set(keys)
    assert "other.txt is another one than before (SHA-256 " in lines[-1]
    assert {path: path.read_bytes() for path in before} == before


def test_lost_lines_are_told(tmp_path, capsys):
    train(tmp_path, 3)
    log = tmp_path / "run" / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[2:]))
    train(tmp_path, 4)
    warning = "run/metrics.jsonl: the lines of 2 earlier steps are lost"
    assert warning in capsys.readouterr().err


def test_lost_checkpoints_are_told_and_nothing_is_begun_anew(tmp_path, capsys):
    train(tmp_path, 3)
    train(tmp_path, 4)
    log, checkpoints = tmp_path / "run" / "metrics.jsonl", tmp_path / "run" / "checkpoints"
    # One that is damaged is told as that, and is not gone.
    (checkpoints / "step-00000004" / "state.json").write_text("")
    shutil.copytree(tmp_path, tmp_path.with_name("damaged"))
    train(tmp_path.with_name("damaged"), 5)
    told = capsys.readouterr().err
    assert "step-00000004/state.json has 0 bytes" in told
    assert "is gone" not in told
    shutil.rmtree(checkpoints / "step-00000004")
    train(tmp_path, 5)
    warning = f"{checkpoints / 'step-00000004'} is gone: the run goes on from an older one"
    assert warning in capsys.readouterr().err
    recorded = log.read_bytes()
    shutil.rmtree(checkpoints)
    with pytest.raises(MachineError, match="lost its checkpoints, that of step 5 among them: put"):
        train(tmp_path, 6)
    assert log.read_bytes() == recorded
    checkpoints.write_text("in the way")
    with pytest.raises(MachineError, match="run/checkpoints is no folder"):
        train(tmp_path, 6)


def test_a_record_that_has_been_changed_is_refused_in_every_mode(tmp_path):
    train(tmp_path, 2)
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("n_layers: 1", "n_layers: 2"))
    message = "run/config.yaml has been changed: it is not the configuration"
    with pytest.raises(InputError, match=message):
        train(tmp_path, 3)
    for mode in (examination.evaluate, examination.sample):
        with pytest.raises(InputError, match=message):
            mode(looking_at(tmp_path))


def test_a_run_that_never_saved_has_lost_no_checkpoint(tmp_path, capsys, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, 2)
    train(tmp_path, 2)
    assert "checkpoint" not in capsys.readouterr().err


def test_the_manifest_of_a_run_that_goes_on_says_from_where(tmp_path, monkeypatch):
    train(tmp_path, 2)
    seen = []
    train_step = Trainer.train_step

    def watched(self):
        seen.append({name: manifest(tmp_path)[name] for name in ("outcome", "last_step")})
        train_step(self)

    monkeypatch.setattr(Trainer, "train_step", watched)
    train(tmp_path, 3)
    assert seen == [{"outcome": "running", "last_step": 2}]


def test_the_history_keeps_the_newest_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(resumption, "_LONGEST_HISTORY", 3)
    for max_steps in range(1, 7):
        train(tmp_path, max_steps)
    assert [entry["step"] for entry in manifest(tmp_path)["resumed"]] == [3, 4, 5]


def test_what_an_interrupted_save_left_goes_when_the_run_goes_on(tmp_path):
    train(tmp_path, 1)
    checkpoints = tmp_path / "run" / "checkpoints"
    (checkpoints / ".step-00000009.writing").mkdir()
    train(tmp_path, 2)
    assert {path.name for path in checkpoints.iterdir()} == {"step-00000001", "step-00000002"}
