"""Runs watched from their start to what the storage has of them; processes are played."""

import json
import signal
from pathlib import Path

import pytest

from lm_core.search.doubts import Doubts
from lm_core.search.jobs import FreshSeedJob, TrialJob, Workplace
from lm_core.search.study_folder import StudyFolder
from lm_core.search.trial_records import COMPLETED, DIVERGED, FAILED, PRUNED, RUNNING
from tests.small_studies import BASE, SPACE, records, study

TEXT = f"{BASE}{SPACE}trials: 9\n"


class PlayedProcess:
    """A process that ends when the test says so."""

    def __init__(self):
        self.code = None
        self.n_stops = 0

    def exit_code(self):
        return self.code

    def stop(self):
        self.n_stops += 1

    def last_words(self):
        return "its last words"


class Played(Workplace):
    """A place in which processes are played."""

    def start(self, run_dir, log, values, lock):
        self.started.append((run_dir, dict(values)))
        return self.process


@pytest.fixture
def place(folder):
    return played(folder, TEXT)


def played(folder, text, is_shared=False):
    where, trials = StudyFolder(folder / "study"), records(folder, text)
    found = Played(
        study=study(folder, text),
        folder=where,
        records=trials,
        program=Path("run.py"),
        imports=(),
        n_threads=None,
        is_shared=is_shared,
        n_stops={},
        doubts=Doubts(trials, where.owner),
    )
    object.__setattr__(found, "process", PlayedProcess())
    object.__setattr__(found, "started", [])
    return found


def trial(place, number=None, **given):
    """A trial that is taken up, or made, and its run directory."""
    number = place.records.create(place.folder.owner) if number is None else number
    lock = place.folder.lock(f"{number:04d}")
    assert lock.try_to_take()
    return TrialJob(place, number, lock, **given), place.folder.trial(f"{number:04d}")


def writes(run_dir, losses, last_step=None, outcome=None, reason="", text="a"):
    """What a run leaves: its losses by step, and how it ended."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "metrics.jsonl").open("a") as stream:
        for step, loss in losses.items():
            stream.write(json.dumps({"step": step} | ({"val_loss": loss} if loss else {})) + "\n")
    if outcome is not None:
        manifest = {"outcome": outcome, "reason": reason, "last_step": last_step}
        manifest["corpus"] = {"sha256": text}
        (run_dir / "manifest.json").write_text(json.dumps(manifest))


WHOLE = {10: 4.0, 20: 3.0, 30: 2.0, 40: 2.5}


def test_a_trial_that_ends_well_has_its_last_loss_as_its_result(place):
    job, run_dir = trial(place)
    assert not job.is_over()
    assert place.started == [(run_dir, place.records.get(0).values)]
    writes(run_dir, WHOLE, 40, "completed")
    assert not job.is_over()
    assert job.progress() == ("0000", 40, 2.5)
    place.process.code = 0
    assert job.is_over()
    found = place.records.get(0)
    assert (found.outcome, found.loss, found.steps, found.losses) == (COMPLETED, 2.5, 40, WHOLE)
    assert place.folder.lock("0000").try_to_take()


def test_a_run_that_may_stop_early_has_its_best_loss_as_its_result(folder):
    place = played(folder, f"early_stopping_evaluations: 1\n{TEXT}")
    job, run_dir = trial(place)
    job.is_over()
    writes(run_dir, WHOLE, 40, "completed")
    place.process.code = 0
    assert job.is_over()
    assert place.records.get(0).loss == 2.0


@pytest.mark.parametrize(
    ("code", "outcome", "reason"),
    [
        (3, DIVERGED, "its last words"),
        (-signal.SIGKILL, FAILED, "killed by SIGKILL, out of memory?"),
        (-signal.SIGSEGV, FAILED, "killed by SIGSEGV"),
        (0, FAILED, "holds no validation loss"),
    ],
)
def test_a_trial_that_ends_badly_is_recorded_with_its_reason(place, code, outcome, reason):
    job, run_dir = trial(place)
    job.is_over()
    writes(run_dir, {5: None})
    place.process.code = code
    assert job.is_over()
    found = place.records.get(0)
    assert (found.outcome, found.loss, found.steps) == (outcome, None, 5)
    assert found.reason.endswith(reason)


def failing(place, code, words="its last words", number=None):
    """A trial whose process ended like that."""
    place.process.code, place.process.last_words = None, lambda: words
    job, run_dir = trial(place, number)
    job.is_over()
    writes(run_dir, {5: None})
    place.process.code = code
    assert job.is_over()
    return job


@pytest.mark.parametrize(("code", "n_starts"), [(1, 2), (2, 2), (3, 1)])
def test_a_trial_that_cannot_go_on_with_what_is_left_of_it_is_run_from_the_start_once(
    place, code, n_starts
):
    number = place.records.create(place.folder.owner)
    run_dir = place.folder.trial("0000")
    writes(run_dir, {10: 4.0, 12: None})
    job, _ = trial(place, number)
    assert not job.is_over()
    place.process.code, place.process.last_words = code, lambda: f"{run_dir} has lost its mind"
    if n_starts == 2:
        assert not job.is_over()
        assert not run_dir.exists()
        assert (place.folder.path / "damaged" / "0000-1" / "metrics.jsonl").exists()
    job.is_over()
    assert len(place.started) == n_starts


def test_a_trial_that_cannot_go_on_for_another_reason_keeps_what_it_has(place):
    number = place.records.create(place.folder.owner)
    writes(place.folder.trial("0000"), {10: 4.0, 12: None})
    failing(place, 2, words="corpus: 'text.txt' does not exist", number=number)
    assert place.folder.trial("0000").exists()
    assert len(place.started) == 1


@pytest.mark.parametrize(
    ("code", "kind"), [(2, "refused"), (1, "the machine failed"), (77, "the machine failed")]
)
def test_a_failure_that_may_be_the_machine_s_counts_when_a_later_trial_ends_well(place, code, kind):
    failing(place, code)
    assert place.records.get(0).outcome == RUNNING
    assert not place.folder.lock("0000").try_to_take()
    failing(place, 3)
    found = place.records.get(0)
    assert (found.outcome, found.reason, found.steps) == (FAILED, f"{kind}: its last words", 5)
    assert place.folder.lock("0000").try_to_take()


def test_a_trial_on_another_text_does_not_compare(place):
    for text in ("a", "a", "b"):
        place.process.code = None
        job, run_dir = trial(place)
        job.is_over()
        writes(run_dir, WHOLE, 40, "completed", text=text)
        place.process.code = 0
        assert job.is_over()
    outcomes = [record.outcome for record in place.records.all()]
    assert outcomes == [COMPLETED, COMPLETED, RUNNING]
    place.doubts.clear_up()
    found = place.records.get(2)
    told = "its text is another one than that of the others"
    assert (found.outcome, found.reason) == (FAILED, told)
    # Had it been run again with the text put back, it would have been from the start.
    assert not run_dir.exists()


@pytest.mark.parametrize("code", [130, 143, 129, -signal.SIGTERM])
def test_a_trial_that_is_stopped_goes_on_another_time(place, code):
    job, _ = trial(place)
    job.is_over()
    job.stop()
    assert place.process.n_stops == 1
    place.process.code = code
    assert job.is_over()
    assert place.records.get(0).outcome == RUNNING
    assert place.folder.lock("0000").try_to_take()


def test_a_trial_that_is_stopped_before_it_starts_never_does(place):
    job, _ = trial(place)
    job.stop()
    assert job.is_over()
    assert place.started == []
    assert place.records.get(0).outcome == RUNNING


def test_a_trial_that_somebody_stops_again_and_again_fails_at_last(place):
    for n_stops in (1, 2, 3):
        place.process.code = None
        job, _ = trial(place, number=0 if n_stops > 1 else None)
        job.is_over()
        place.process.code = 143
        assert job.is_over()
        assert place.records.get(0).outcome == (FAILED if n_stops == 3 else RUNNING)
    assert place.records.get(0).reason == "stopped by somebody else 3 times"


def test_values_that_do_not_fit_cost_one_trial_and_no_process(folder):
    place = played(folder, f"{BASE}search:\n  d_model: {{int: [32, 35]}}\nsampler: grid\n")
    outcomes = []
    for _ in range(4):
        place.process.code = None
        job, _ = trial(place)
        if job.is_over():
            found = place.records.all()[-1]
            told = f"refused: d_model: {found.values['d_model']} is not divisible by n_heads 4"
            assert (found.outcome, found.reason) == (FAILED, told)
        outcomes.append(place.records.all()[-1].outcome)
    assert sorted(outcomes) == [FAILED, FAILED, FAILED, RUNNING]
    assert len(place.started) == 1


def good(place, n):
    """So many whole trials that were good."""
    for _ in range(n):
        number = place.records.create("me")
        for step in WHOLE:
            place.records.report(number, step, 1.0)
        place.records.finish(number, COMPLETED, 1.0, 40)


@pytest.fixture
def pruning(folder):
    place = played(folder, f"{TEXT}pruner: median\n")
    good(place, 4)
    return place


def test_an_unpromising_trial_is_asked_to_end_once_and_is_pruned(pruning):
    job, run_dir = trial(pruning)
    job.is_over()
    writes(run_dir, {9: None, 10: 9.0, 13: None})
    assert not job.is_over()
    assert not job.is_over()
    assert pruning.process.n_stops == 1
    writes(run_dir, {14: None}, 14, "stopped by SIGTERM")
    pruning.process.code = 143
    assert job.is_over()
    found = pruning.records.get(4)
    assert (found.outcome, found.steps, found.losses) == (PRUNED, 14, {10: 9.0})


def test_what_is_pruned_does_not_depend_on_how_soon_it_is_noticed(pruning):
    job, run_dir = trial(pruning)
    job.is_over()
    writes(run_dir, {10: 9.0, 20: 0.1, 30: 0.1, 40: 0.1}, 40, "completed")
    pruning.process.code = 0
    assert job.is_over()
    found = pruning.records.get(4)
    assert (found.outcome, found.steps, found.losses) == (PRUNED, 40, {10: 9.0})


def test_a_kill_between_finding_a_trial_unpromising_and_its_end_starts_it_no_more(pruning):
    job, run_dir = trial(pruning)
    job.is_over()
    writes(run_dir, {10: 9.0}, 12, "stopped by SIGTERM")
    assert not job.is_over()
    job._lock.let_go()
    pruning.started.clear()
    again, _ = trial(pruning, number=4)
    assert again.is_over()
    assert pruning.started == []
    assert (pruning.records.get(4).outcome, pruning.records.get(4).steps) == (PRUNED, 12)


@pytest.mark.parametrize(
    ("outcome", "expected", "loss", "reason"),
    [("completed", COMPLETED, 2.5, ""), ("diverged", DIVERGED, None, "too fast")],
)
def test_a_run_that_ended_before_its_trial_was_told_is_not_run_again(
    place, outcome, expected, loss, reason
):
    number = place.records.create("me")
    writes(place.folder.trial("0000"), WHOLE, 40, outcome, reason)
    job, _ = trial(place, number)
    assert job.is_over()
    assert place.started == []
    found = place.records.get(0)
    assert (found.outcome, found.loss, found.reason) == (expected, loss, reason)


def test_a_run_that_says_it_is_complete_and_has_no_loss_is_run_again(place):
    number = place.records.create("me")
    writes(place.folder.trial("0000"), {40: None}, 40, "completed")
    job, _ = trial(place, number)
    assert not job.is_over()
    assert len(place.started) == 1


def test_a_trial_shows_the_other_machines_that_it_is_run(folder):
    seconds = [0.0]
    place = played(folder, TEXT, is_shared=True)
    job, _ = trial(place, clock=lambda: seconds[0])
    for seconds[0] in range(0, 100, 5):
        assert not job.is_over()
    assert place.records.get(0).beats == 3


def test_a_trial_that_another_machine_took_over_is_given_up(folder):
    seconds = [0.0]
    place = played(folder, TEXT, is_shared=True)
    job, run_dir = trial(place, clock=lambda: seconds[0])
    job.is_over()
    place.records.take_over(0, "another machine")
    seconds[0] = 60.0
    assert not job.is_over()
    assert place.process.n_stops == 1
    writes(run_dir, WHOLE, 40, "completed")
    place.process.code = 0
    assert job.is_over()
    assert place.records.get(0).outcome == RUNNING


def test_the_winner_is_run_on_a_fresh_seed_and_told_beside_the_study(place):
    good(place, 1)
    lock = place.folder.lock("seed")
    lock.try_to_take()
    job = FreshSeedJob(place, 0, 99, lock)
    assert not job.is_over()
    ((run_dir, values),) = place.started
    assert run_dir == place.folder.path / "best" / "0000" / "seed-99"
    assert values == {**place.records.get(0).values, "seed": 99}
    writes(run_dir, WHOLE, 40, "completed")
    place.process.code = 0
    assert job.is_over()
    (result,) = place.records.fresh(0)
    assert (result.seed, result.outcome, result.loss) == (99, COMPLETED, 2.5)
    assert place.records.get(0).loss == 1.0


def test_a_run_is_asked_for_as_a_person_would(folder, monkeypatch):
    asked = []
    monkeypatch.setattr("lm_core.search.jobs.TrialProcess", lambda *given: asked.append(given))
    text = (
        "seed: 1\nsearch:\n  learning_rate: {choice: [0.1]}\n  activation: {choice: [gelu]}\n"
        "  logit_softcap: {choice: [null]}\n"
    )
    where, trials = StudyFolder(folder / "study"), records(folder, text)
    place = Workplace(
        study=study(folder, text),
        folder=where,
        records=trials,
        program=Path("/there/run.py"),
        imports=("my_hooks",),
        n_threads=2,
        is_shared=False,
        n_stops={},
        doubts=Doubts(trials, where.owner),
    )
    place.records.create("me")
    lock = place.folder.lock("0000")
    lock.try_to_take()
    values = place.records.get(0).values
    place.start(Path("run"), Path("log"), values, lock)
    arguments = [
        f"--config={folder}/study/base.yaml",
        "--gin_bindings=Trainer.learning_rate = 0.1",
        "--gin_bindings=Transformer.activation = 'gelu'",
        "--gin_bindings=Transformer.logit_softcap = None",
        "--allow_gin_import=my_hooks",
        "--run_dir=run",
        "--resume",
    ]
    assert asked == [(arguments, Path("/there/run.py"), Path("log"), lock.descriptor, 2)]
