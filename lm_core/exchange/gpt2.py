"""Our models as GPT-2 of transformers (``GPT2LMHeadModel``), and back.

What the other program keeps and computes is told by its source,
https://github.com/huggingface/transformers/tree/main/src/transformers/models/gpt2.
"""

from collections.abc import Mapping
from typing import Any

from lm_core.exchange.json_files import Fields
from lm_core.exchange.parts import Part, Piece, embedding_and_head
from lm_core.model.transformer import NORM_EPSILON

MODEL_TYPE = "gpt2"
NAME = "GPT-2"
# The prefix of the names of everything but the head, which some folders leave out.
PREFIX = "transformer."
# What a model of ours has to be, to be one of these.
CHOICES: dict[str, tuple[Any, ...]] = {
    "position": ("learned",),
    "norm": ("layernorm",),
    "activation": ("gelu", "gelu_tanh", "relu_squared"),
    "qk_norm": (False,),
    "logit_softcap": (None,),
}
# Causal masks, which early versions of transformers saved among the weights.
IGNORED = (".attn.bias", ".attn.masked_bias")
# The words of transformers for what the hidden layer goes through; the first for each of ours is
# what is written.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu2": "relu_squared",
}
# Where numbers are zeroed in training.
_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
# Which share of them, where a folder does not tell: transformers takes this.
_USUAL_DROPOUT = 0.1
# The hidden layer of the MLPs, in widths of the residual stream, where a folder does not tell.
_USUAL_EXPANSION = 4
# Queries, keys and values.
_PROJECTIONS = 3


def config_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What ``config.json`` says of a model of ours.

    Args:
        arguments: What builds it.
    """
    written = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": MODEL_TYPE,
        "vocab_size": arguments["vocab_size"],
        "n_positions": arguments["max_seq_len"],
        "n_embd": arguments["d_model"],
        "n_layer": arguments["n_layers"],
        "n_head": arguments["n_heads"],
        "n_inner": arguments["d_ff"],
        "activation_function": written[arguments["activation"]],
        **dict.fromkeys(_DROPOUTS, arguments["dropout"]),
        "layer_norm_epsilon": NORM_EPSILON,
        "tie_word_embeddings": arguments["tie_embeddings"],
    }


def arguments_of(config: Fields) -> dict[str, Any]:
    """What builds a model of ours that is the one of a ``config.json``.

    Raises:
        InputError: There is none.
    """
    usual = "GPT-2 does without it, and so does the lab"
    config.require("scale_attn_weights", True, usual)
    config.require("scale_attn_by_inverse_layer_idx", False, usual)
    config.require("add_cross_attention", False, usual)
    config.require("layer_norm_epsilon", NORM_EPSILON, "the lab knows no other")
    d_model = config.integer("n_embd")
    activation = config.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        config.refuse("activation_function", f"is none that the lab has (what is: {known})")
    return {
        "vocab_size": config.integer("vocab_size"),
        "n_layers": config.integer("n_layer"),
        "d_model": d_model,
        "n_heads": config.integer("n_head"),
        "d_ff": config.integer("n_inner", _USUAL_EXPANSION * d_model),
        # The lab has one for all three places.
        "dropout": max(config.number(name, _USUAL_DROPOUT) for name in _DROPOUTS),
        "max_seq_len": config.integer("n_positions"),
        "position": "learned",
        "norm": "layernorm",
        "activation": _ACTIVATIONS[activation],
        "qk_norm": False,
        "tie_embeddings": config.truth("tie_word_embeddings", True),
        "bias": True,
        "logit_softcap": None,
    }


def outer_parts(arguments: Mapping[str, Any], config: Fields | None = None) -> list[Part]:
    """The weights outside of the blocks.

    Args:
        arguments: What builds our model.
        config: Not needed here.
    """
    width = arguments["d_model"]
    positions = Piece("transformer.wpe.weight", (arguments["max_seq_len"], width))
    return [
        *embedding_and_head("transformer.wte.weight", arguments),
        Part("position_embedding.weight", (positions,)),
        *_norm("final_norm", "transformer.ln_f", width),
    ]


def block_parts(
    layer: int, arguments: Mapping[str, Any], config: Fields | None = None
) -> list[Part]:
    """The weights of a block.

    Args:
        layer: Its index.
        arguments: What builds our model.
        config: Not needed here.
    """
    width, d_ff = arguments["d_model"], arguments["d_ff"]
    ours, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
    return [
        *_norm(f"{ours}.attention_norm", f"{theirs}.ln_1", width),
        *_layer(
            f"{ours}.attention.query_key_value",
            f"{theirs}.attn.c_attn",
            width,
            _PROJECTIONS * width,
        ),
        *_layer(f"{ours}.attention.projection", f"{theirs}.attn.c_proj", width, width),
        *_norm(f"{ours}.mlp_norm", f"{theirs}.ln_2", width),
        *_layer(f"{ours}.mlp.expansion", f"{theirs}.mlp.c_fc", width, d_ff),
        *_layer(f"{ours}.mlp.projection", f"{theirs}.mlp.c_proj", d_ff, width),
    ]


def _norm(ours: str, theirs: str, width: int) -> list[Part]:
    return [
        Part(f"{ours}.{kind}", (Piece(f"{theirs}.{kind}", (width,)),))
        for kind in ("weight", "bias")
    ]


def _layer(ours: str, theirs: str, n_inputs: int, n_outputs: int) -> list[Part]:
    """A ``Conv1D``, which keeps inputs before outputs."""
    weight = Piece(f"{theirs}.weight", (n_inputs, n_outputs))
    bias = Piece(f"{theirs}.bias", (n_outputs,))
    return [Part(f"{ours}.weight", (weight,), True), Part(f"{ours}.bias", (bias,))]
