"""Cases in processes of their own, which take turns without sharing settings of a process.

A process serves one case: it prepares it, and then runs it each time that it is asked to.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

READY = "ready"


def serve(case: Callable[[], object], calls_a_turn: int) -> None:
    """Runs a case in each turn that a line on standard input gives it, and answers with a line.

    The first call of a turn does not count: it brings back to the caches and to memory what the
    others have driven out.

    Args:
        case: What to run.
        calls_a_turn: How many calls count.
    """
    print(READY, flush=True)
    for _ in sys.stdin:
        case()
        start = time.perf_counter()
        for _ in range(calls_a_turn):
            case()
        print(READY, (time.perf_counter() - start) / calls_a_turn, flush=True)


class Contestant:
    """A case in a process of its own.

    Args:
        module: The module that serves the case, such as ``benchmarks.train_step``.
        arguments: Its arguments.
        environment: Variables that it has besides this process's.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self._answer()

    def __call__(self) -> float:
        """Gives the case a turn, and returns the seconds of a call of it."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        if not line.startswith(READY):
            raise RuntimeError(f"a contestant ended or said {line!r} instead of {READY!r}")
        return line.removeprefix(READY)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
