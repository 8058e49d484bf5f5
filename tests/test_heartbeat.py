import time

import pytest
import torch

from lm_core.errors import MachineError
from lm_core.parallel import heartbeat
from lm_core.parallel.heartbeat import Heartbeat
from lm_core.parallel.world import World


@pytest.fixture
def store():
    return torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(heartbeat, "_SECONDS_BETWEEN", 0.05)
    monkeypatch.setattr(heartbeat, "SECONDS_OF_SILENCE", 1.0)


def look_for(beat, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        beat.require_others()
        time.sleep(0.01)


@pytest.mark.usefixtures("quick")
def test_a_process_that_gives_no_sign_is_lost_and_one_that_does_is_not(store):
    first, second = (Heartbeat(World(rank, 2), store, "run") for rank in (0, 1))
    try:
        look_for(first, 2.5)
        second.stop()
        with pytest.raises(MachineError, match="process 1 of 2 has given no sign of life for 1 s"):
            look_for(first, 60)
    finally:
        first.stop()


@pytest.mark.usefixtures("quick")
def test_one_that_never_came_is_lost_too(store):
    first = Heartbeat(World(0, 2), store, "run")
    try:
        with pytest.raises(MachineError, match="killed, or its machine cannot be reached"):
            look_for(first, 60)
    finally:
        first.stop()
