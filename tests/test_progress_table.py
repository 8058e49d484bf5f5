import io
import re

import pytest

from lm_core.search.progress_table import StudyProgress, best_of, ended, values_told
from lm_core.search.trial_records import (
    COMPLETED,
    DIVERGED,
    FAILED,
    PRUNED,
    RUNNING,
    TrialRecord,
)
from tests.test_worker import PlayedJob


def record(number, outcome, loss=None, steps=40, **fields):
    """A trial with a learning rate and a number of layers."""
    known = {
        "values": {"learning_rate": 0.00123456, "n_layers": 4},
        "reason": "",
        "losses": {},
        "seconds": 1.0,
        "owner": "me",
        "beats": 0,
        "to_prune": False,
    }
    return TrialRecord(number=number, outcome=outcome, loss=loss, steps=steps, **known | fields)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_best_is_the_lowest_loss_of_the_completed_and_of_equals_the_first():
    trials = [record(0, PRUNED), record(1, COMPLETED, 2.0), record(2, COMPLETED, 2.0)]
    assert best_of(trials).number == 1
    assert best_of([record(0, FAILED), record(1, RUNNING)]) is None


def test_values_have_no_more_digits_than_tell_something():
    values = {"learning_rate": 0.00123456, "n_layers": 4, "bias": True, "norm": "rmsnorm"}
    assert values_told(values) == "learning_rate 0.001235, n_layers 4, bias true, norm rmsnorm"


@pytest.mark.parametrize(
    ("trial", "line"),
    [
        (record(3, COMPLETED, 1.5), "trial 3: 1.5000 nats  learning_rate 0.001235, n_layers 4"),
        (record(3, COMPLETED, 0.5), "n_layers 4  (best so far)"),
        (record(3, PRUNED, steps=12, losses={10: 3.0}), "pruned after step 12 of 40, 3.0000 nats"),
        (record(3, DIVERGED, reason="too fast"), "trial 3: diverged: too fast  learning_rate"),
        (record(3, FAILED, reason="a\x1b[31m\nb"), "trial 3: failed: a\\x1b[31m\\nb"),
    ],
)
def test_each_trial_that_ends_is_told_in_a_line(trial, line):
    told = ended(trial, [record(0, COMPLETED, 1.0), trial], 40)
    assert line in told
    assert "\n" not in told


def test_the_best_so_far_is_the_best_of_those_that_ended_before_whatever_their_numbers():
    trials, seconds, stream = [record(0, RUNNING), record(1, RUNNING)], [0.0], io.StringIO()
    with StudyProgress(2, 40, lambda: trials, stream, lambda: seconds[0]) as progress:
        for seconds[0], loss in ((1.0, 2.0), (2.0, 3.0)):
            trials[1 if loss == 2.0 else 0] = record(1 if loss == 2.0 else 0, COMPLETED, loss)
            progress.watch([])
    assert [line.endswith("(best so far)") for line in stream.getvalue().splitlines()] == [
        True,
        False,
    ]


def test_a_narrow_terminal_cuts_the_values_off_and_nothing_else(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    values = dict.fromkeys(("learning_rate", "weight_decay", "dropout", "beta1"), 0.123456)
    stream = Terminal()
    with StudyProgress(5, 240, lambda: [record(1, RUNNING, values=values)], stream) as progress:
        progress.watch([PlayedJob("0001", 9, [])])
    assert re.search(r"0001 +0/240 .*learning_rate 0\.1235, .*…", stream.getvalue())


def test_in_a_log_there_is_a_line_for_each_trial_that_ends_and_now_and_then_one_of_all():
    trials, seconds, stream = [record(0, COMPLETED, 2.0)], [0.0], io.StringIO()
    progress = StudyProgress(5, 40, lambda: trials, stream, lambda: seconds[0])
    with progress:
        progress.watch([])
        assert stream.getvalue() == ""
        trials += [record(1, COMPLETED, 1.0), record(2, RUNNING)]
        seconds[0] = 10.0
        progress.watch([])
        progress.watch([])
        seconds[0] = 31.0
        progress.watch([])
    lines = stream.getvalue().splitlines()
    assert lines == [
        "trial 1: 1.0000 nats  learning_rate 0.001235, n_layers 4  (best so far)",
        "2 of 5 trials are done, 0 pruned, 0 failed, 1 running, "
        "best 1.0000 nats (trial 1), 1:33 left",
    ]


def test_on_a_terminal_there_is_a_table_of_what_runs():
    trials, stream = [record(0, COMPLETED, 2.0), record(1, RUNNING)], Terminal()
    with StudyProgress(5, 40, lambda: trials, stream) as progress:
        progress.watch([PlayedJob("0001", 9, [])])
        progress.note("[bold] a note")
    shown = stream.getvalue()
    assert "validation loss" in shown
    assert "0001" in shown
    assert "0/40" in shown
    assert "1 of 5 trials are done" in shown
    assert "[bold] a note" in shown


def test_a_terminal_that_goes_away_ends_nothing():
    class Gone(Terminal):
        def write(self, text):
            raise OSError("gone")

    with StudyProgress(5, 40, lambda: [record(0, RUNNING)], Gone()) as progress:
        progress.watch([])
        progress.note("a note")
