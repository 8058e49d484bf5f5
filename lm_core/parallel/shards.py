"""Tensors of which each process keeps a share, as FSDP2 makes them of a model's parameters.

To name their class loads PyTorch's compiler, which takes a second: what is sharded is told by what
it has.
"""

import contextlib
import warnings
from collections.abc import Iterator

import torch
from torch import nn


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether this process keeps only a share of a tensor."""
    return hasattr(tensor, "device_mesh")


def own_share(tensor: torch.Tensor) -> torch.Tensor:
    """What this process keeps of a tensor, in the same memory."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with the shares of all processes, which call this together."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def shared_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A tensor that every process has, as another one is kept: of a sharded one, the same share.

    Args:
        tensor: Any tensor of the shape of the other.
        like: How it is to be kept, and on which device.
    """
    tensor = tensor.to(like.device)
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def shard_model(model: nn.Module) -> None:
    """Spreads a model's parameters over the processes, block by block.

    Args:
        model: A model with ``blocks``, on its device; the same in all processes.
    """
    from torch.distributed.fsdp import fully_shard

    # Nobody changes in place what the model returns, of which this warns.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)


@contextlib.contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Gives every process the whole model for a while; of one that is not sharded, they have it."""
    if not any(is_sharded(parameter) for parameter in model.parameters()):
        yield
        return
    from torch.distributed.fsdp import FSDPModule

    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            # As FSDP2 has it: what is outside the blocks stays whole from forward to backward.
            part.set_reshard_after_forward(part is not model, recurse=False)
