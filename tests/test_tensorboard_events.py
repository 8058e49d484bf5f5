"""What TensorBoard shows of a run is what its record says."""

import errno
import html
import json
import math
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lm_core import experiment
from lm_core import tensorboard_events as module
from lm_core.config.hyperparameters import KEYS
from lm_core.errors import DivergenceError, InputError
from lm_core.record import COLUMNS
from lm_core.tensorboard_events import TAGS, TensorBoardEvents
from tests import tiny_run
from tests.event_reading import compared, curves, events_of, hyperparameters, metrics_of, status
from tests.event_reading import texts as texts_of
from tests.tiny_trainer import new_run, rows

OFTEN = {
    "Trainer__seed": 3,
    "Trainer__eval_cadence": 2,
    "Trainer__sampling_cadence": 2,
    "Sampler__max_length": 5,
    "Sampler__num_samples": 2,
    "split_corpus__train_ratio": 0.999,
    "Trainer__hooks": {"forward": [{"name": "activation_stats", "every": 1, "sites": "embedding"}]},
}


def trained(path, resume=False, tensorboard=True, **bindings):
    path.mkdir(exist_ok=True)
    request = tiny_run.request(path, resume=resume, **{**OFTEN, **bindings})
    experiment.train(replace(request, tensorboard=tensorboard))
    return path / "run"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("run"))


def assert_curves_are_the_record(run_dir):
    expected = {}
    for row in rows(run_dir / "metrics.jsonl"):
        for name, value in row.items():
            if name != "step" and value is not None:
                tag = TAGS.get(name, f"hooks/{name}")
                expected.setdefault(tag, []).append((row["step"], float(np.float32(value))))
    found = curves(run_dir)
    assert {tag: points for tag, points in found.items() if "final/" not in tag} == expected


def assert_texts_are_the_record(run_dir):
    expected = {}
    for row in rows(run_dir / "samples.jsonl"):
        expected.setdefault(f"samples/{row['sample']}", []).append((row["step"], row))
    found = texts_of(run_dir)
    assert list(found) == list(expected)
    for tag, wanted in expected.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in wanted]
        for (_, markdown), (_, row) in zip(found[tag], wanted, strict=True):
            assert blocks(markdown)[0] == row["prompt"]
            assert blocks(markdown)[2] == row["text"]


def blocks(markdown):
    return [body for _, body in re.findall(r"^(`{3,})\n(.*?)\n\1$", markdown, re.M | re.S)]


def test_every_number_of_the_record_is_in_a_curve(run_dir):
    assert_curves_are_the_record(run_dir)
    found = curves(run_dir)
    assert [step for step, _ in found["loss/train"]] == [1, 2, 3]
    assert [step for step, _ in found["loss/validation"]] == [2, 3]
    assert any(tag.startswith("hooks/") for tag in found)


def test_every_column_of_the_lab_has_a_tag():
    assert {"step", *TAGS} == set(COLUMNS)
    assert len(set(TAGS.values())) == len(TAGS)


def test_every_sample_is_there_with_its_prompt(run_dir):
    assert len(rows(run_dir / "samples.jsonl")) == 4
    assert_texts_are_the_record(run_dir)


def test_the_page_of_hyperparameters_compares_two_runs(tmp_path, run_dir):
    trained(tmp_path / "other", Trainer__learning_rate=0.01)
    (tmp_path / "one").symlink_to(run_dir.parent)
    # As `runs/latest` does: a run that is found twice is one row.
    (tmp_path / "latest").symlink_to("other")
    found = {hyperparameters(row)["learning_rate"]: row for row in compared(tmp_path)}
    assert set(found) == {3e-4, 0.01}
    assert len(compared(tmp_path)) == 2
    for row, path in ((found[3e-4], run_dir), (found[0.01], tmp_path / "other" / "run")):
        assert set(hyperparameters(row)) == set(KEYS)
        last = rows(path / "metrics.jsonl")[-1]
        metrics = metrics_of(row)
        assert metrics["final/validation_loss"] == pytest.approx(last["val_loss"])
        assert metrics["final/train_loss"] == pytest.approx(last["train_loss"])
        assert metrics["final/validation_bits_per_byte"] == pytest.approx(last["bits_per_byte"])


def test_hyperparameters_are_numbers_truths_and_texts(run_dir):
    (row,) = compared(run_dir.parent)
    found = hyperparameters(row)
    assert (found["n_layers"], found["tie_embeddings"]) == (1, True)
    assert (found["optimizer"], found["sampling_top_k"]) == ("adamw", "null")
    assert found["hooks"].startswith('{"forward": [{"name": "activation_stats"')
    assert status(row) == "STATUS_SUCCESS"


def test_the_best_loss_and_the_usual_speed_come_out(tmp_path):
    events, run = begun(tmp_path)
    losses, speeds = [3.0, 1.0, 2.0], [1.0, 90.0, 100.0]
    for step in range(3):
        row = {"step": step + 1, "val_loss": losses[step], "tokens_per_second": speeds[step]}
        events.metrics([row])
    events.ended("completed", 3)
    found = curves(run.path)
    assert found["final/best_validation_loss"] == [(3, 1.0)]
    assert found["final/validation_loss"] == [(3, 2.0)]
    assert found["final/tokens_per_second"] == [(3, 90.0)]


def begun(path, **hyperparameters):
    run = new_run(path / "run")
    return TensorBoardEvents(run, hyperparameters), run


def files(run_dir):
    return sorted((run_dir / "tensorboard").iterdir())


def test_a_run_that_goes_on_has_one_past_at_the_times_it_had(tmp_path):
    path = trained(tmp_path)
    before = {e.step: e.wall_time for e in events_of(path).Scalars("loss/train")}
    trained(tmp_path, resume=True, Trainer__max_steps=5)
    assert [bool(file.stat().st_size) for file in files(path)] == [False, True]
    assert_curves_are_the_record(path)
    assert_texts_are_the_record(path)
    after = {e.step: e.wall_time for e in events_of(path).Scalars("loss/train")}
    assert sorted(after) == [1, 2, 3, 4, 5]
    assert before.items() <= after.items()
    trained(tmp_path, resume=True, Trainer__max_steps=5)
    assert [bool(file.stat().st_size) for file in files(path)] == [False, True]
    (row,) = compared(tmp_path)
    assert hyperparameters(row)["max_steps"] == 5
    assert [step for step, _ in curves(path)["final/validation_loss"]] == [5]


def test_what_was_done_after_the_checkpoint_is_forgotten(tmp_path):
    path = trained(tmp_path)
    run = experiment.RunDirectory.open(path)
    TensorBoardEvents(run, {}).metrics([{"step": 4, "train_loss": 9.0}, {"step": 5, "lost": 9.0}])
    assert curves(path)["loss/train"][-1] == (4, 9.0)
    trained(tmp_path, resume=True, Trainer__max_steps=4)
    assert_curves_are_the_record(path)


def test_a_run_that_was_started_without_the_flag_has_whole_curves(tmp_path):
    path = trained(tmp_path, tensorboard=False)
    assert not (path / "tensorboard").exists()
    trained(tmp_path, resume=True, Trainer__max_steps=5)
    assert_curves_are_the_record(path)
    assert_texts_are_the_record(path)


def test_the_flag_changes_no_bit_of_the_weights(tmp_path, run_dir):
    trained(tmp_path, tensorboard=False)
    weights = "checkpoints/step-00000003/model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (run_dir / weights).read_bytes()


def test_a_run_that_diverges_is_on_the_page_as_failed(tmp_path):
    with pytest.raises(DivergenceError):
        trained(tmp_path, Trainer__learning_rate=1e38, Trainer__max_steps=50)
    (row,) = compared(tmp_path)
    assert status(row) == "STATUS_FAILURE"
    assert "final/train_loss" in metrics_of(row)


@pytest.mark.parametrize("outcome", ["stopped by SIGTERM", "stopped at once"])
def test_a_run_that_was_stopped_has_neither_failed_nor_succeeded(tmp_path, outcome):
    events, _ = begun(tmp_path)
    events.ended(outcome, 0)
    (row,) = compared(tmp_path)
    assert status(row) == "STATUS_UNKNOWN"
    assert row.sessions[0].end_time_secs > 0


def test_what_is_no_number_is_in_no_curve(tmp_path):
    events, run = begun(tmp_path)
    values = {"a": math.nan, "b": math.inf, "c": None, "d": 1e39, "e": "1", "f": True, "g": 10**400}
    events.metrics([{"step": 1, "train_loss": 1.0, **values}])
    assert curves(run.path) == {"loss/train": [(1, 1.0)]}


def test_an_integer_that_would_be_rounded_is_shown_as_text(tmp_path):
    begun(tmp_path, seed=2**63 - 1, sampling_seed=2**53, beta=0.5)
    (row,) = compared(tmp_path)
    found = hyperparameters(row)
    assert found == {"seed": str(2**63 - 1), "sampling_seed": 2**53, "beta": 0.5}


def test_half_characters_do_no_harm(tmp_path, capsys):
    events, run = begun(tmp_path, sampling_prompt="\ud800")
    events.metrics([{"step": 1, "\ud800": 1.0}])
    events.samples([{"step": 1, "sample": 0, "prompt": "\ud800", "text": "\ud800"}])
    assert curves(run.path) == {r"hooks/\ud800": [(1, 1.0)]}
    assert capsys.readouterr().err == ""


# TensorBoard brings a library along that warns of itself.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@given(st.text(alphabet="`~\n<>&*_#[]()!|-=: ab1\u00e9", max_size=60))
@example("a\n```\n# b\n````\n<b>c</b>")
def test_a_sample_is_shown_as_it_is_and_never_obeyed(text):
    from tensorboard import plugin_util

    page = plugin_util.markdown_to_safe_html(module._markdown({"prompt": text, "text": text}))
    shown = [html.unescape(code) for code in re.findall(r"<code>(.*?)\n</code>", page, re.S)]
    # Of a line of nothing but spaces, the renderer leaves the end.
    expected = re.sub("^ +$", "", text, flags=re.M)
    assert shown == [expected, "", expected]


def test_a_failure_is_told_once_and_training_goes_on(tmp_path, monkeypatch, capsys):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "append_whole", full)
    path = trained(tmp_path)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"warning: {path / 'tensorboard'}: events for TensorBoard cannot be written: "
        "No space left on device; training goes on without them"
    ]
    assert json.loads((path / "manifest.json").read_text())["outcome"] == "completed"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_in_the_place_of_the_folder_is_left_alone(tmp_path, capsys, kind):
    path = trained(tmp_path, tensorboard=False)
    (tmp_path / "elsewhere").mkdir()
    place = path / "tensorboard"
    place.write_text("mine") if kind == "file" else place.symlink_to(tmp_path / "elsewhere")
    capsys.readouterr()
    trained(tmp_path, resume=True, Trainer__max_steps=4)
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"warning: {place}: events for TensorBoard cannot be written: ")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert len(rows(path / "metrics.jsonl")) == 4


def test_an_error_in_the_package_is_a_failure_like_any_other(tmp_path, monkeypatch, capsys):
    events, _ = begun(tmp_path)
    monkeypatch.setattr(events._format, "scalars", lambda *arguments: 1 / 0)
    events.metrics([{"step": 1, "train_loss": 1.0}])
    events.metrics([{"step": 2, "train_loss": 1.0}])
    (told,) = capsys.readouterr().err.splitlines()
    assert "ZeroDivisionError" in told


def test_files_of_others_in_the_folder_stay(tmp_path):
    path = trained(tmp_path)
    other = path / "tensorboard" / "events.out.tfevents.1.somebody"
    other.write_bytes(b"")
    trained(tmp_path, resume=True, Trainer__max_steps=4)
    assert other.exists()


@pytest.mark.parametrize("kind", ["link", "copy"])
def test_a_file_that_is_somebody_s_too_keeps_its_content(tmp_path, kind):
    path = trained(tmp_path)
    (file,) = files(path)
    other = tmp_path / "other"
    file.rename(other)
    file.symlink_to(other) if kind == "link" else file.hardlink_to(other)
    content = other.read_bytes()
    trained(tmp_path, resume=True, Trainer__max_steps=4)
    assert other.read_bytes() == content
    assert_curves_are_the_record(path)


def test_a_damaged_file_costs_no_more_than_times(tmp_path):
    path = trained(tmp_path)
    (file,) = (path / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:500] + b"\xff" * 100)
    trained(tmp_path, resume=True, Trainer__max_steps=4)
    assert_curves_are_the_record(path)


def test_a_missing_package_is_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_core.event_files", None)
    monkeypatch.delattr("lm_core.event_files", raising=False)
    with pytest.raises(InputError, match=r"pip install -c constraints.txt -e '\.\[tensorboard\]'"):
        trained(tmp_path)
    assert not (tmp_path / "run").exists()
