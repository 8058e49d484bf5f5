"""Weights of ours made of weights of another program, and the other way round."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lm_core.exchange.parts import Part, Piece, to_ours, to_theirs

sizes = st.integers(1, 4)


@given(st.lists(sizes, min_size=1, max_size=3), sizes, st.booleans())
def test_there_and_back_is_the_same_whatever_is_split_and_transposed(rows, columns, is_transposed):
    is_transposed &= len(rows) == 1
    weight = torch.randn(sum(rows), columns)
    shapes = [(columns, n) if is_transposed else (n, columns) for n in rows]
    pieces = tuple(Piece(f"their {i}", shape) for i, shape in enumerate(shapes))
    parts = [Part("our", pieces, is_transposed)]
    theirs = to_theirs(parts, {"our": weight})
    assert [tuple(theirs[piece.name].shape) for piece in pieces] == shapes
    assert torch.equal(to_ours(parts, theirs.__getitem__)["our"], weight)


@given(sizes, sizes, sizes, sizes)
def test_heads_that_share_keys_get_them_each_one_after_the_other(n_groups, repeats, group, columns):
    shared = torch.randn(n_groups * group, columns)
    piece = Piece("k", tuple(shared.shape), repeats, group)
    (found,) = to_ours([Part("our", (piece,))], lambda name: shared).values()
    for head in range(n_groups * repeats):
        own = found[head * group : (head + 1) * group]
        of_group = head // repeats
        assert torch.equal(own, shared[of_group * group : (of_group + 1) * group])


def test_what_either_side_lacks_is_of_zeros():
    pieces = (Piece("there", (2, 3)), Piece("not there", (1, 3), is_zero=True))
    read = {"there": torch.ones(2, 3)}.__getitem__
    (found,) = to_ours([Part("our", pieces)], read).values()
    assert found.tolist() == [[1.0] * 3] * 2 + [[0.0] * 3]
    written = to_theirs([Part("our", pieces)], {})
    assert [tensor.tolist() for tensor in written.values()] == [[[0.0] * 3] * 2, [[0.0] * 3]]


def test_half_precision_becomes_float32():
    half = torch.tensor([1.5, -2.25], dtype=torch.bfloat16)
    (found,) = to_ours([Part("our", (Piece("their", (2,)),))], lambda name: half).values()
    assert found.dtype == torch.float32
    assert found.tolist() == [1.5, -2.25]
