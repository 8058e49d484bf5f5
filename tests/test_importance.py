"""Which hyperparameters mattered, and how sure that is."""

import math

import numpy as np
import pytest

from lm_core.search.importance import importance
from lm_core.search.space import Choice, Range
from lm_core.search.trial_records import COMPLETED, PRUNED, TrialRecord

SPACE = {
    "learning_rate": Range(1e-4, 1e-2, is_log=True),
    "dropout": Range(0.0, 0.3),
    "n_layers": Choice((2, 4, 6)),
}


def trials(n, loss_of, last_step=20, seed=0):
    """Trials at random values, each with a loss after step 10 and after the last one."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(n):
        values = {
            "learning_rate": SPACE["learning_rate"].at(generator.random()),
            "dropout": SPACE["dropout"].at(generator.random()),
            "n_layers": int(generator.choice([2, 4, 6])),
        }
        loss = loss_of(values)
        losses = {10: loss + 1, last_step: loss}
        found.append(
            TrialRecord(number, values, COMPLETED, "", loss, losses, 20, 1.0, "", 0, False)
        )
    return found


def bowl(values):
    return 2 + (math.log10(values["learning_rate"]) + 3) ** 2


def shares(found):
    return {share.key: share for share in found.shares}


def test_what_alone_decides_has_nearly_all_of_the_variance():
    found = importance(SPACE, trials(40, bowl), seed=1)
    assert (found.step, found.n_trials) == (20, 40)
    assert found.shares[0].key == "learning_rate"
    assert shares(found)["learning_rate"].mean > 0.7
    assert shares(found)["n_layers"].mean < 0.15


def test_a_choice_that_decides_is_found_too():
    found = importance(SPACE, trials(40, lambda values: values["n_layers"]), seed=1)
    assert shares(found)["n_layers"].mean > 0.7


@pytest.mark.exhaustive
def test_what_is_not_sure_has_a_wide_interval():
    def noise(values):
        return math.sin(1e4 * values["dropout"])

    few = importance(SPACE, trials(12, noise), seed=1)
    sure = importance(SPACE, trials(60, bowl), seed=1)
    widest = max(share.high - share.low for share in few.shares)
    assert widest > 0.2
    assert all(share.low <= share.mean <= share.high for share in (*few.shares, *sure.shares))


@pytest.mark.exhaustive
def test_the_same_trials_give_the_same_importance():
    found = [importance(SPACE, trials(15, bowl), seed=3) for _ in range(2)]
    assert found[0] == found[1]


def test_trials_are_compared_at_a_step_that_most_of_them_reached():
    records = trials(20, bowl)
    pruned = [
        record._replace(outcome=PRUNED, loss=None, losses={10: record.losses[10]})
        if record.number % 2
        else record
        for record in records
    ]
    found = importance(SPACE, pruned, seed=1)
    assert (found.step, found.n_trials) == (10, 20)


@pytest.mark.parametrize(
    "case", ["few trials", "one loss", "one hyperparameter", "no losses", "one point"]
)
def test_where_nothing_can_be_told_nothing_is_told(case):
    records = trials(7 if case == "few trials" else 20, bowl)
    space = SPACE
    if case == "one loss":
        records = trials(20, lambda values: 2.0)
    elif case == "one hyperparameter":
        space = {"learning_rate": SPACE["learning_rate"]}
    elif case == "no losses":
        records = [record._replace(losses={}) for record in records]
    elif case == "one point":
        records = [record._replace(values=records[0].values) for record in records]
    assert importance(space, records, seed=1) is None
