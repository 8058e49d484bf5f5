import pytest

from lm_core.search.claims import Claims
from lm_core.search.trial_records import COMPLETED, FAILED, FreshResult
from tests.small_studies import BASE, SPACE
from tests.test_jobs import played

THREE = f"{BASE}{SPACE}trials: 3\nseeds_for_best: 2\n"


@pytest.fixture
def seconds():
    return [0.0]


@pytest.fixture
def two(folder, seconds):
    """Two processes at work on one study, in one folder."""

    def make(is_shared=False):
        return [
            Claims(played(folder, THREE, is_shared=is_shared), lambda: seconds[0]) for _ in range(2)
        ]

    return make


def finish(claims, job):
    claims._place.records.finish(job.number, COMPLETED, 1.0 + job.number, 40)
    job._lock.let_go()


def test_no_trial_is_given_out_twice_and_none_too_many(two):
    first, second = two()
    jobs = [first.next_trial(), second.next_trial(), first.next_trial()]
    assert [job.number for job in jobs] == [0, 1, 2]
    assert first.next_trial() is None
    assert second.next_trial() is None
    assert not first.are_trials_over()
    for job in jobs:
        finish(first, job)
    assert second.next_trial() is None
    assert second.are_trials_over()


def test_an_interrupted_trial_is_taken_up_by_one_before_any_new_one(two):
    first, second = two()
    killed = first.next_trial()
    other = first.next_trial()
    killed._lock.let_go()
    assert second.next_trial().number == killed.number
    assert first.next_trial().number == other.number + 1


def test_a_trial_whose_process_lives_on_is_not_taken_up(two):
    first, second = two()
    job = first.next_trial()
    assert job is not None
    assert second.next_trial().number == 1


def test_who_is_alone_waits_a_while_for_a_trial_that_saves_before_it_makes_another(two, seconds):
    first, second = two()
    orphan = first.next_trial()
    alone = Claims(second._place, lambda: seconds[0], patience=10.0)
    for seconds[0] in (0.0, 9.0):
        assert alone.next_trial() is None
    assert not alone.are_trials_over()
    orphan._lock.let_go()
    assert alone.next_trial().number == 0
    seconds[0] = 10.0
    assert Claims(first._place, lambda: seconds[0], patience=10.0).next_trial() is None
    seconds[0] = 20.0
    assert alone.next_trial().number == 1


def test_a_trial_that_has_ended_in_the_meantime_is_not_taken_up(two):
    first, second = two()
    job = first.next_trial()
    finish(first, job)
    assert second._taken_up(job.number) is None
    assert second._place.folder.lock("0000").try_to_take()


def test_a_machine_takes_up_its_own_trials_only(two, seconds):
    first, second = two(is_shared=True)
    first._place.records.create("another machine")
    assert first.next_trial().number == 1
    seconds[0] = 299.0
    assert second.next_trial().number == 2
    seconds[0] += 299.0
    assert second.next_trial() is None
    assert first._place.records.get(0).owner == "another machine"


def test_a_silent_machine_loses_its_trial_to_the_last_who_takes_it(two, seconds):
    first, _ = two(is_shared=True)
    number = first._place.records.create("another machine")
    for _ in range(2):
        first.next_trial()
    seconds[0] = 301.0
    # What is taken over is looked at once more before it is run: somebody else may have been later.
    assert first.next_trial() is None
    assert first._place.records.get(number).owner == first._place.folder.owner
    assert first.next_trial().number == number


def test_a_machine_that_shows_signs_of_life_keeps_its_trial(two, seconds):
    first, _ = two(is_shared=True)
    number = first._place.records.create("another machine")
    for seconds[0] in range(0, 3000, 200):
        first._place.records.beat(number)
        first.next_trial()
    assert first._place.records.get(number).owner == "another machine"


def test_the_winner_is_run_once_on_each_fresh_seed(two):
    first, second = two()
    finish(first, first.next_trial())
    one, other = first.next_fresh_seed(0), second.next_fresh_seed(0)
    assert first.next_fresh_seed(0) is None
    seeds = {one.progress()[0], other.progress()[0]}
    assert seeds == {f"0000-seed-{seed}" for seed in first.fresh_seeds()}
    assert not first.are_fresh_seeds_over(0)
    for seed, outcome in zip(first.fresh_seeds(), (COMPLETED, FAILED), strict=True):
        first._place.records.add_fresh(0, FreshResult(seed, outcome, None, ""))
    one._lock.let_go()
    assert second.next_fresh_seed(0) is None
    assert second.are_fresh_seeds_over(0)
    assert not second.are_fresh_seeds_over(1)
