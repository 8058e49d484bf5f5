"""How the processes that a launcher has started find each other, whatever was there before them.

They share a store, a small table of texts, which torchrun's agent keeps for all of them, also over
restarts (https://docs.pytorch.org/docs/stable/distributed.html, "Distributed Key-Value Store").
"""

import contextlib
import json
import queue
import secrets
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from lm_core.errors import UnheardError
from lm_core.parallel.world import World

# Of the lab in the store, apart from what PyTorch keeps there.
OWN = "lm_core"
# What a person may have to do about variables of the environment.
HINT = "torchrun sets MASTER_ADDR and MASTER_PORT, RANK and WORLD_SIZE; alone, unset them"
# Longest pause between two looks at what others say, in seconds: a signal is answered in between.
PAUSE = 0.05
# In so many seconds all processes of a launch have come, and imported what they need.
_SECONDS_TO_COME = 600.0
# After so many seconds of waiting for the others somebody may want to know.
_SECONDS_OF_QUIET = 10.0
_PROPOSED = "proposed"
# Random bytes of a word or name: no two are ever the same.
_WORD_BYTES = 8


def found_store(world: World, tell: Callable[[str], None]) -> Any:
    """The store of the processes, found in a thread: PyTorch answers no signal while it waits.

    Args:
        world: The processes.
        tell: Called with a line for the person who waits, where others do not come for long.

    Raises:
        RuntimeError: As PyTorch has it, where they cannot be reached, or ValueError, where the
            environment lacks what says where they are.
    """
    from torch.distributed import rendezvous

    found: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def find() -> None:
        try:
            found.put(next(iter(rendezvous("env://", timeout=timedelta(seconds=_SECONDS_TO_COME)))))
        except Exception as error:
            found.put(error)

    threading.Thread(target=find, name="rendezvous", daemon=True).start()
    hint_at: float | None = time.monotonic() + _SECONDS_OF_QUIET
    while True:
        with contextlib.suppress(queue.Empty):
            answer = found.get(timeout=PAUSE)
            if isinstance(answer, Exception):
                raise answer
            return answer[0]
        if hint_at is not None and time.monotonic() > hint_at:
            tell(f"process {world.rank} of {world.n_processes} waits for the others; {HINT}")
            hint_at = None


def agreed_name(world: World, store: Any) -> str:
    """A name that these processes have for their meeting, and none before them had.

    A launcher starts processes again, in other numbers too, and keeps the store: what is in it may
    be of those before. So each says a word of its own, and a name counts once all have found their
    word beside it.

    Args:
        world: The processes.
        store: Their store.

    Raises:
        UnheardError: Not all of them have come.
    """
    store = prefixed(store, OWN)
    end = time.monotonic() + _SECONDS_TO_COME
    if world.is_first:
        words = [_word_of(rank) for rank in range(1, world.n_processes)]
        return _proposed_until_found(store, words, end)
    own, found = secrets.token_hex(_WORD_BYTES), None
    store.set(_word_of(world.rank), own)
    while time.monotonic() < end:
        proposed = json.loads(store.get(_PROPOSED)) if store.check([_PROPOSED]) else None
        if proposed and own in proposed["words"] and proposed["name"] != found:
            found = proposed["name"]
            store.add(f"found-{found}", 1)
        if found and store.check([f"settled-{found}"]):
            return found
        time.sleep(PAUSE)
    raise _not_all_have_come(world.n_processes)


def _proposed_until_found(store: Any, keys: list[str], end: float) -> str:
    """The name of which all others have found that it stands beside their words."""
    words: list[str] = []
    name = ""
    while time.monotonic() < end:
        if all(store.check([key]) for key in keys):
            there = [store.get(key).decode() for key in keys]
            if there != words:
                # Until now, some were of processes before these.
                words, name = there, secrets.token_hex(_WORD_BYTES)
                store.set(_PROPOSED, json.dumps({"name": name, "words": words}))
            if store.add(f"found-{name}", 0) == len(keys):
                store.set(f"settled-{name}", "")
                return name
        time.sleep(PAUSE)
    raise _not_all_have_come(len(keys) + 1)


def _not_all_have_come(n_processes: int) -> UnheardError:
    message = f"not all of the {n_processes} processes of this run have come within"
    return UnheardError(f"{message} {_SECONDS_TO_COME:.0f} seconds; the others may say why")


def _word_of(rank: int) -> str:
    return f"word-{rank}"


def prefixed(store: Any, name: str) -> Any:
    """A part of a store, with names of its own."""
    from torch.distributed import PrefixStore

    return PrefixStore(name, store)
