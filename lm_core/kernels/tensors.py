"""What kernels take of PyTorch's tensors."""

import numpy as np
import torch

# By the type of a tensor, the one under which numpy knows its numbers.
_SEEN_AS = {torch.bfloat16: torch.uint16}


def has_content(x: torch.Tensor) -> bool:
    """Whether a tensor has numbers to compute with.

    Those with which PyTorch counts the costs of a pass have shapes alone.
    """
    return not hasattr(x, "fake_mode")


def type_of(dtype: torch.dtype) -> str:
    """The name by which ``kernels_of_types`` has the kernels of a type."""
    return str(dtype).removeprefix("torch.")


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """The type in which kernels compute with numbers of a type."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def number_for(dtype: torch.dtype, value: float) -> np.floating:
    """A number as kernels compute with it among those of a type."""
    return np.float64(value) if dtype == torch.float64 else np.float32(value)


def numbers_of(x: torch.Tensor, *shape: int) -> np.ndarray:
    """The memory of a tensor on a CPU, for kernels to read or to write.

    Args:
        x: A tensor without gaps.
        shape: The shape in which they see it, of which one number may be -1; none: its own.
    """
    # A step asks a few hundred times; each view that changes nothing would take a microsecond.
    seen = x.view(shape) if shape else x
    seen = seen.view(_SEEN_AS[x.dtype]) if x.dtype in _SEEN_AS else seen
    return seen.detach().numpy()
