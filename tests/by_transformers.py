"""Folders of small models that the real transformers writes."""

import json

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from lm_core.exchange.tokenizer_files import tokenizer_files
from tests.exchanged import TOKENIZER

GPT2 = {"vocab_size": 256, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 3}
LLAMA = {
    "vocab_size": 256,
    "max_position_embeddings": 16,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-5,
    # Both are of a vocabulary that is larger than this.
    "bos_token_id": None,
    "eos_token_id": None,
}


def gpt2(**changes):
    config = GPT2Config(**{**GPT2, "bos_token_id": None, "eos_token_id": None, **changes})
    return shake(GPT2LMHeadModel(config))


def llama(**changes):
    return shake(LlamaForCausalLM(LlamaConfig(**{**LLAMA, **changes})))


def shake(model):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def saved(folder, model, **options):
    """What transformers writes of a model, beside a tokenizer of ours."""
    model.save_pretrained(folder, **options)
    for name, text in tokenizer_files(TOKENIZER, 16).items():
        (folder / name).write_text(text)
    return folder


def amend(folder, **changes):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "missing"}))
