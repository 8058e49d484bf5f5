"""A run directory, read: whole, or refused with a word about what is wrong with it."""

import json
import os
import threading

import numpy as np
import pytest

from lm_core.analysis.records import read_run
from lm_core.config.rendering import config_hash
from lm_core.errors import InputError
from lm_core.run_lock import RunLock
from tests.made_run import SHA256, amend_manifest, make_run
from tests.tiny_run import train


def test_a_run_of_the_lab_is_read_whole(tmp_path, monkeypatch):
    train(tmp_path, monkeypatch, Trainer__eval_cadence=2, Trainer__sampling_cadence=2)
    run = read_run(tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert run.steps.tolist() == [1, 2, 3]
    for name in rows[0]:
        assert run.column(name).tolist() == [row[name] for row in rows]
    assert np.isfinite(run.column("val_loss")).tolist() == [False, True, True]
    assert [sample["step"] for sample in run.samples] == [2, 3]
    assert run.values.d_model == 16
    assert run.sources["d_model"] == "--gin_bindings"
    assert run.manifest["outcome"] == "completed"
    assert run.is_held is False


def test_what_is_null_and_what_is_missing_is_not_a_number(tmp_path):
    path = make_run(tmp_path / "a", columns={"hook/x": [1.0, None, 3.0]})
    run = read_run(path)
    assert run.column("hook/x").tolist() == pytest.approx([1.0, np.nan, 3.0], nan_ok=True)
    assert np.isnan(run.column("never")).all()
    assert len(run.column("never")) == 3


def test_a_run_that_is_being_written_is_known_by_its_lock(tmp_path):
    path = make_run(tmp_path / "a")
    with RunLock() as lock:
        lock.take(path)
        assert read_run(path).is_held
    assert not read_run(path).is_held


def test_a_run_without_metrics_is_refused_unless_that_is_fine(tmp_path):
    path = make_run(tmp_path / "a", losses=())
    with pytest.raises(InputError, match=r"a has no metrics yet: metrics.jsonl is empty; wait"):
        read_run(path)
    assert len(read_run(path, needs_metrics=False).steps) == 0


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl"])
def test_a_file_that_is_missing_is_named(tmp_path, name):
    path = make_run(tmp_path / "a")
    (path / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        read_run(path)


def test_a_last_line_that_is_half_there_is_told_with_its_number(tmp_path):
    path = make_run(tmp_path / "a")
    metrics = path / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"metrics.jsonl:3: the last line is only half there; --r"):
        read_run(path)


def test_a_line_that_is_just_being_written_is_waited_for(tmp_path):
    path = make_run(tmp_path / "a")
    metrics = path / "metrics.jsonl"
    whole = metrics.read_bytes()
    metrics.write_bytes(whole[:-9])

    def finish():
        with metrics.open("ab") as stream:
            stream.write(whole[-9:])

    timer = threading.Timer(0.05, finish)
    timer.start()
    assert len(read_run(path).steps) == 3
    timer.join()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "metrics.jsonl:2: is no JSON object"),
        ('{"step": 2}, {"step": 3}', "metrics.jsonl:2: is no JSON object"),
        ("[2]", "metrics.jsonl:2: is no JSON object"),
        ('{"step": 2.5}', "metrics.jsonl:2: is no line of a later step"),
        ('{"step": true}', "metrics.jsonl:2: is no line of a later step"),
        ('{"train_loss": 1}', "metrics.jsonl:2: is no line of a later step"),
        ('{"step": 0}', "metrics.jsonl:2: is no line of a later step"),
        ('{"step": 1}', "a step has two lines"),
        ('{"step": 2, "train_loss": "low"}', "'train_loss' is not a number in every line"),
        ('{"step": 2, "train_loss": [1]}', "'train_loss' is not a number in every line"),
        ("[" * 100_000, "metrics.jsonl:2: is no JSON object"),
    ],
)
def test_a_damaged_line_is_refused(tmp_path, line, message):
    path = make_run(tmp_path / "a")
    metrics = path / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    metrics.write_text("\n".join([lines[0], line, lines[2]]) + "\n")
    with pytest.raises(InputError, match=message):
        read_run(path)


def test_metrics_that_are_no_text_are_refused(tmp_path):
    path = make_run(tmp_path / "a")
    (path / "metrics.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(InputError, match=r"metrics.jsonl is damaged: it is not UTF-8 text"):
        read_run(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system knows no pipes with a name")
def test_a_pipe_in_the_place_of_metrics_is_not_waited_for(tmp_path):
    path = make_run(tmp_path / "a")
    (path / "metrics.jsonl").unlink()
    os.mkfifo(path / "metrics.jsonl")
    with pytest.raises(InputError, match="is missing, or no file"):
        read_run(path)


def test_a_run_of_a_version_with_other_hyperparameters_is_told_as_such(tmp_path):
    path = make_run(tmp_path / "a")
    config = path / "config.yaml"
    config.write_text(config.read_text() + "n_experts: 8\n")
    amend_manifest(path, versions={"lm_core": "9.1"})
    with pytest.raises(InputError, match=r"n_experts: unknown.*; the run was made by version 9.1"):
        read_run(path)


def test_a_run_of_an_older_version_with_fewer_hyperparameters_is_read(tmp_path):
    path = make_run(tmp_path / "a")
    config = path / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith("z_loss")))
    table = read_run(make_run(tmp_path / "b")).values.to_dict()
    del table["z_loss"]
    amend_manifest(path, versions={}, config_hash=config_hash(table, SHA256))
    run = read_run(path)
    assert run.values.z_loss == 0.0
    assert len(run.steps) == 3


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no run directory"):
        read_run(tmp_path)
