"""Cases in processes of their own, which take turns without sharing settings of a process.

A process serves one case: it prepares it, and then runs it each time that it is asked to.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

READY = "ready"


def serve(case: Callable[[], object]) -> None:
    """Runs a case for each line on standard input, and answers with a line."""
    print(READY, flush=True)
    for _ in sys.stdin:
        case()
        print(READY, flush=True)


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
        self._wait()

    def __call__(self) -> None:
        """Has the case run once."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._wait()

    def _wait(self) -> None:
        line = self._process.stdout.readline()
        if line.strip() != READY:
            raise RuntimeError(f"a contestant ended or said {line!r} instead of {READY!r}")

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
