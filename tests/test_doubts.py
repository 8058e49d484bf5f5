"""Whose fault a failure is: the trials' own, or that of the machine they all run on."""

import pytest

from lm_core.errors import MachineError
from lm_core.search.claims import Claims
from lm_core.search.trial_records import COMPLETED, DIVERGED, FAILED, RUNNING
from tests.test_claims import THREE
from tests.test_jobs import failing, played

MANY = THREE.replace("trials: 3", "trials: 9")


def outcomes(place):
    return [record.outcome for record in place.records.all()]


def let_go(place):
    """The end of a command, which lets go of all its locks."""
    for doubt in place.doubts._held.values():
        doubt.lock.let_go()


def test_three_failures_in_a_row_end_the_search_and_are_run_again_by_the_next(folder):
    place = played(folder, MANY)
    for _ in range(2):
        failing(place, 2, words="corpus: no text")
        place.doubts.require_few()
    failing(place, 2, words="corpus: no text")
    with pytest.raises(MachineError) as error:
        Claims(place).next_trial()
    assert error.value.message == (
        "3 trials in a row failed, the last one: refused: corpus: no text; when that is mended, "
        "the same command goes on"
    )
    assert outcomes(place) == [RUNNING] * 3
    let_go(place)
    again = Claims(played(folder, MANY))
    assert [again.next_trial().number for _ in range(4)] == [0, 1, 2, 3]


def test_what_fails_once_more_does_not_keep_others_from_being_tried(folder):
    place = played(folder, MANY)
    for _ in range(3):
        failing(place, 1)
    let_go(place)
    again = played(folder, MANY)
    for number in range(3):
        failing(again, 1, number=number)
    again.doubts.require_few()
    failing(again, 3)
    assert outcomes(again) == [FAILED, FAILED, FAILED, DIVERGED]


def test_what_ends_well_between_makes_three_failures_those_of_the_trials(folder):
    place = played(folder, MANY)
    for code in (1, 1, 3, 1, 2):
        failing(place, code)
    place.doubts.require_few()
    assert outcomes(place) == [FAILED, FAILED, DIVERGED, RUNNING, RUNNING]


def test_a_full_disk_ends_the_search_at_once(folder):
    place = played(folder, MANY)
    failing(place, 1, words="x cannot be written: No space left on device")
    with pytest.raises(MachineError, match=r"^trial 0 failed: .* device; when that is mended, "):
        Claims(place).next_trial()
    assert outcomes(place) == [RUNNING]


def test_after_the_last_trial_it_is_decided_by_whether_any_ended_well(folder):
    place = played(folder, THREE)
    for code in (3, 1, 1):
        failing(place, code)
    assert Claims(place).are_trials_over()
    assert outcomes(place) == [DIVERGED, FAILED, FAILED]


def test_a_study_whose_only_trials_failed_stays_open(folder):
    place = played(folder, THREE.replace("trials: 3", "trials: 2"))
    for _ in range(2):
        failing(place, 2)
    with pytest.raises(MachineError, match=r"^trial 1 failed: refused: its last words; when "):
        Claims(place).are_trials_over()
    assert outcomes(place) == [RUNNING] * 2


def test_what_another_machine_took_over_is_not_ended(folder):
    place = played(folder, MANY, is_shared=True)
    failing(place, 1)
    place.records.take_over(0, "another machine")
    failing(place, 3)
    assert outcomes(place) == [RUNNING, DIVERGED]


def test_a_fresh_seed_that_failed_is_run_again_by_the_next_command_once(folder):
    place = played(folder, THREE)
    number = place.records.create("me")
    place.records.finish(number, COMPLETED, 1.0, 40)

    def run_all(code):
        claims, n_runs = Claims(place), 0
        while (job := claims.next_fresh_seed(number)) is not None:
            place.process.code = code
            assert job.is_over()
            n_runs += 1
        assert claims.are_fresh_seeds_over(number)
        return n_runs

    assert [run_all(1), run_all(3), run_all(1)] == [2, 2, 0]
