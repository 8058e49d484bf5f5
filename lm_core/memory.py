"""Memory: what cannot fit is refused, and what did not fit is told in words."""

import contextlib
from collections.abc import Iterator

from lm_core.config.training_config import TrainingConfig
from lm_core.costs import FLOAT32_BYTES, count_parameters, optimizer_values
from lm_core.errors import LabError, MachineError
from lm_core.machine import most_memory
from lm_core.parallel.world import World
from lm_core.training.reduction import N_PIECES

# How PyTorch's errors say that memory is too small: of the CPU, of a GPU, of any machine.
_SIGNS_OF_NO_MEMORY = ("DefaultCPUAllocator", "out of memory", "Storage size calculation overflow")
_TOO_SMALL = (
    "the memory of this machine is too small for this configuration; smaller n_layers, d_model, "
    "d_ff, max_seq_len or batch_size need less"
)
# A process without others.
_ALONE = World()
# The weight itself and its gradient.
_VALUES_A_PARAMETER = 2
# In backward, logarithms of probabilities and their gradient exist side by side.
_VALUES_A_LOGIT = 2
# The unit in which people read bytes of memory.
_GIBIBYTE = 2**30


def least_training_bytes(config: TrainingConfig, vocab_size: int, world: World = _ALONE) -> int:
    """Bytes that training cannot do without, in float32; the true need is a few times as much.

    Args:
        config: The configuration.
        vocab_size: Number of different tokens.
        world: The processes that train together: what those of this machine need is told.
    """
    residual_stream = config.n_layers * config.d_model
    values_a_token = _VALUES_A_LOGIT * vocab_size + residual_stream
    n_parts = config.accumulation_steps * world.n_processes
    if config.exact_reduction:
        n_parts = max(n_parts, N_PIECES)
    n_tokens = max(1, config.batch_size // n_parts) * config.max_seq_len
    n_values = _VALUES_A_PARAMETER * count_parameters(config, vocab_size)
    n_values += optimizer_values(config, vocab_size)
    if config.parallelism == "fsdp":
        n_values = -(-n_values // world.n_processes)
    return FLOAT32_BYTES * (n_values + n_tokens * values_a_token) * world.n_local


def require_memory(
    config: TrainingConfig,
    vocab_size: int,
    available: int | None = None,
    world: World = _ALONE,
) -> None:
    """Refuses to train what cannot fit: the system would end the process without a word.

    Args:
        config: The configuration.
        vocab_size: Number of different tokens.
        available: Bytes that there are; None: all that this process may have.
        world: The processes that train together.

    Raises:
        MachineError: It cannot fit.
    """
    available = most_memory() if available is None else available
    needed = least_training_bytes(config, vocab_size, world)
    if available is not None and needed > available:
        sizes = f"it needs more than {needed / _GIBIBYTE:,.1f} GiB, of {available / _GIBIBYTE:,.1f}"
        raise MachineError(f"{_TOO_SMALL} ({sizes})")


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
