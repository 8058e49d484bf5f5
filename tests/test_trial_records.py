import pytest

from lm_core.errors import MachineError
from lm_core.search import trial_records
from lm_core.search.storage import open_database, open_journal
from lm_core.search.trial_records import (
    COMPLETED,
    DIVERGED,
    FAILED,
    PRUNED,
    RUNNING,
    FreshResult,
    TrialRecords,
    definition_in,
)
from tests.small_studies import BASE, SPACE, records, study

FIVE = f"{BASE}{SPACE}trials: 5\n"


def test_there_are_as_many_trials_as_asked_for_and_no_more(folder):
    trials = records(folder, FIVE)
    assert [trials.create("me") for _ in range(7)] == [0, 1, 2, 3, 4, None, None]
    assert records(folder, FIVE).create("me") is None
    assert records(folder, FIVE.replace("5", "6")).create("me") == 5


def test_a_trial_is_known_with_all_that_was_noted(folder):
    trials = records(folder, FIVE)
    number = trials.create("me")
    found = trials.get(number)
    assert (found.outcome, found.loss, found.owner, found.name) == (RUNNING, None, "me", "0000")
    assert set(found.values) == {"learning_rate", "dropout"}
    trials.report(number, 10, 3.0)
    trials.report(number, 20, 2.0)
    assert trials.get(number).newest_loss == 2.0
    trials.finish(number, COMPLETED, 1.5, 40)
    found = records(folder, FIVE).get(number)
    assert (found.outcome, found.loss, found.steps) == (COMPLETED, 1.5, 40)
    assert found.losses == {10: 3.0, 20: 2.0}
    assert found.seconds >= 0


@pytest.mark.parametrize("outcome", [PRUNED, DIVERGED, FAILED])
def test_a_trial_without_a_result_keeps_its_reason(folder, outcome):
    trials = records(folder, FIVE)
    trials.finish(trials.create("me"), outcome, None, 12, "it was so")
    found = records(folder, FIVE).get(0)
    assert (found.outcome, found.loss, found.steps, found.reason) == (
        outcome,
        None,
        12,
        "it was so",
    )


def test_the_first_end_of_a_trial_stands(folder):
    first, second = records(folder, FIVE), records(folder, FIVE)
    first.finish(first.create("me"), COMPLETED, 1.0, 40)
    second.finish(0, FAILED, None, 0, "late")
    assert second.get(0).loss == 1.0


def test_an_end_that_the_storage_refuses_is_told(folder):
    trials = records(folder, FIVE)
    trials.create("me")
    with pytest.raises(MachineError, match="trial 0 cannot be ended"):
        trials.finish(0, COMPLETED, float("nan"), 40)


def test_values_that_a_kill_left_out_are_chosen_as_they_would_have_been(folder, monkeypatch):
    class Killed(BaseException):
        pass

    (folder / "a").mkdir()
    straight = records(folder / "a", FIVE)
    straight.create("me")
    trials = records(folder, FIVE)
    real, calls = trials._storage.set_trial_param, []

    def kills(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(trials._storage, "set_trial_param", kills)
    with pytest.raises(Killed):
        trials.create("me")
    again = records(folder, FIVE)
    assert len(again.get(0).values) == 1
    again.choose_values(0)
    assert again.get(0).values == straight.get(0).values


def test_of_two_machines_that_make_the_last_trial_one_never_made_it(folder, monkeypatch):
    """The first has counted the trials when the second makes one."""
    storage = [open_database("sqlite:///trials.db") for _ in range(2)]
    (folder / "a").mkdir()
    one = study(folder / "a", FIVE)
    first, second = (TrialRecords(each, "study", one, surplus=True) for each in storage)
    for _ in range(4):
        first.create("first")
    real = trial_records.TrialRecords._trials
    counted = real(first)
    assert second.create("second") == 4

    def late(self):
        monkeypatch.setattr(trial_records.TrialRecords, "_trials", real)
        return counted

    monkeypatch.setattr(trial_records.TrialRecords, "_trials", late)
    assert first.create("first") is None
    assert [record.owner for record in first.all()] == ["first"] * 4 + ["second"]
    assert first.create("first") is None
    more = TrialRecords(storage[0], "study", study(folder / "a", FIVE.replace("5", "7")))
    # The number that was given up stays free; there are seven trials all the same.
    assert [more.create("first") for _ in range(3)] == [6, 7, None]


def test_signs_of_life_and_owners_are_noted(folder):
    trials = records(folder, FIVE)
    trials.create("me")
    trials.beat(0)
    trials.beat(0)
    trials.take_over(0, "you")
    assert (trials.get(0).beats, trials.get(0).owner) == (2, "you")


def test_results_on_fresh_seeds_are_kept_for_each_winner(folder):
    trials = records(folder, FIVE)
    trials.add_fresh(3, FreshResult(11, COMPLETED, 1.5, ""))
    trials.add_fresh(3, FreshResult(12, FAILED, None, "killed"))
    again = records(folder, FIVE)
    assert again.fresh(3) == [
        FreshResult(11, COMPLETED, 1.5, ""),
        FreshResult(12, FAILED, None, "killed"),
    ]
    assert again.fresh(4) == []


def test_two_who_note_results_on_fresh_seeds_at_once_both_do(folder, monkeypatch):
    first, second = records(folder, FIVE), records(folder, FIVE)
    before = dict(second._optuna.user_attrs)
    first.add_fresh(1, FreshResult(11, COMPLETED, 1.5, ""))
    # What the second has read is older than what the first has written.
    monkeypatch.setattr(type(second._optuna), "user_attrs", property(lambda study: before))
    second.add_fresh(1, FreshResult(12, COMPLETED, 1.25, ""))
    monkeypatch.undo()
    assert {result.seed: result.loss for result in first.fresh(1)} == {11: 1.5, 12: 1.25}
    assert first.fresh(11) == []


@pytest.mark.parametrize("odd", [3, "x", [], ["completed", "low"], [None] * 9])
def test_odd_results_in_a_storage_do_no_harm(folder, odd):
    trials = records(folder, FIVE)
    trials._optuna.set_user_attr("fresh_seed_1_11", odd)
    trials._optuna.set_user_attr("fresh_seed_1_x", odd)
    assert [result.loss for result in trials.fresh(1)] in ([], [None])


def test_the_definition_of_a_study_stands_in_its_storage(folder):
    storage = open_journal(folder / "study.journal")
    assert definition_in(storage, "study") is None
    one = study(folder)
    TrialRecords(storage, "study", one)
    found = definition_in(open_journal(folder / "study.journal"), "study")
    assert found == one.definition()


@pytest.mark.parametrize("text", ["[]", "{", "{}", 3, '{"values": 1, "search": {}}'])
def test_a_study_that_is_not_the_lab_s_is_told(folder, text):
    storage = open_journal(folder / "study.journal")
    trials = TrialRecords(storage, "study", study(folder))
    trials._optuna.set_user_attr("definition", text)
    with pytest.raises(MachineError, match="'study' that is none of the lab's"):
        definition_in(storage, "study")


@pytest.mark.parametrize(
    "params",
    [
        {"learning_rate": 5.0},
        {"corpus": "/etc/passwd"},
        {"learning_rate": "0.1'\nTrainer.hooks = None"},
    ],
)
def test_values_that_are_none_of_the_study_reach_no_command_line(folder, params):
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import TrialState, create_trial

    trials = records(folder, FIVE)
    for state, loss in ((TrialState.COMPLETE, 0.1), (TrialState.RUNNING, None)):
        kinds = {key: CategoricalDistribution([value]) for key, value in params.items()}
        known = {"outcome": "completed", "beats": "x", "steps": None, "owner": 3}
        trials._optuna.add_trial(
            create_trial(
                state=state, value=loss, params=params, distributions=kinds, user_attrs=known
            )
        )
    for found in trials.all():
        assert (found.outcome, found.values, found.loss) == (FAILED, {}, None)
        assert found.reason == "its values in the storage are none of this study"
