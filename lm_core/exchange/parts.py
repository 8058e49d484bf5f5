"""How a weight of ours is made of weights of another program, and they of it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch


class Piece(NamedTuple):
    """A tensor as the other program has it.

    Attributes:
        name: Its name there.
        shape: Its shape there.
        repeats: How often each group of ``group`` rows stands in ours, one copy after the other.
        group: Rows that are repeated together.
        is_zero: Whether it is not there, and ours is of zeros.
    """

    name: str
    shape: tuple[int, ...]
    repeats: int = 1
    group: int = 1
    is_zero: bool = False


class Part(NamedTuple):
    """A parameter of our model and what it is made of.

    Attributes:
        ours: Its name in our model.
        pieces: What stands in it, along its first dimension.
        is_transposed: Whether the other program keeps inputs before outputs.
    """

    ours: str
    pieces: tuple[Piece, ...]
    is_transposed: bool = False


def embedding_and_head(name: str, arguments: Mapping[str, Any]) -> list[Part]:
    """The token embedding, first, and the output head where it is another matrix.

    Args:
        name: Of the embedding in the other program.
        arguments: What builds our model.
    """
    shape = arguments["vocab_size"], arguments["d_model"]
    parts = [Part("token_embedding.weight", (Piece(name, shape),))]
    if not arguments["tie_embeddings"]:
        parts.append(Part("head.weight", (Piece("lm_head.weight", shape),)))
    return parts


def to_theirs(
    parts: Iterable[Part], weights: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Our weights as the other program has them.

    Args:
        parts: Of all that the other program has, with nothing repeated.
        weights: Ours by name; what is missing is of zeros.

    Returns:
        Theirs by name, in the dtype of ours; views of ours, where that is possible.
    """
    found = {}
    for part in parts:
        if part.ours not in weights:
            found |= {piece.name: torch.zeros(piece.shape) for piece in part.pieces}
            continue
        weight = weights[part.ours].detach()
        weight = weight.t() if part.is_transposed else weight
        sizes = [piece.shape[0] for piece in part.pieces]
        pieces = weight.split(sizes) if len(sizes) > 1 else [weight]
        for piece, tensor in zip(part.pieces, pieces, strict=True):
            found[piece.name] = tensor
    return found


def to_ours(parts: Iterable[Part], read: Callable[[str], torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of the other program as our model has them.

    Args:
        parts: Of all that our model has.
        read: Gives one of theirs by its name, of the shape that its piece tells.

    Returns:
        Ours by name, in float32.
    """
    return {part.ours: _ours(part, read) for part in parts}


def _ours(part: Part, read: Callable[[str], torch.Tensor]) -> torch.Tensor:
    tensors = []
    for piece in part.pieces:
        tensor = torch.zeros(piece.shape) if piece.is_zero else read(piece.name).float()
        if piece.repeats > 1:
            groups = tensor.unflatten(0, (-1, piece.group))
            tensor = groups.repeat_interleave(piece.repeats, 0).flatten(0, 1)
        tensors.append(tensor.t() if part.is_transposed else tensor)
    return (torch.cat(tensors) if len(tensors) > 1 else tensors[0]).contiguous()
