"""Where a model is computed, and in which precision."""

import contextlib
from collections.abc import Iterator

import numba
import torch

from lm_core.errors import InputError

# What a configuration may leave open.
AUTO = "auto"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# The features of a CPU that multiply bfloat16 several times faster than float32: Intel's matrix
# extensions, and AVX-512's dot products (Intel since Cooper Lake, AMD since Zen 4).
_FAST_BFLOAT16 = ("amx_bf16", "avx512_bf16")


@contextlib.contextmanager
def threads_of(is_exact: bool) -> Iterator[None]:
    """As many threads as a run is to have: what there are, or a single one for exact sums.

    Args:
        is_exact: Whether results must not depend on the number of threads.
    """
    if not is_exact:
        yield
        return
    n_threads, n_of_kernels = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
        numba.set_num_threads(n_of_kernels)


def chosen_device(device: str) -> torch.device:
    """The device of a configuration.

    Args:
        device: ``cpu``, ``cuda``, ``mps``, or ``auto``: the first of CUDA and MPS that is there,
            else the CPU.

    Raises:
        InputError: It is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == AUTO:
        return torch.device(next((name for name, is_there in there.items() if is_there), "cpu"))
    if not there.get(device, True):
        found = ", ".join(["cpu", *(name for name, is_there in there.items() if is_there)])
        raise InputError(f"device: PyTorch finds no {device} on this machine (there is: {found})")
    return torch.device(device)


def chosen_precision(precision: str, device: torch.device) -> str:
    """The precision of a configuration: ``float32`` or ``bfloat16``.

    Args:
        precision: One of these, or ``auto``: bfloat16 where the device multiplies it fast.
        device: Where it will be computed.
    """
    if precision != AUTO:
        return precision
    return "bfloat16" if _multiplies_bfloat16_fast(device) else "float32"


def _multiplies_bfloat16_fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        return any(features.get(name, False) for name in _FAST_BFLOAT16)
    return False
