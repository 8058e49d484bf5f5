"""The SHA-256 of a text while something else is done with it."""

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

# Blocks that may wait to be hashed: enough that neither side waits for long, few for the memory.
_MOST_WAITING = 8


class DigestThread:
    """A SHA-256 that is computed in a thread of its own, on another core where there is one."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
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
        if len(self._waiting) == _MOST_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._digest.update, data))

    def hexdigest(self) -> str:
        """The SHA-256 of all that was added, in hexadecimal digits."""
        while self._waiting:
            self._waiting.popleft().result()
        return self._digest.hexdigest()
