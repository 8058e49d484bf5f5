"""Token ids that a model cannot take, told in words once PyTorch has refused them."""

import torch

from lm_core.errors import InputError


def require_token_ids(tokens: torch.Tensor, vocab_size: int, error: Exception) -> None:
    """Says what is wrong with tokens that PyTorch has refused, so that others are never looked at.

    Args:
        tokens: What should be token ids, of any shape.
        vocab_size: How many there are.
        error: What PyTorch had to say.

    Raises:
        InputError: They are no integers, or out of range.
    """
    if tokens.dtype not in (torch.int64, torch.int32):
        message = f"token ids are of {tokens.dtype}, and have to be of torch.int64"
        raise InputError(message) from error
    least, most = (int(bound) for bound in tokens.aminmax())
    if least < 0 or most >= vocab_size:
        number = most if most >= vocab_size else least
        message = f"there is a token {number}, where the model knows 0 to {vocab_size - 1}"
        raise InputError(f"{message}: take the tokenizer that the model is made for") from error


def no_batch(tokens: object) -> str:
    """A sentence about what should be a batch of token ids, and has another shape or none."""
    shape = getattr(tokens, "shape", None)
    what = f"of shape {tuple(shape)}" if shape is not None else f"a {type(tokens).__name__}"
    how = "tokens[None] makes a batch of one sequence"
    return f"a model takes a tensor of tokens (batch, time), and this one is {what}; {how}"
