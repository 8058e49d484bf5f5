"""Which values trials get: reproducible, never twice the same, and better than by chance."""

import math
import pickle
import statistics

import pytest

from lm_core.config.rendering import canonical
from lm_core.errors import DivergenceError
from lm_core.search.samplers import fresh_seed
from lm_core.search.trial_records import COMPLETED, DIVERGED, FAILED, PRUNED
from tests.small_studies import BASE, SPACE, records
from tests.tiny_trainer import build

GRID = "search:\n  n_layers: {choice: [1, 2, 3]}\n  warmup_steps: {int: [0, 3]}\n"


def bowl(values):
    """A loss with a known optimum: a learning rate of 2e-2, a dropout of 0.1."""
    return math.log10(values["learning_rate"] / 2e-2) ** 2 + 4 * (values["dropout"] - 0.1) ** 2


def done(folder, text, n, loss=bowl):
    """The trials of a study whose runs are a formula."""
    folder.mkdir(exist_ok=True)
    trials = records(folder, f"{BASE}{text}trials: {n}\n")
    while (number := trials.create("me")) is not None:
        trials.finish(number, COMPLETED, loss(trials.get(number).values), 40)
    return trials.all()


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_the_same_study_suggests_the_same_values(tmp_path, sampler):
    text = f"sampler: {sampler}\n{SPACE}"
    first = done(tmp_path / "a", text, 12)
    second = done(tmp_path / "b", text, 12)
    assert [record.values for record in first] == [record.values for record in second]
    assert len({canonical(record.values) for record in first}) == 12


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_a_study_that_is_opened_anew_for_each_trial_suggests_the_same(tmp_path, sampler):
    text = f"sampler: {sampler}\n{SPACE}"
    straight = done(tmp_path / "a", text, 12)
    for _ in range(12):
        trials = records(tmp_path, f"{BASE}{text}trials: 12\n")
        number = trials.create("me")
        trials.finish(number, COMPLETED, bowl(trials.get(number).values), 40)
    assert [record.values for record in trials.all()] == [record.values for record in straight]


def test_another_seed_suggests_other_values(tmp_path):
    first = done(tmp_path / "a", SPACE, 3)
    trials = records(tmp_path, f"{BASE}{SPACE}trials: 3\n".replace("seed: 7", "seed: 8"))
    assert trials.get(trials.create("me")).values != first[0].values


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_finite_space_is_tried_without_a_repetition(tmp_path, sampler):
    found = done(tmp_path, f"sampler: {sampler}\n{GRID}", 12, lambda values: values["n_layers"])
    tried = {(record.values["n_layers"], record.values["warmup_steps"]) for record in found}
    assert tried == {(n, m) for n in (1, 2, 3) for m in range(4)}


def test_a_part_of_a_grid_is_spread_over_all_of_it(tmp_path):
    text = "search:\n  n_layers: {int: [1, 8]}\n  warmup_steps: {int: [0, 7]}\n"
    found = done(tmp_path, f"sampler: grid\n{text}", 16, lambda values: values["n_layers"])
    for key in ("n_layers", "warmup_steps"):
        assert len({record.values[key] for record in found}) >= 5


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_values_are_of_the_kind_that_the_hyperparameter_takes(tmp_path, sampler):
    text = "search:\n  batch_size: {int_log: [4, 64]}\n  dropout: {uniform: [0.0, 0.5]}\n"
    for record in done(tmp_path, f"sampler: {sampler}\n{text}", 15, lambda v: v["batch_size"]):
        assert type(record.values["batch_size"]) is int
        assert 4 <= record.values["batch_size"] <= 64
        assert 0.0 <= record.values["dropout"] <= 0.5


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_samplers_go_on_after_failures_and_divergences(tmp_path, sampler):
    trials = records(tmp_path, f"{BASE}sampler: {sampler}\n{SPACE}trials: 24\n")
    outcomes = (FAILED, DIVERGED, PRUNED, COMPLETED)
    while (number := trials.create("me")) is not None:
        outcome = outcomes[number % 4]
        if outcome == PRUNED:
            trials.report(number, 10, 3.0)
        trials.finish(number, outcome, 1.0 if outcome == COMPLETED else None, 10)
    assert [record.outcome for record in trials.all()] == list(outcomes) * 6


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_the_optimum_is_found_better_than_at_random_for_the_same_trials(tmp_path, sampler):
    def best(kind, seed):
        text = f"sampler: {kind}\n{SPACE}"
        folder = tmp_path / f"{kind}-{seed}"
        folder.mkdir()
        trials = records(folder, f"{BASE}{text}trials: 30\n".replace("seed: 7", f"seed: {seed}"))
        while (number := trials.create("me")) is not None:
            trials.finish(number, COMPLETED, bowl(trials.get(number).values), 40)
        return min(record.loss for record in trials.all())

    seeds = range(7)
    found = [best(sampler, seed) for seed in seeds]
    at_random = [best("random", seed) for seed in seeds]
    assert statistics.median(found) < statistics.median(at_random) / 2
    assert sum(a < b for a, b in zip(found, at_random, strict=True)) >= 5


def test_what_runs_elsewhere_is_not_suggested_again(tmp_path):
    trials = records(tmp_path, f"{BASE}{SPACE}trials: 12\n")
    for _ in range(6):
        trials.finish(trials.create("me"), COMPLETED, 1.0, 40)
    for _ in range(6):
        trials.create("others")
    assert len({canonical(record.values) for record in trials.all()}) == 12


def test_fresh_seeds_are_neither_the_study_s_own_nor_equal():
    seeds = [fresh_seed(7, index) for index in range(100)]
    assert len({7, *seeds}) == 101
    assert seeds == [fresh_seed(7, index) for index in range(100)]
    assert seeds[0] != fresh_seed(8, 0)


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_nothing_is_pickled_or_unpickled(tmp_path, monkeypatch, sampler):
    def refuse(*arguments, **options):
        raise AssertionError("a pickle")

    for name in ("dumps", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    text = f"sampler: {sampler}\n{SPACE}"
    done(tmp_path, text, 20)
    assert len(done(tmp_path, text, 25)) == 25


@pytest.mark.exhaustive
def test_the_optimum_of_a_real_model_is_found_better_than_at_random_for_the_same_cost(tmp_path):
    """A model that learns a sentence in 40 steps; a grid says what can be reached."""
    text = (
        "max_steps: 40\nsearch:\n  learning_rate: {log_uniform: [1e-5, 1.0]}\n"
        "  beta1: {uniform: [0.0, 0.99]}\ntrials: 25\n"
    )

    def loss(learning_rate, beta1):
        settings = {"learning_rate": learning_rate, "beta1": beta1, "precision": "float32"}
        return build(dropout=0.0, max_steps=40, **settings).train().evaluation.loss

    def best(kind, seed):
        folder = tmp_path / f"{kind}-{seed}"
        folder.mkdir()
        trials = records(folder, f"{text}sampler: {kind}\nseed: {seed}\n")
        while (number := trials.create("me")) is not None:
            try:
                trials.finish(number, COMPLETED, loss(**trials.get(number).values), 40)
            except DivergenceError:
                trials.finish(number, DIVERGED, None, 40)
        return min(record.loss for record in trials.all() if record.loss is not None)

    grid = [loss(10**exponent, beta1) for exponent in (-4, -3, -2, -1) for beta1 in (0, 0.6, 0.9)]
    found, at_random = ([best(kind, seed) for seed in range(7)] for kind in ("tpe", "random"))
    assert statistics.median(found) < statistics.median(at_random) - 0.05
    assert sum(a < b for a, b in zip(found, at_random, strict=True)) >= 5
    assert statistics.median(found) < min(grid) + 0.2
