"""Loops that Numba compiles for this processor, where PyTorch or numpy would need many passes.

Numba keeps what it compiled in ``__pycache__`` beside the source, or where that cannot be written
in the user's cache, and takes it again for the same processor and the same sources.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

# Sums may be made in another order, and a product be added in one rounding, so that an instruction
# works on many numbers. What is not finite stays so.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract"}}
# Of the digest of the sources, in the names of what is kept.
_DIGITS = 12

# For what kernels are made of.
inlined = numba.njit(**_OPTIONS)


class Kernel:
    """A function that is compiled when it is first called.

    Args:
        function: Loops, in the part of Python that Numba compiles.
        signature: Types of the arguments and of the result, in Numba's notation.
        parallel: Whether ``numba.prange`` divides its work among threads.
    """

    def __init__(self, function: Callable[..., Any], signature: str, parallel: bool) -> None:
        self._function, self._signature, self._parallel = function, signature, parallel
        self._compiled: Callable[..., Any] | None = None
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Any) -> Any:
        """Calls what was compiled, with arguments of the signature's types."""
        if self._compiled is None:
            self._compiled = self._compile()
        return self._compiled(*arguments)

    def _compile(self) -> Callable[..., Any]:
        options = {**_OPTIONS, "parallel": self._parallel}
        # Numba looks at changes of the function's own file only.
        self._function.__qualname__ = f"{self._function.__name__}-{_digest_of_sources()}"
        try:
            return numba.njit(self._signature, cache=True, **options)(self._function)
        except Exception:  # Nobody says what a damaged cache or a full disk leads to.
            return numba.njit(self._signature, **options)(self._function)


def kernel(signature: str, parallel: bool = False) -> Callable[[Callable[..., Any]], Kernel]:
    """Makes a ``Kernel`` of a function.

    Args:
        signature: As of ``Kernel``.
        parallel: As of ``Kernel``.
    """
    return lambda function: Kernel(function, signature, parallel)


@cache
def _digest_of_sources() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources))
    return digest.hexdigest()[:_DIGITS]
