"""A small model, tokens for it, and tables of hooks."""

import torch

from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey

KEY = StepKey(seed=1, step=10)


TOKENS = torch.arange(24).reshape(3, 8) % 7


def build(**changes):
    sizes = {
        "n_layers": 2,
        "d_model": 8,
        "n_heads": 2,
        "d_ff": 16,
        "max_seq_len": 8,
        "dropout": 0.0,
    }
    return Transformer(7, **{**sizes, **changes})


def forward(*entries):
    return {"forward": list(entries)}


def update(*entries):
    return {"update": list(entries)}


def with_gradients(model):
    model(TOKENS, TOKENS, key=KEY).backward()
    return model


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters()}
