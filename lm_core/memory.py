"""Memory: what cannot fit is refused, and what did not fit is told in words."""

import contextlib
import os
from collections.abc import Iterator

from lm_core.errors import LabError, MachineError
from lm_core.model.transformer import Transformer

# How PyTorch's errors say that memory is too small: of the CPU, of a GPU, of any machine.
_SIGNS_OF_NO_MEMORY = ("DefaultCPUAllocator", "out of memory", "Storage size calculation overflow")
_TOO_SMALL = (
    "the memory of this machine is too small for this configuration; smaller n_layers, d_model, "
    "d_ff, max_seq_len or batch_size need less"
)
_FLOAT32_BYTES = 4
# The weight itself, its gradient, and AdamW's two means.
_VALUES_A_PARAMETER = 4
# In backward, logarithms of probabilities and their gradient exist side by side.
_VALUES_A_LOGIT = 2
_GIBIBYTE = 2**30


def least_training_bytes(model: Transformer, batch_size: int) -> int:
    """Bytes that training cannot do without, in float32; the true need is a few times as much.

    Args:
        model: The model.
        batch_size: Windows in a batch, each of the model's ``max_seq_len`` tokens.
    """
    residual_stream = len(model.blocks) * model.n_heads * model.d_head
    values_a_token = _VALUES_A_LOGIT * model.vocab_size + residual_stream
    n_tokens = batch_size * model.max_seq_len
    n_values = _VALUES_A_PARAMETER * model.n_parameters + n_tokens * values_a_token
    return _FLOAT32_BYTES * n_values


def require_memory(model: Transformer, batch_size: int, available: int | None = None) -> None:
    """Refuses to train what cannot fit: the system would end the process without a word.

    Args:
        model: The model, on the CPU.
        batch_size: Windows in a batch.
        available: Bytes that there are; None: all of this machine's.

    Raises:
        MachineError: It cannot fit.
    """
    available = _physical_memory() if available is None else available
    needed = least_training_bytes(model, batch_size)
    if available is not None and needed > available:
        sizes = f"it needs more than {needed / _GIBIBYTE:,.1f} GiB, of {available / _GIBIBYTE:,.1f}"
        raise MachineError(f"{_TOO_SMALL} ({sizes})")


def _physical_memory() -> int | None:
    """Bytes of this machine's memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no such function.
        return None


@contextlib.contextmanager
def memory_explained() -> Iterator[None]:
    """Turns a failed allocation into words.

    Raises:
        MachineError: There was one.
    """
    try:
        yield
    except LabError:
        raise
    except (MemoryError, RuntimeError) as error:
        words = str(error)
        if isinstance(error, MemoryError) or any(sign in words for sign in _SIGNS_OF_NO_MEMORY):
            reason = f" ({words.splitlines()[0]})" if words else ""
            raise MachineError(f"{_TOO_SMALL}{reason}") from error
        raise
