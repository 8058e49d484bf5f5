"""The SHA-256 of a text while something else is done with it."""

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

# Blocks that may wait to be hashed: enough that neither side waits for long, few for the memory.
_MOST_WAITING = 8
# Less is gathered first: to hand over one of the small documents of a corpus takes longer than to
# hash it.
_FEWEST_BYTES = 2**16
# More than this does not wait, so that what waits never takes much memory.
_MOST_BYTES = 2**20


class DigestThread:
    """A SHA-256 that is computed in a thread of its own, on another core where there is one."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._gathered: list[bytes] = []
        self._n_gathered = 0
        self._waiting: deque[Future[None]] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sha256")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def update(self, data: bytes) -> None:
        """Adds a block behind the others; waits where too many are waiting."""
        self._gathered.append(data)
        self._n_gathered += len(data)
        if self._n_gathered >= _FEWEST_BYTES:
            is_large = self._n_gathered > _MOST_BYTES
            self._hand_over()
            if is_large:
                self._wait()

    def hexdigest(self) -> str:
        """The SHA-256 of all that was added, in hexadecimal digits."""
        self._hand_over()
        self._wait()
        return self._digest.hexdigest()

    def _hand_over(self) -> None:
        if len(self._waiting) == _MOST_WAITING:
            self._waiting.popleft().result()
        data = self._gathered[0] if len(self._gathered) == 1 else b"".join(self._gathered)
        self._waiting.append(self._thread.submit(self._digest.update, data))
        self._gathered, self._n_gathered = [], 0

    def _wait(self) -> None:
        while self._waiting:
            self._waiting.popleft().result()
