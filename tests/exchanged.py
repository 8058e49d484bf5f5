"""Models and tokenizers that are exchanged with transformers, which reads no network here."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import itertools

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_core.data.tokenizer import ByteTokenizer
from lm_core.model.transformer import Transformer

transformers.logging.set_verbosity_error()

CHOICES = {
    "position": ("learned", "rope"),
    "norm": ("layernorm", "rmsnorm"),
    "activation": ("gelu", "gelu_tanh", "relu_squared", "swiglu"),
    "qk_norm": (False, True),
    "tie_embeddings": (True, False),
    "bias": (True, False),
    "logit_softcap": (None, 1.5),
}
COMBINATIONS = [
    dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())
]
SIZES = {"n_layers": 2, "d_model": 24, "n_heads": 3, "d_ff": 40, "max_seq_len": 16}


def is_gpt2(choices):
    """Whether transformers' GPT-2 is such a model, told once more than the lab tells it."""
    block = choices["position"], choices["norm"]
    plain = not choices["qk_norm"] and choices["logit_softcap"] is None
    return plain and block == ("learned", "layernorm") and choices["activation"] != "swiglu"


def is_llama(choices):
    """The same of Llama."""
    block = choices["position"], choices["norm"], choices["activation"]
    plain = not choices["qk_norm"] and choices["logit_softcap"] is None
    return plain and block == ("rope", "rmsnorm", "swiglu")


MAPPED = [choices for choices in COMBINATIONS if is_gpt2(choices) or is_llama(choices)]
UNMAPPED = [choices for choices in COMBINATIONS if choices not in MAPPED]


def name_of(choices):
    return "-".join(f"{name}={value}" for name, value in choices.items())


def shaken(vocab_size=256, **choices):
    """A model all of whose parameters are away from where they start, biases and norms too."""
    model = Transformer(vocab_size, **{**SIZES, **choices}, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def loaded(folder):
    """What transformers makes of a folder: the model and the tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def assert_equal_logits(ours, theirs):
    """Both models give the same logits, up to the rounding of float32."""
    tokens = np.random.default_rng(1).integers(0, ours.vocab_size, (3, ours.max_seq_len))
    tokens = torch.from_numpy(tokens)
    with ours.evaluating():
        expected = ours(tokens)
        found = theirs(tokens).logits
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    # Sums are made in another order: so many units of the last place of the largest logit.
    assert float((found - expected).abs().max()) < 2e-5 * max(1.0, float(expected.abs().max()))
    # Logits that are all alike would prove nothing.
    assert float(expected.std()) > 0.05


TOKENIZER = ByteTokenizer()
