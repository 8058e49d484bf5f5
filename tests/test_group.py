import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm_core.errors import InputError, MachineError
from lm_core.parallel.group import Group, losses_told
from lm_core.parallel.meeting import Meeting
from lm_core.parallel.world import World
from tests.processes import together

# Numbers whose sum depends on the order in which they are added.
NUMBERS = [1e16, 1.0, -1e16, 3.14, 2.71, 1e-3, 7.0]


@given(st.integers(0, 1000), st.integers(1, 20))
def test_shares_are_disjoint_whole_and_even(n, n_processes):
    shares = [Group(World(rank, n_processes)).share_of(n) for rank in range(n_processes)]
    assert [number for share in shares for number in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_everything_is_its_own():
    group, tensor = Group(), torch.ones(3)
    assert group.is_alone
    assert group.is_first
    assert group.sum(tensor) is tensor
    assert group.joined({0: 1.5, 2: 2.5}, 3) == [1.5, 0, 2.5]
    assert group.largest(3, 0) == [3, 0]
    assert group.shared({"a": [1, None]}) == {"a": [1, None]}
    assert group.shared_tensors({"x": tensor})["x"] is tensor


def speak(group):
    """Everything that a group does, once."""
    own = {i: NUMBERS[i] for i in group.share_of(len(NUMBERS))}
    summed = torch.tensor([group.rank + 1.0])
    tensors = {
        "half": torch.arange(6, dtype=torch.bfloat16).view(2, 3).T,
        "scalar": torch.tensor(3.0),
        "none": torch.empty(0, 4),
        "word": torch.tensor([2**15 + 1], dtype=torch.uint16),
        "truth": torch.tensor([True, False]),
    }
    given_tensors = tensors if group.is_first else {}
    received = group.shared_tensors(given_tensors)
    return {
        "sum": group.sum(summed).tolist(),
        "untouched": summed.tolist(),
        "joined": group.joined(own, len(NUMBERS)),
        "largest": group.largest(group.rank, 15 if group.rank == 1 else 0),
        "shared": group.shared({"text": "ä", "null": None} if group.is_first else None),
        "empty": group.shared(None),
        "tensors": {
            name: (str(t.dtype), list(t.shape), torch.equal(t, tensors[name]))
            for name, t in received.items()
        },
        "met": group.exchanged(summed, 1 - group.rank).tolist() if group.rank < 2 else None,
    }


def test_three_processes_add_agree_and_hand_over():
    found = together(3, speak)
    assert found[0]["met"] == [2.0]
    assert found[1]["met"] == [1.0]
    for each in found:
        assert each["sum"] == [6.0]
        assert struct.pack("7d", *each["joined"]) == struct.pack("7d", *NUMBERS)
        assert each["largest"] == [2, 15]
        assert each["shared"] == {"text": "ä", "null": None}
        assert each["empty"] is None
        assert each["tensors"] == {
            "half": ("torch.bfloat16", [3, 2], True),
            "scalar": ("torch.float32", [], True),
            "none": ("torch.float32", [0, 4], True),
            "word": ("torch.uint16", [1], True),
            "truth": ("torch.bool", [2], True),
        }
    assert [each["untouched"] for each in found] == [[1.0], [2.0], [3.0]]


def a_meeting(n_processes):
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    return Meeting(World(0, n_processes), store, "now"), store


def test_a_broken_connection_is_told_in_words():
    words = "[/src/gloo/pair.cc:553] Connection closed by peer [10.0.0.1]:27570. This is typically"
    with (
        pytest.raises(MachineError, match=r"one of the 2 .* lost.*\(Connection closed by peer \["),
        losses_told(a_meeting(2)[0]),
    ):
        raise RuntimeError(words)


def test_what_broke_a_connection_is_told_if_its_process_said_so():
    meeting, store = a_meeting(2)
    other = Meeting(World(1, 2), store, "now")
    with pytest.raises(ZeroDivisionError), other:
        raise ZeroDivisionError("nothing to divide by")
    with (
        pytest.raises(MachineError, match=r"process 1 of 2 on .*: ZeroDivisionError: nothing to"),
        losses_told(meeting),
    ):
        raise RuntimeError("gloo: connection reset by peer")


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), losses_told(a_meeting(2)[0]):
        raise RuntimeError("the shapes do not fit")
    with pytest.raises(InputError, match="connection"), losses_told(a_meeting(2)[0]):
        raise InputError("a connection")
    with pytest.raises(RuntimeError, match="gloo"), losses_told(Meeting(World())):
        raise RuntimeError("gloo")
