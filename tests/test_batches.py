import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm_core.data.batches import RandomBatches, ShuffledBatches, ValidationWindows

TOKENS = np.arange(100, dtype=np.uint8)


def test_targets_are_the_tokens_that_come_next():
    inputs, targets = RandomBatches(TOKENS, batch_size=5, seq_len=7, seed=1).batch(1)
    assert inputs.shape == targets.shape == (5, 7)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(inputs, inputs[:, :1] + torch.arange(7))


@given(st.integers(0, 2**63 - 1), st.integers(1, 10_000))
def test_a_batch_is_a_function_of_seed_and_step(seed, step):
    first, other = (RandomBatches(TOKENS, 4, 7, seed) for _ in range(2))
    other.batch(step + 1)
    assert torch.equal(first.batch(step)[0], other.batch(step)[0])


def test_batches_differ_between_steps_and_seeds():
    def starts(seed, step):
        tokens = np.arange(60_000, dtype=np.uint16)
        return tuple(RandomBatches(tokens, 16, 2, seed).batch(step)[0][:, 0].tolist())

    drawn = {starts(seed, step) for seed in range(5) for step in range(1, 21)}
    assert len(drawn) == 100


def test_every_window_is_equally_likely_the_first_and_the_last_included():
    tokens = np.arange(12, dtype=np.uint8)
    batches = RandomBatches(tokens, batch_size=1000, seq_len=7, seed=3)
    starts = torch.cat([batches.batch(step)[0][:, 0] for step in range(1, 11)])
    counts = np.bincount(starts.numpy(), minlength=5)
    assert len(counts) == 5
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000 * 0.8)


def test_the_shortest_part_that_works_is_one_window_and_one_token():
    inputs, targets = RandomBatches(TOKENS[:8], 2, 7, 0).batch(1)
    assert inputs.tolist() == [list(range(7))] * 2
    assert targets.tolist() == [list(range(1, 8))] * 2
    with pytest.raises(ValueError, match=r"training part .* has 7 tokens; one window needs 8"):
        RandomBatches(TOKENS[:7], 2, 7, 0)


@given(st.integers(2, 200), st.integers(1, 20), st.integers(1, 5))
def test_every_target_comes_exactly_once_and_in_order(n, seq_len, windows_a_batch):
    tokens = np.arange(n, dtype=np.uint16)
    if n <= seq_len:
        with pytest.raises(ValueError, match="validation part"):
            list(ValidationWindows(tokens, seq_len, windows_a_batch))
        return
    pieces = list(ValidationWindows(tokens, seq_len, windows_a_batch))
    assert torch.cat([y.flatten() for _, y in pieces]).tolist() == list(range(1, n))
    assert torch.cat([x.flatten() for x, _ in pieces]).tolist() == list(range(n - 1))
    assert all(x.shape == y.shape and len(x) <= windows_a_batch for x, y in pieces)
    assert all(x.shape[1] == seq_len for x, _ in pieces[:-1])


def test_windows_can_be_cut_from_a_memory_map(tmp_path):
    TOKENS.tofile(tmp_path / "tokens")
    mapped = np.memmap(tmp_path / "tokens", dtype=np.uint8, mode="r")
    for step in (1, 2):
        expected, found = (RandomBatches(t, 3, 5, 1).batch(step) for t in (TOKENS, mapped))
        assert torch.equal(expected[0], found[0])
    pairs = zip(ValidationWindows(TOKENS, 8, 3), ValidationWindows(mapped, 8, 3), strict=True)
    assert all(torch.equal(a[1], b[1]) for a, b in pairs)


@given(st.integers(9, 120), st.integers(1, 8), st.integers(1, 30), st.integers(0, 2**63 - 1))
def test_shuffled_windows_come_each_once_an_epoch(n, seq_len, batch_size, seed):
    tokens = np.arange(n, dtype=np.uint16)
    n_windows = (n - 1) // seq_len
    batches = ShuffledBatches(tokens, batch_size, seq_len, seed)
    n_steps = -(-3 * n_windows // batch_size)
    inputs, targets = (
        torch.cat(parts)
        for parts in zip(*(batches.batch(step) for step in range(1, n_steps + 1)), strict=True)
    )
    assert torch.equal(targets, inputs + 1)
    starts = inputs[:, 0].tolist()
    windows = [seq_len * i for i in range(n_windows)]
    for epoch in range(3):
        assert sorted(starts[epoch * n_windows : (epoch + 1) * n_windows]) == windows


def test_shuffled_epochs_have_orders_of_their_own_by_seed():
    tokens = np.arange(1000, dtype=np.uint16)
    orders = {
        tuple(ShuffledBatches(tokens, 99, 10, seed).batch(epoch)[0][:, 0].tolist())
        for seed in range(4)
        for epoch in range(1, 5)
    }
    assert len(orders) == 16


def test_a_shuffled_batch_far_from_the_start_is_made_alone():
    tokens = np.arange(1000, dtype=np.uint16)
    one, other = (ShuffledBatches(tokens, 7, 10, seed=2) for _ in range(2))
    for step in range(1, 2000):
        last = one.batch(step)[0]
    assert torch.equal(other.batch(1999)[0], last)
    assert other.batch(99_999_999)[0].shape == (7, 10)
