import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.errors import MachineError
from lm_core.training.run_state import RunState

ROW = {"step": 50, "train_loss": None, "tokens_per_second": 1.5, "skipped_batches": 3}
losses = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(losses))
def test_the_best_is_the_first_of_the_smallest(found):
    state = RunState()
    for step, loss in enumerate(found, 1):
        state.take(step, loss)
    finite = [loss for loss in found if loss < math.inf]
    best = min(finite, default=None)
    assert state.best_validation_loss == best
    assert state.best_step == (None if best is None else found.index(best) + 1)


def test_evaluations_are_counted_from_the_best_on():
    state = RunState()
    counts = []
    for step, loss in enumerate([3.0, 2.0, 2.0, math.nan, 1.0, 4.0], 1):
        state.take(step, loss)
        counts.append(state.evaluations_since_best)
    assert counts == [0, 0, 1, 2, 0, 1]


def test_an_evaluation_beside_the_cadence_may_be_the_best_and_is_not_counted():
    state = RunState()
    found = [(3.0, True), (1.0, False), (2.0, True), (2.5, True), (0.5, True)]
    counts = []
    for step, (loss, at_cadence) in enumerate(found, 1):
        state.take(step, loss, at_cadence)
        counts.append((state.best_step, state.evaluations_since_best))
    assert counts == [(1, 0), (2, 0), (2, 0), (2, 1), (5, 0)]


@given(losses, st.integers(0, 50), st.none() | st.just(ROW))
def test_what_is_stored_comes_back(loss, skipped, row):
    state = RunState(skipped_batches=skipped, row=row)
    state.take(40, max(loss, -1e300) if loss == loss else loss)
    assert RunState.from_json(json.loads(json.dumps(state.to_json())), 50) == state


def test_a_row_keeps_its_order():
    row = {"step": 5, "train_loss": 1.0, "tokens_per_second": 2.0, "a": 3.0}
    stored = json.dumps(RunState(row=row).to_json(), sort_keys=True)
    assert list(RunState.from_json(json.loads(stored), 5).row) == list(row)


def test_what_an_older_lab_did_not_store_is_as_in_a_run_without_it():
    assert RunState.from_json({"best_validation_loss": 2.0}, 5) == RunState(
        2.0, best_at_cadence=2.0, good_before=5
    )
    assert RunState.from_json({"skipped_batches": 1}, 5) == RunState(skipped_batches=1)
    row = {"step": 5, "train_loss": 1.0, "tokens_per_second": 2.0}
    stored = {"unfinished_row": [*row.items()]}
    assert RunState.from_json(stored, 5) == RunState(row=row, good_before=5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("best_validation_loss", "small"),
        ("best_validation_loss", math.nan),
        ("best_validation_loss", True),
        ("best_step", 6),
        ("best_step", -1),
        ("best_step", "../../x"),
        ("best_step", True),
        ("best_at_cadence", math.nan),
        ("evaluations_since_best", -1),
        ("evaluations_since_best", 6),
        ("evaluations_since_best", None),
        ("good_before", None),
        ("good_before", 7),
        ("skipped_batches", None),
        ("skipped_batches", 1.0),
        ("skipped_batches", 10**9),
        ("evaluated", 1),
        ("sampled", None),
        ("row", 3),
        ("row", []),
        ("row", [1]),
        ("row", [["step"]]),
        ("row", [[["step"], 5]]),
        ("row", [["step", 5]]),
        ("row", [["step", 4], ["train_loss", 1.0], ["tokens_per_second", 1.0]]),
        ("row", [["step", 5.0], ["train_loss", 1.0], ["tokens_per_second", 1.0]]),
        ("row", [["step", 5], ["train_loss", 10**400], ["tokens_per_second", 1.0]]),
        ("row", [["step", 5], ["train_loss", "1"], ["tokens_per_second", 1.0]]),
        ("row", [["step", 5], ["train_loss", True], ["tokens_per_second", 1.0]]),
    ],
)
def test_what_cannot_be_is_refused(name, value):
    with pytest.raises(MachineError, match=f"the checkpoint's {name} is .*, which cannot be"):
        RunState.from_json({name: value}, 5)
