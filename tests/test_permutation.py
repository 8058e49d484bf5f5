"""Orders that are computed place by place."""

import tracemalloc
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.data.permutation import permuted


def order(n, seed=0, epoch=0):
    return permuted(np.arange(n), n, seed, "data_order", epoch)


@settings(max_examples=60)
@given(st.integers(1, 3000), st.integers(0, 2**63 - 1), st.integers(0, 2**40))
def test_each_number_comes_once(n, seed, epoch):
    assert sorted(order(n, seed, epoch)) == list(range(n))


@given(st.integers(2, 10**12), st.data())
def test_a_place_is_known_without_the_others(n, data):
    places = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20))
    together = permuted(np.array(places), n, 3, "data_order", 1)
    alone = [int(permuted(np.array([place]), n, 3, "data_order", 1)[0]) for place in places]
    assert together.tolist() == alone
    assert all(0 <= number < n for number in alone)


def test_orders_differ_between_seeds_and_epochs():
    assert len({tuple(order(50, seed, epoch)) for seed in range(10) for epoch in range(10)}) == 100


def test_every_order_is_about_equally_likely():
    # Of four numbers there are 24 orders; chi-squared with 23 degrees of freedom is below 60 in
    # all but a few of a hundred thousand cases.
    n_epochs = 12_000
    counts = Counter(tuple(order(4, 5, epoch)) for epoch in range(n_epochs))
    expected = n_epochs / 24
    assert len(counts) == 24
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 60


def test_neighbours_do_not_stay_neighbours():
    n = 10_000
    steps = np.diff(order(n))
    assert abs(np.mean(np.abs(steps)) - n / 3) < n / 50
    assert np.mean(steps == 1) < 0.002


def test_it_takes_memory_for_the_places_alone():
    places = np.arange(16) * 10**10
    tracemalloc.start()
    permuted(places, 10**12, 1, "data_order", 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
