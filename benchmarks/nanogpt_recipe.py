"""Trains GPT-2 of Hugging Face's transformers by nanoGPT's recipe for a CPU, and tells its loss.

    pip install -e '.[bench]'
    python -m benchmarks.nanogpt_recipe my-text.txt --seed=1

It is the peer of ``benchmarks.time_to_loss``: what a person writes who knows PyTorch and wants it
to be quick. The tokens are in memory once, AdamW is PyTorch's fused one, nothing looks at a number
in between, and the text that is held out is evaluated once, at the end. So it does less than
nanoGPT, which evaluates every 250 steps. The model is GPT-2 as transformers has it, with the exact
GELU of nanoGPT, which is also quicker; it has biases, where nanoGPT's default has none.

Nothing of this project is imported that would cost the start of the program any time.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.peer import gpt2

# Windows in a batch of the evaluation: of 16 to 512, none is quicker by more than measurements
# differ by. The loss depends on it only by rounding.
WINDOWS_A_BATCH = 64
# Tensors with so many dimensions or more decay: matrices and embeddings, not biases and norms.
DECAYING_DIMENSIONS = 2
# Exact, where GPT-2's own is an approximation: nanoGPT's model.py takes PyTorch's ``nn.GELU()``.
ACTIVATION = "gelu"


@dataclass(frozen=True)
class Recipe:
    """What nanoGPT trains with on a CPU; names are this project's, nanoGPT's stand in brackets.

    The sources are files of https://github.com/karpathy/nanoGPT: README.md has the command for "a
    macbook (or other cheap computer)", which overrides config/train_shakespeare_char.py, which
    overrides the defaults of train.py. There is no gradient accumulation.

    Attributes:
        n_layers: Blocks (``n_layer``); README.md.
        n_heads: Heads of attention in each block (``n_head``); README.md.
        d_model: Width of the residual stream (``n_embd``); README.md.
        d_ff: Width of an MLP's hidden layer, four times the other; model.py.
        max_seq_len: Tokens of a window (``block_size``); README.md.
        batch_size: Windows in a step's batch; README.md.
        max_steps: Steps in all, and those after which the learning rate has its least value
            (``max_iters`` and ``lr_decay_iters``, which are equal); README.md.
        dropout: Share of activations zeroed in training; README.md.
        learning_rate: Step size of AdamW at its height; config/train_shakespeare_char.py.
        min_learning_rate: The least one, at the end (``min_lr``); config/train_shakespeare_char.py.
        warmup_steps: Steps in which it rises (``warmup_iters``); config/train_shakespeare_char.py.
        beta1: AdamW's decay of the mean of the gradient; train.py.
        beta2: The same of its square; config/train_shakespeare_char.py.
        weight_decay: Decoupled weight decay, on what has two dimensions or more; train.py.
        largest_norm: What the norm of the gradient is clipped to (``grad_clip``); train.py.
        train_ratio: Share of the text that is trained on, its start;
            data/shakespeare_char/prepare.py.
    """

    n_layers: int = 4
    n_heads: int = 4
    d_model: int = 128
    d_ff: int = 512
    max_seq_len: int = 64
    batch_size: int = 12
    max_steps: int = 2000
    dropout: float = 0.0
    learning_rate: float = 1e-3
    min_learning_rate: float = 1e-4
    warmup_steps: int = 100
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.1
    largest_norm: float = 1.0
    train_ratio: float = 0.9


def learning_rate(step: int, recipe: Recipe) -> float:
    """The step size of a step, counted from 0: a straight rise, then half a turn of a cosine.

    It is ``get_lr`` of nanoGPT's train.py: no step has a learning rate of zero.
    """
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / (recipe.warmup_steps + 1)
    done = (step - recipe.warmup_steps) / (recipe.max_steps - recipe.warmup_steps)
    height = (1 + math.cos(math.pi * min(done, 1.0))) / 2
    return recipe.min_learning_rate + height * (recipe.learning_rate - recipe.min_learning_rate)


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """A model's parameters for AdamW: first those that decay, then those that do not."""
    parameters = list(model.parameters())
    matrices = [one for one in parameters if one.dim() >= DECAYING_DIMENSIONS]
    others = [one for one in parameters if one.dim() < DECAYING_DIMENSIONS]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def encoded(text: str) -> tuple[torch.Tensor, int]:
    """A text as numbers of its own characters, in their order, and how many characters there are.

    Returns:
        int64 ``(n_tokens,)``, and the size of the vocabulary.
    """
    characters = sorted(set(text))
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    numbers = np.zeros(ord(characters[-1]) + 1, np.int64)
    numbers[[ord(character) for character in characters]] = np.arange(len(characters))
    return torch.from_numpy(numbers[codes]), len(characters)


def loss_of(
    model: Any, inputs: torch.Tensor, targets: torch.Tensor, bfloat16: bool, reduction: str
) -> torch.Tensor:
    """The cross entropy of the tokens that follow, in nats.

    Args:
        model: GPT-2.
        inputs: int64 ``(windows, length)``.
        targets: The tokens after each of them.
        bfloat16: Whether autocast computes the products in bfloat16.
        reduction: ``mean`` or ``sum``.
    """
    # ``use_cache`` stays as it comes. Without it, transformers looks for several texts packed into
    # one window in each pass, which takes longer than the cache does.
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = model(input_ids=inputs).logits
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction=reduction)


def trained(
    tokens: torch.Tensor, vocab_size: int, recipe: Recipe, seed: int, bfloat16: bool = False
) -> Any:
    """A new GPT-2, trained by the recipe.

    Args:
        tokens: What it is trained on, ``(n_tokens,)``, at least ``max_seq_len + 1``.
        vocab_size: Number of different tokens.
        recipe: Sizes and hyperparameters.
        seed: Of initial weights and batches.
        bfloat16: Whether autocast computes the products in bfloat16.
    """
    torch.manual_seed(seed)
    model = gpt2(recipe, vocab_size, recipe.dropout, ACTIVATION).train()
    groups = parameter_groups(model, recipe.weight_decay)
    betas = recipe.beta1, recipe.beta2
    optimizer = torch.optim.AdamW(groups, recipe.learning_rate, betas, fused=True)
    parameters = list(model.parameters())
    # Every window that there is, with the token after it: views, which take no memory.
    windows = tokens.unfold(0, recipe.max_seq_len + 1, 1)
    for step in range(recipe.max_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        batch = windows[torch.randint(len(windows), (recipe.batch_size,))]
        loss_of(model, batch[:, :-1], batch[:, 1:], bfloat16, "mean").backward()
        # One call for all tensors: a twentieth of a step less than one for each.
        torch.nn.utils.clip_grad_norm_(parameters, recipe.largest_norm, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model


def held_out_windows(tokens: torch.Tensor, length: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Every token but the first as a target exactly once, in windows that follow each other.

    Yields:
        Inputs and targets, ``(windows, length)``, and at last ``(1, rest)`` where there is a rest.
    """
    inputs, targets = tokens[:-1], tokens[1:]
    whole = len(inputs) // length * length
    pairs = inputs[:whole].view(-1, length), targets[:whole].view(-1, length)
    yield from zip(*(part.split(WINDOWS_A_BATCH) for part in pairs), strict=True)
    if whole < len(inputs):
        yield inputs[None, whole:], targets[None, whole:]


@torch.inference_mode()
def validation_loss(model: Any, tokens: torch.Tensor, length: int, bfloat16: bool = False) -> float:
    """The mean cross entropy over all of a text but its first token, in nats per token.

    Args:
        model: GPT-2; it is left in evaluation mode.
        tokens: The text that was held out, at least ``length + 1`` tokens.
        length: Tokens of a window.
        bfloat16: Whether autocast computes the products in bfloat16.
    """
    model.eval()
    sums = [
        loss_of(model, inputs, targets, bfloat16, "sum").double()
        for inputs, targets in held_out_windows(tokens, length)
    ]
    return float(sum(sums)) / (len(tokens) - 1)


def main() -> None:
    """Trains, evaluates and prints the loss as the last line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path, help="a text in UTF-8")
    parser.add_argument("--seed", type=int, default=1, help="of weights and batches (default 1)")
    parser.add_argument("--bfloat16", action="store_true", help="products in bfloat16, by autocast")
    given = parser.parse_args()
    recipe = Recipe()
    # As bytes, so that no end of a line is translated.
    tokens, vocab_size = encoded(given.corpus.read_bytes().decode())
    n_training = int(len(tokens) * recipe.train_ratio)
    model = trained(tokens[:n_training], vocab_size, recipe, given.seed, given.bfloat16)
    loss = validation_loss(model, tokens[n_training:], recipe.max_seq_len, given.bfloat16)
    print(f"final validation loss: {loss:.4f} nats per token")


if __name__ == "__main__":
    main()
