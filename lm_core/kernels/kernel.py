"""Loops that Numba compiles for this processor, where PyTorch or numpy would need many passes.

Numba keeps what it compiled in ``__pycache__`` beside the source, or where that cannot be written
in the user's cache, and takes it again for the same processor and the same sources. It does not
look whether it is still what it was, and LLVM ends the process over some of what it is not; so a
checksum of each file is kept beside them.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
from numba.core.caching import FunctionCache

_OPTIONS = {"nogil": True, "error_model": "numpy"}
# Sums may be made in another order, and a product be added in one rounding, so that an instruction
# works on many numbers. What is not finite stays so.
_FREEDOMS = {"reassoc", "contract"}
# Of the digest of what decides about the code, in the names of what is kept.
_DIGITS = 12

# As Python, the loops would take hours, and tiles are no Python.
numba.config.DISABLE_JIT = 0


def _digest_of_sources() -> str:
    """Of what decides about the code and is not in Numba's own names for it."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources))
    processors = llvmlite.binding.get_host_cpu_name(), numba.config.CPU_NAME
    # Settings of Numba's own, from its environment variables.
    settings = numba.config.CPU_FEATURES, numba.config.BOUNDSCHECK, numba.config.OPT
    digest.update(f"{processors} {settings}".encode())
    return digest.hexdigest()[:_DIGITS]


# Of the sources that are imported: later, others may lie there.
_SOURCES = _digest_of_sources()

# For what kernels are made of.
inlined = numba.njit(fastmath=_FREEDOMS, **_OPTIONS)
# What stands in memory and what is computed with, by the name of PyTorch's type.
_TYPES = {"float32": ("float32", "float32"), "float64": ("float64", "float64")}
# Numba does not know the type; its numbers stand there as integers of as many bits.
_BFLOAT16 = {"bfloat16": ("uint16", "float32")}


class Kernel:
    """A function that is compiled when it is first called.

    Args:
        function: Loops, in the part of Python that Numba compiles.
        signature: Types of the arguments and of the result, in Numba's notation.
        parallel: Whether ``numba.prange`` divides its work among threads, as many as PyTorch has
            when the first parallel kernel is compiled or loaded.
        exact: Whether each operation is rounded as it is written.
    """

    def __init__(
        self, function: Callable[..., Any], signature: str, parallel: bool, exact: bool = False
    ) -> None:
        self._function, self._signature = function, signature
        self._parallel, self._exact = parallel, exact
        self._compiled: Callable[..., Any] | None = None
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Any) -> Any:
        """Calls what was compiled, with arguments of the signature's types."""
        if self._compiled is None:
            with _threads_of_pytorch():
                self._compiled = self._compile()
        return self._compiled(*arguments)

    def _compile(self) -> Callable[..., Any]:
        freedoms = set() if self._exact else _FREEDOMS
        options = {**_OPTIONS, "parallel": self._parallel, "fastmath": freedoms}
        # By itself, Numba looks at changes of the function's own file only and not at options, and
        # keeps one list for all signatures, which two processes could write at once.
        kind = f"{self._signature} {self._parallel} {self._exact}"
        digest = hashlib.sha256(kind.encode()).hexdigest()[:_DIGITS]
        self._function.__qualname__ = f"{self._function.__name__}-{digest}-{_SOURCES}"
        try:
            kept = _Kept(self._function)
            kept.remove_what_is_damaged()
            compiled = numba.njit(self._signature, cache=True, **options)(self._function)
            kept.seal()
        except Exception:  # Nobody says what a folder that cannot be written leads to.
            return numba.njit(self._signature, **options)(self._function)
        return compiled


class _Kept:
    """The files that Numba keeps of a function, and the file of their checksums."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._folder = Path(FunctionCache(function).cache_path)
        self._pattern = f"*.{function.__qualname__}-*.nb[ic]"
        self._seal = self._folder / f"{function.__module__}.{function.__qualname__}.json"

    def remove_what_is_damaged(self) -> None:
        """Removes files that are not those that were sealed; they will be made anew."""
        try:
            sealed = json.loads(self._seal.read_text())
        except (OSError, ValueError):
            sealed = None
        sums = self._sums()
        if sums and sums != sealed:
            for name in sums:
                (self._folder / name).unlink(missing_ok=True)

    def seal(self) -> None:
        """Writes the checksums, where they are not there."""
        text = json.dumps(self._sums())
        with suppress(OSError, ValueError):
            if self._seal.read_text() == text:
                return
        self._seal.write_text(text)

    def _sums(self) -> dict[str, str]:
        files = sorted(self._folder.glob(self._pattern))
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@contextmanager
def _threads_of_pytorch() -> Iterator[None]:
    """Gives Numba as many threads as PyTorch has.

    When Numba starts its threads, which is when it first compiles for them or loads what was, their
    number becomes PyTorch's.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    n_threads = torch.get_num_threads()
    numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def kernel(signature: str, parallel: bool = False) -> Callable[[Callable[..., Any]], Kernel]:
    """Makes a ``Kernel`` of a function.

    Args:
        signature: As of ``Kernel``.
        parallel: As of ``Kernel``.
    """
    return lambda function: Kernel(function, signature, parallel)


def kernels_of_types(
    function: Callable[..., Any], signature: str, bfloat16: bool = False, exact: bool = False
) -> dict[str, Kernel]:
    """Parallel kernels of one function, by the name of PyTorch's type of what they read.

    Args:
        function: As of ``Kernel``.
        signature: As of ``Kernel``, with ``{0}`` in the place of the type in memory and ``{1}`` in
            that of the type of what is computed with.
        bfloat16: Whether there is one for bfloat16 too, which is computed with in float32.
        exact: As of ``Kernel``.
    """
    types = _TYPES | _BFLOAT16 if bfloat16 else _TYPES
    return {
        name: Kernel(function, signature.format(*pair), parallel=True, exact=exact)
        for name, pair in types.items()
    }
