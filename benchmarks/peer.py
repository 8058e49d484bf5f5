"""The peer that a person could install: GPT-2 of Hugging Face's transformers."""

import os
from typing import Any, Protocol

# What GPT-2 computes between the two layers of an MLP: GELU in its form with tanh, which is written
# in transformers as its paper writes it, one operation of PyTorch after the other.
GPT2_ACTIVATION = "gelu_new"


class Sizes(Protocol):
    """The sizes of a model, by the names that they have in this project.

    A configuration has them. A program whose start is timed need not import one for them.
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_ff: int
    max_seq_len: int


def gpt2(config: Sizes, vocab_size: int, dropout: float, activation: str = GPT2_ACTIVATION) -> Any:
    """A new GPT-2 with the sizes of a configuration, which takes nothing from the network.

    Args:
        config: The configuration.
        vocab_size: Number of different tokens.
        dropout: Share of activations zeroed in training, at all places.
        activation: What it computes between the layers of an MLP, by transformers' name for it.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    # It takes a while, and not every benchmark of a peer has one.
    from transformers import GPT2Config, GPT2LMHeadModel, logging

    logging.set_verbosity_error()
    settings = GPT2Config(
        vocab_size=vocab_size,
        n_positions=config.max_seq_len,
        n_embd=config.d_model,
        n_layer=config.n_layers,
        n_head=config.n_heads,
        n_inner=config.d_ff,
        activation_function=activation,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(settings)
