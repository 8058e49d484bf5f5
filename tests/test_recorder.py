import math

import pytest
import torch

from lm_core.errors import MachineError
from lm_core.training import recorder as module
from lm_core.training.recorder import Recorder
from lm_core.training.run_state import RunState
from tests.tiny_checkpoint import make
from tests.tiny_trainer import Shown, new_run, rows, saved_steps


def begun(path, **settings):
    run, shown = new_run(path / "run"), Shown()
    recorder = Recorder(**{"keep_checkpoints": 3, **settings})
    recorder.begin(run, shown)
    return recorder, run, shown


def row(step):
    return {"step": step, "train_loss": torch.tensor(1.5), "tokens_per_second": 9.0}


def test_metrics_wait_for_their_time_and_a_note_makes_it_come(tmp_path):
    recorder, run, shown = begun(tmp_path)
    recorder.add(row(1))
    assert [found["step"] for found in recorder.flush()] == [1]
    recorder.add(row(2))
    assert recorder.flush() == []
    assert [found["step"] for found in rows(run.metrics)] == [1]
    recorder.amend({"val_loss": 2.0}, 0.5)
    recorder.note("something")
    recorder.flush()
    assert rows(run.metrics)[-1] == {**row(2), "train_loss": 1.5, "val_loss": 2.0}
    assert (shown.steps, shown.notes) == ([1, 2], ["something"])


def test_the_time_of_looks_is_told_once_and_not_lost_where_it_waits(tmp_path):
    recorder, _, shown = begun(tmp_path)
    recorder.add(row(1))
    recorder.amend({"val_loss": 2.0}, 0.5)
    recorder.flush()
    for step in (2, 3):
        recorder.add(row(step))
        recorder.amend({}, 0.25)
        recorder.flush(force=step == 3)
    recorder.add(row(4))
    recorder.flush(force=True)
    assert shown.steps == [1, 3, 4]
    assert shown.seconds_of_looks == [0.5, 0.5, 0.0]


def test_the_time_of_looks_does_not_pile_up_where_nobody_watches():
    recorder = Recorder(None)
    recorder.begin(None, None)
    for step in range(1, 4):
        recorder.add(row(step))
        recorder.amend({}, 0.25)
        recorder.flush(force=True)
    shown = Shown()
    recorder.begin(None, shown)
    recorder.add(row(4))
    recorder.flush(force=True)
    assert shown.seconds_of_looks == [0.0]


def test_metrics_are_safe_before_the_checkpoint_of_their_step(tmp_path, monkeypatch):
    recorder, run, _ = begun(tmp_path)
    seen = []
    save = module.save_checkpoint

    def watched(folder, checkpoint):
        seen.append(rows(run.metrics)[-1]["step"])
        return save(folder, checkpoint)

    monkeypatch.setattr(module, "save_checkpoint", watched)
    for step in (1, 2, 3):
        recorder.add(row(step))
        recorder.save(make(step), RunState())
    assert seen == [1, 2, 3]
    assert recorder.saved_step == 3


@pytest.mark.parametrize(
    ("good_before", "words"),
    [
        (4, "the last good checkpoint is {3}"),
        (
            3,
            "the last good checkpoint is {2}; step-00000003 gave no finite loss (move it away to ",
        ),
        (
            2,
            "is {1}; the 2 after it, up to step-00000003, gave no finite loss (move them away to",
        ),
        (1, "the weights of {3} have given no finite loss, and no checkpoint is good"),
    ],
)
def test_a_checkpoint_is_good_once_its_weights_have_given_a_finite_loss(
    tmp_path, good_before, words
):
    recorder, run, _ = begun(tmp_path)
    paths = [run.checkpoints / f"step-0000000{step}" for step in range(4)]
    for step in (1, 2, 3):
        recorder.save(make(step), RunState())
    assert words.format(*paths) in recorder.good_checkpoint(good_before)


def test_a_run_that_goes_on_removes_what_is_superfluous_and_later_ones_once_it_has_saved(tmp_path):
    first, run, _ = begun(tmp_path)
    for step in range(1, 6):
        first.save(make(step), RunState())
    again = Recorder(2)
    # The fifth was passed over.
    again.go_on_from(4, RunState(best_validation_loss=1.0, best_step=1))
    again.begin(run, None)
    assert saved_steps(run) == [1, 2, 3, 4, 5]
    again.remove_superseded()
    assert saved_steps(run) == [1, 3, 4, 5]
    again.save(make(6), RunState(best_validation_loss=1.0, best_step=1))
    again.remove_superseded()
    assert saved_steps(run) == [1, 4, 6]


def test_a_damaged_checkpoint_that_is_saved_anew_is_damaged_no_more(tmp_path):
    first, run, _ = begun(tmp_path)
    for step in (2, 4, 6, 8):
        first.save(make(step), RunState())
    again = Recorder(1)
    again.go_on_from(6, RunState())
    again.begin(run, None)
    again.save(make(8), RunState())
    again.remove_superseded()
    assert saved_steps(run) == [8]


def test_the_manifest_knows_of_the_first_checkpoint_though_its_process_be_killed(tmp_path):
    recorder, run, _ = begun(tmp_path)
    assert run.manifest.get("saved_step") is None
    recorder.save(make(4), RunState())
    assert run.manifest["saved_step"] == 4


def test_a_sample_is_written_with_the_settings_of_its_sampler(tmp_path):
    recorder, run, shown = begun(tmp_path)
    recorder.add_samples(4, ["text"], object())
    names = ("prompt", "seed", "temperature", "top_k", "top_p")
    assert rows(run.samples) == [{"step": 4, "sample": 0, **dict.fromkeys(names), "text": "text"}]
    recorder.flush()
    assert shown.notes == ["step 4  sample 'text'"]


def test_each_of_several_samples_has_a_line_and_a_note_with_its_number(tmp_path):
    recorder, run, shown = begun(tmp_path)
    recorder.add_samples(4, ["one", "two"], object())
    found = [(row["step"], row["sample"], row["text"]) for row in rows(run.samples)]
    assert found == [(4, 0, "one"), (4, 1, "two")]
    recorder.flush()
    assert shown.notes == ["step 4  sample 0 'one'", "step 4  sample 1 'two'"]


def test_a_checkpoint_that_cannot_be_removed_is_a_warning(tmp_path, monkeypatch, capsys):
    def refused(*arguments):
        raise MachineError("step-00000001 cannot be removed: Permission denied")

    recorder, run, _ = begun(tmp_path, keep_checkpoints=1)
    recorder.save(make(1), RunState())
    monkeypatch.setattr(module, "remove_superseded", refused)
    recorder.save(make(2), RunState())
    recorder.remove_superseded()
    assert saved_steps(run) == [1, 2]
    assert "warning: step-00000001 cannot be removed" in capsys.readouterr().err


def test_a_row_without_a_speed_is_shown_too():
    recorder, shown = Recorder(None), Shown()
    recorder.begin(None, shown)
    recorder.add({"step": 1, "train_loss": math.nan})
    recorder.flush()
    assert shown.steps == [1]


@pytest.mark.parametrize("n_rows", [0, 1])
def test_without_a_run_nothing_is_written(n_rows):
    recorder = Recorder(None)
    for step in range(n_rows):
        recorder.add(row(step))
    recorder.add_samples(1, ["text"], None)
    assert len(recorder.flush(force=True)) == n_rows
    recorder.save(make(1), RunState())
    assert recorder.saved_step is None
    assert recorder.good_checkpoint(1) == "no checkpoint was saved"


def fails(recorder, run):
    """Two steps are done, the first of which is on record, before something fails."""
    with recorder.recording(run, None):
        recorder.add(row(1))
        recorder.flush()
        recorder.add(row(2))
        raise ZeroDivisionError


def test_where_training_fails_the_steps_that_were_done_are_on_record(tmp_path):
    run = new_run(tmp_path / "run")
    with pytest.raises(ZeroDivisionError):
        fails(Recorder(keep_checkpoints=3), run)
    assert [found["step"] for found in rows(run.metrics)] == [1, 2]


def test_what_ended_training_is_told_though_the_record_takes_nothing_more(tmp_path, monkeypatch):
    run = new_run(tmp_path / "run")
    recorder, written = Recorder(keep_checkpoints=3), []

    def full(rows):
        written.extend(rows)
        if len(written) > 1:
            raise MachineError("the disk is full")

    monkeypatch.setattr(run, "append_metrics", full)
    with pytest.raises(ZeroDivisionError):
        fails(recorder, run)
    assert [found["step"] for found in written] == [1, 2]
