import pytest

from lm_core.errors import DivergenceError, InputError, MachineError
from lm_core.search import summary
from lm_core.search.study_folder import StudyFolder
from lm_core.search.trial_records import COMPLETED, DIVERGED, FAILED, PRUNED
from tests.small_studies import study
from tests.test_progress_table import record
from tests.test_winner import FRESH


def trial(number, loss, learning_rate=1e-3):
    values = {"learning_rate": learning_rate, "dropout": 0.2}
    return record(number, COMPLETED, loss, values=values)


def test_the_end_tells_the_best_trials_the_winner_and_what_was_saved(folder, capsys):
    trials = [trial(n, 3.0 - n / 10, 10 ** (-n / 2)) for n in range(2, 9)]
    trials += [record(9, PRUNED, steps=10), record(10, FAILED, steps=0), record(11, DIVERGED)]
    where = StudyFolder(folder / "studies" / "my")
    summary.tell(study(folder), where, trials, trials[-4], FRESH)
    printed, warned = capsys.readouterr()
    lines = printed.splitlines()
    assert lines[1].split() == ["trial", "validation", "loss", "learning_rate", "dropout"]
    assert [line.split()[:2] for line in lines[2:7]] == [
        [str(n), f"{3.0 - n / 10:.4f}"] for n in (8, 7, 6, 5, 4)
    ]
    assert lines[8:12] == [
        "10 trials: 7 completed, 1 pruned, 1 diverged, 1 failed",
        "330 of 360 steps were done, which saves 8%",
        "best: trial 8, 2.2000 nats in the search",
        "again: 1.5000 ± 0.7071 nats on 2 fresh seeds",
    ]
    assert lines[12].startswith("train it: python run.py --config=")
    assert warned.startswith("warning: the best learning_rate, 0.0001, lies at the low end")


@pytest.mark.parametrize(
    ("outcomes", "kind", "sentence"),
    [
        ([(FAILED, "refused: a"), (FAILED, "refused: a"), (DIVERGED, "b")], InputError, "2 of"),
        ([(FAILED, "killed by SIGKILL"), (FAILED, "x"), (FAILED, "x")], MachineError, "2 of them"),
        ([(DIVERGED, "too fast")], DivergenceError, "1 of them diverged: too fast"),
        ([(PRUNED, "")], MachineError, "1 of them pruned"),
        (
            [
                (FAILED, "x"),
                (DIVERGED, "step 3: 1.2e+09"),
                (DIVERGED, "step 17: 4"),
                (DIVERGED, "too"),
                (FAILED, "x"),
            ],
            DivergenceError,
            "2 of them diverged: step 3: 1.2e+09",
        ),
    ],
)
def test_a_study_without_a_winner_tells_the_commonest_reason(outcomes, kind, sentence):
    trials = [record(n, outcome, reason=reason) for n, (outcome, reason) in enumerate(outcomes)]
    with pytest.raises(kind, match=r"^none of the \d trials? was completed; ") as error:
        summary.require_winner(trials)
    assert type(error.value) is kind
    assert sentence in error.value.message


def test_one_trial_is_told_as_one():
    assert summary.counts_told([trial(0, 2.0)]).startswith("1 trial: 1 completed, ")


def test_what_fails_or_diverges_saves_nothing():
    trials = [record(0, FAILED, steps=5), record(1, DIVERGED, steps=1), trial(2, 2.0)]
    assert summary.steps_told(trials, 40) == "46 of 46 steps were done, which saves 0%"


def test_the_winner_is_the_best_trial():
    assert summary.require_winner([trial(0, 2.0), trial(1, 1.0)]).number == 1
