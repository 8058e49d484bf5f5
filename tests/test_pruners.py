import pytest

from lm_core.search.trial_records import COMPLETED, PRUNED
from tests.small_studies import BASE, SPACE, records

STEPS = (10, 20, 30, 40)


def run(trials, losses):
    """A trial with these losses, by step: how far it comes."""
    number = trials.create("me")
    for step, loss in zip(STEPS, losses, strict=True):
        trials.report(number, step, loss)
        if trials.should_prune(number):
            trials.finish(number, PRUNED, None, step)
            return step
    trials.finish(number, COMPLETED, losses[-1], STEPS[-1])
    return STEPS[-1]


@pytest.fixture
def study(folder):
    def with_pruner(pruner):
        return records(folder, f"{BASE}{SPACE}trials: 100\npruner: {pruner}\n")

    return with_pruner


@pytest.mark.parametrize("pruner", ["hyperband", "median"])
def test_bad_trials_are_pruned_at_evaluations_and_good_ones_are_not(study, pruner):
    trials = study(pruner)
    for loss in (1.0, 1.1, 1.2, 1.3):
        run(trials, [loss + 1, loss + 0.5, loss + 0.2, loss])
    bad = [run(trials, [9.0, 9.0, 9.0, 9.0]) for _ in range(8)]
    # Hyperband gives some of them a longer start, that of its second bracket.
    assert sorted(bad)[4] <= 10
    assert run(trials, [0.5, 0.4, 0.3, 0.2]) == 40


def test_without_a_pruner_nothing_is_pruned(study):
    trials = study("none")
    assert [run(trials, [loss] * 4) for loss in (1.0, 9.0, 99.0)] == [40] * 3


def test_the_median_waits_for_some_whole_trials_and_some_steps(study):
    trials = study("median")
    assert [run(trials, [loss] * 4) for loss in (1.0, 9.0, 9.0, 9.0)] == [40] * 4
    assert run(trials, [99.0] * 4) == 10


def test_a_trial_is_never_pruned_at_its_last_step(study):
    trials = study("hyperband")
    run(trials, [1.0] * 4)
    number = trials.create("me")
    trials.report(number, 40, 99.0)
    assert not trials.should_prune(number)


def test_what_was_found_unpromising_stays_so(study, folder):
    trials = study("median")
    for _ in range(4):
        run(trials, [1.0] * 4)
    number = trials.create("me")
    trials.report(number, 10, 9.0)
    assert trials.should_prune(number)
    again = study("median")
    assert again.get(number).to_prune
    assert again.should_prune(number)
