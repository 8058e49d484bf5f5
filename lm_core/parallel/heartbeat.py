"""A sign of life that processes give while they wait for each other, and are not connected yet.

A machine that is gone says nothing, and the launchers of others do not notice.
"""

import threading
import time
from typing import Any

from lm_core.errors import MachineError
from lm_core.parallel.world import World

# Seconds from one sign to the next.
_SECONDS_BETWEEN = 2.0
# A launcher that is gone may keep the thread in the store's client, for so many seconds or more.
_LONGEST_END = 5.0
# A process that has given no sign for so many seconds is lost: a busy machine takes less.
SECONDS_OF_SILENCE = 120.0


class Heartbeat:
    """Tells the others that this process lives, in a thread of its own, and looks after them.

    Args:
        world: The processes.
        store: Their store.
        prefix: Of the lab's keys in it.
    """

    def __init__(self, world: World, store: Any, prefix: str) -> None:
        self._world, self._prefix, self._store = world, prefix, store
        self._over = threading.Event()
        # What was last seen of each, and when.
        self._seen: dict[int, tuple[int, float]] = {}
        self._next_look = 0.0
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        try:
            # A client of its own: one that waits for something lets nobody else through.
            store = self._store.clone()
            while not self._over.wait(_SECONDS_BETWEEN):
                store.add(self._key(self._world.rank), 1)
        except RuntimeError:  # The launcher has gone, with the store.
            return

    def _key(self, rank: int) -> str:
        return f"{self._prefix}/alive-{rank}"

    def stop(self) -> None:
        """Gives no more signs.

        The thread is waited for: one that is in the store's client while Python ends aborts it.
        """
        self._over.set()
        self._thread.join(_LONGEST_END)

    def require_others(self) -> None:
        """Looks whether all others have given a sign in time.

        Raises:
            MachineError: One has not.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _SECONDS_BETWEEN
        for rank in range(self._world.n_processes):
            count = self._store.add(self._key(rank), 0)
            before, since = self._seen.get(rank, (None, now))
            if count != before:
                self._seen[rank] = count, now
            elif now - since > SECONDS_OF_SILENCE and rank != self._world.rank:
                who = f"process {rank} of {self._world.n_processes}"
                message = f"{who} has given no sign of life for {SECONDS_OF_SILENCE:.0f} seconds"
                raise MachineError(f"{message}: it was killed, or its machine cannot be reached")
