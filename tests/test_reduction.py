"""What several real processes do together is in test_trainer_together.py."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm_core.errors import InputError
from lm_core.parallel.group import Group
from lm_core.parallel.world import World
from lm_core.training.reduction import (
    N_PIECES,
    Alone,
    Exact,
    build_reduction,
    require_shareable,
)
from tests.one_of_several import Averaged, Heard

EXACT_NUMBERS = (1, 2, 4, 8)


class OneWeight(torch.nn.Module):
    """A model with a single number, whose gradient each part adds to."""

    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))


def gradient_of(kind, values, rank=0, n_processes=1, n_parts=1):
    """The gradient and loss of a process whose sequences each have a loss, weight times value.

    Returns:
        Gradient, loss, and the sequences of each part.
    """
    model, parts = OneWeight(), []
    reduction = kind(model, Heard(World(rank, n_processes)), len(values), n_parts)

    def compute(part):
        parts.append(list(part))
        mean = torch.tensor([values[i] for i in part]).mean()
        ((model.weight * mean).sum() / reduction.divisor(part)).backward()
        return mean

    loss = reduction.gradient(compute)
    return float(model.weight.grad), float(loss), parts


sizes = st.integers(1, 40)
numbers = st.integers(1, 9)


@given(st.data(), numbers, numbers)
def test_each_sequence_is_computed_once_and_weighs_the_same(data, n_processes, n_parts):
    values = data.draw(st.lists(st.floats(-10, 10, width=32), min_size=n_processes, max_size=40))
    found = [gradient_of(Averaged, values, r, n_processes, n_parts) for r in range(n_processes)]
    mean = sum(values) / len(values)
    # The engine takes the mean of the gradients.
    assert sum(gradient for gradient, _, _ in found) / n_processes == pytest.approx(mean, abs=1e-4)
    assert sum(loss for _, loss, _ in found) == pytest.approx(mean, abs=1e-4)
    assert [i for _, _, parts in found for part in parts for i in part] == list(range(len(values)))
    # Engines that wait for each other at each part need as many in all.
    assert len({len(parts) for _, _, parts in found}) == 1
    assert all(part for _, _, parts in found for part in parts)


@given(st.lists(st.floats(-10, 10, width=32), min_size=8, max_size=40), st.integers(1, 20))
def test_exact_pieces_are_the_same_for_every_number_of_processes(values, n_parts):
    alone = gradient_of(Exact, values, n_parts=n_parts)
    assert alone[0] == pytest.approx(sum(values) / len(values), abs=1e-4)
    for n in EXACT_NUMBERS:
        found = [gradient_of(Exact, values, rank, n, n_parts) for rank in range(n)]
        assert [part for _, _, parts in found for part in parts] == alone[2]
        assert sum(gradient for gradient, _, _ in found) == pytest.approx(alone[0], abs=1e-4)


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=7))
def test_a_batch_of_fewer_sequences_than_pieces_is_exact_too(values):
    gradient, loss, parts = gradient_of(Exact, values)
    assert gradient == pytest.approx(sum(values) / len(values), abs=1e-4)
    assert loss == pytest.approx(gradient, abs=1e-4)
    assert parts == [[i] for i in range(len(values))]


def test_exact_sums_are_those_of_a_fixed_tree():
    # Added up in order, from either end, the ones would vanish; in the tree they meet first.
    big = 2.0**26
    values = [1.0, 1.0, big, -big, big, 1.0, 1.0, -big]
    pieces = [torch.tensor(v) / N_PIECES for v in values]
    (a, b, c, d, e, f, g, h) = pieces
    tree = ((a + b) + (c + d)) + ((e + f) + (g + h))
    assert gradient_of(Exact, values)[0] == float(tree)
    assert float(tree) != float(sum(pieces))


def test_one_process_weighs_parts_alike():
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    gradient, loss, parts = gradient_of(Alone, values, n_parts=3)
    assert parts == [[0, 1], [2, 3], [4, 5]]
    assert gradient == pytest.approx(3.5)
    assert loss == pytest.approx(3.5)


@given(st.integers(1, 64), st.integers(1, 64))
def test_a_batch_is_shared_or_refused_with_the_reason(batch_size, n_processes):
    if n_processes <= batch_size:
        require_shareable(n_processes, batch_size)
        return
    words = f"batch_size: {batch_size} sequences are too few for {n_processes} processes"
    with pytest.raises(InputError, match=words):
        require_shareable(n_processes, batch_size)


@pytest.mark.parametrize("n", range(1, 10))
def test_exact_sums_take_1_2_4_or_8_processes(n):
    if n in EXACT_NUMBERS:
        require_shareable(n, 16, is_exact=True)
        return
    with pytest.raises(InputError, match=f"exact_reduction: {n} processes .* 1, 2, 4 or 8"):
        require_shareable(n, 16, is_exact=True)


def test_none_is_for_one_process():
    require_shareable(1, 4, "none")
    with pytest.raises(InputError, match=re.escape("parallelism: none is for one process, and 2")):
        require_shareable(2, 4, "none")


@pytest.mark.parametrize("parallelism", ["auto", "none", "ddp", "fsdp"])
def test_one_process_needs_no_engine(parallelism):
    reduction = build_reduction(OneWeight(), Group(), 4, 1, parallelism)
    assert type(reduction) is Alone
    assert type(build_reduction(OneWeight(), Group(), 4, 1, is_exact=True)) is Exact
