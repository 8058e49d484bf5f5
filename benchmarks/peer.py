"""The peer that a person could install: GPT-2 of Hugging Face's transformers."""

import os
from typing import Any

from lm_core.config.training_config import TrainingConfig


def gpt2(config: TrainingConfig, vocab_size: int, dropout: float) -> Any:
    """A new GPT-2 with the sizes of a configuration, which takes nothing from the network.

    Args:
        config: The configuration.
        vocab_size: Number of different tokens.
        dropout: Share of activations zeroed in training, at all places.
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
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(settings)
