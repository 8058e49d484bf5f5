import signal
import socket
import threading

import pytest
import torch

from lm_core.errors import UnheardError
from lm_core.parallel import rendezvous
from lm_core.parallel.rendezvous import agreed_name, found_store
from lm_core.parallel.world import World


@pytest.fixture
def store():
    return torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)


def in_a_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def names(store, n, results):
    """Threads in which processes agree on a name, the last of which starts a little later."""

    def agree(rank):
        results[rank] = agreed_name(World(rank, n, rank, n), store)

    threads = [in_a_thread(lambda rank=rank: agree(rank)) for rank in range(n)]
    for thread in threads:
        thread.join(20)
    assert sorted(results) == list(range(n))
    return set(results.values())


def test_processes_agree_on_a_name_that_none_before_them_had(store):
    found = [names(store, n, {}) for n in (3, 3, 2, 4)]
    assert all(len(each) == 1 for each in found)
    assert len(set.union(*found)) == 4


def test_words_of_processes_before_do_not_count(store):
    names(store, 3, {})
    first = {}
    thread = in_a_thread(lambda: first.setdefault(0, agreed_name(World(0, 3, 0, 3), store)))
    # All words are there, and nobody has found his.
    thread.join(0.5)
    assert not first
    others = {}
    threads = [
        in_a_thread(lambda r=r: others.setdefault(r, agreed_name(World(r, 3, r, 3), store)))
        for r in (2, 1)
    ]
    for each in (thread, *threads):
        each.join(20)
    assert set(first.values()) == set(others.values())
    assert len(others) == 2


def test_a_process_that_waits_for_long_says_so_and_answers_signals(monkeypatch):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    for name, value in {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    # PyTorch waits for the store of a first process in a thread, which nothing ends before that.
    monkeypatch.setattr(rendezvous, "_SECONDS_TO_COME", 5.0)
    monkeypatch.setattr(rendezvous, "_SECONDS_OF_QUIET", 0.1)
    told = []

    def tell(line):
        told.append(line)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        found_store(World(1, 2, is_launched=True), tell)
    (line,) = told
    assert line.startswith("process 1 of 2 waits for the others; torchrun sets MASTER_ADDR")


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_that_never_come_are_waited_for_so_long_and_no_longer(store, rank, monkeypatch):
    monkeypatch.setattr(rendezvous, "_SECONDS_TO_COME", 0.2)
    with pytest.raises(UnheardError, match="not all of the 3 processes of this run have come"):
        agreed_name(World(rank, 3), store)
