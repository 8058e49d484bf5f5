import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.training.cadences import Cadences

steps = st.integers(1, 60)


@given(steps, steps, st.none() | steps)
def test_a_cadence_counts_from_the_start_and_the_last_step_does_everything(last, step, cadence):
    cadences = Cadences(last, checkpoint=cadence, evaluation=cadence, sampling=cadence)
    step = min(step, last)
    due = step == last or step in range(cadence or 99, last, cadence or 99)
    assert cadences.saves(step) == cadences.evaluates(step) == due
    assert cadences.samples(step) == (due and cadence is not None)


@given(steps, steps, st.none() | steps)
def test_what_a_cadence_calls_for_does_not_depend_on_the_end(last, step, cadence):
    cadences = Cadences(last, evaluation=cadence)
    step = min(step, last)
    assert cadences.calls_for_evaluation(step) == (cadence is not None and step % cadence == 0)


@pytest.mark.parametrize("step", [1, 7, 8])
def test_without_a_cadence_there_are_no_samples_and_the_rest_is_left_to_the_end(step):
    cadences = Cadences(8)
    assert cadences.saves(step) == cadences.evaluates(step) == (step == 8)
    assert not cadences.samples(step)


def test_the_best_is_saved_where_there_are_checkpoints_on_the_way():
    assert Cadences(8, checkpoint=100).save_the_best
    assert not Cadences(8, evaluation=1).save_the_best
    assert Cadences(8, evaluation=1, most_fruitless=3).save_the_best


def test_a_run_is_over_after_as_many_fruitless_evaluations_as_there_may_be():
    assert not Cadences(8, evaluation=1).stops_after(1000)
    found = [Cadences(8, evaluation=1, most_fruitless=3).stops_after(n) for n in (0, 2, 3, 4)]
    assert found == [False, False, True, True]
