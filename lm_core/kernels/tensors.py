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


def type_of(x: torch.Tensor) -> str:
    """The name of a tensor's type, by which ``kernels_of_types`` has its kernels."""
    return str(x.dtype).removeprefix("torch.")


def computed_in(x: torch.Tensor) -> torch.dtype:
    """The dtype in which kernels compute with a tensor's numbers."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def number_for(x: torch.Tensor, value: float) -> np.floating:
    """A number of that dtype."""
    return np.float64(value) if x.dtype == torch.float64 else np.float32(value)


def numbers_of(x: torch.Tensor, *shape: int) -> np.ndarray:
    """The memory of a tensor on a CPU, for kernels to read or to write.

    Args:
        x: A tensor without gaps.
        shape: The shape in which they see it, of which one number may be -1; none: its own.
    """
    seen = x.detach().view(_SEEN_AS.get(x.dtype, x.dtype))
    return seen.view(shape or seen.shape).numpy()
