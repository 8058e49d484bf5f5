"""Our models as Llama of transformers (``LlamaForCausalLM``), and back.

What the other program keeps and computes is told by its source,
https://github.com/huggingface/transformers/tree/main/src/transformers/models/llama. It pairs the
numbers of a head as we do for rotary positions, one of the first half with one of the second, so
that queries and keys stay in their order.
"""

from collections.abc import Mapping
from typing import Any

from lm_core.exchange.json_files import Fields
from lm_core.exchange.parts import Part, Piece, embedding_and_head
from lm_core.model.rotary import BASE
from lm_core.model.transformer import NORM_EPSILON

MODEL_TYPE = "llama"
NAME = "Llama"
# The prefix of the names of everything but the head, which some folders leave out.
PREFIX = "model."
# What a model of ours has to be, to be one of these.
CHOICES: dict[str, tuple[Any, ...]] = {
    "position": ("rope",),
    "norm": ("rmsnorm",),
    "activation": ("swiglu",),
    "qk_norm": (False,),
    "logit_softcap": (None,),
}
# The rates of rotation, which early versions of transformers saved among the weights.
IGNORED = (".rotary_emb.inv_freq",)
# The share of a head that is rotated: all of it.
_WHOLE = 1.0
# What transformers takes for the epsilon of the norms where a folder does not tell.
_USUAL_EPSILON = 1e-6


def config_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What ``config.json`` says of a model of ours.

    Args:
        arguments: What builds it.
    """
    n_heads, base = arguments["n_heads"], float(BASE)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": MODEL_TYPE,
        "vocab_size": arguments["vocab_size"],
        "max_position_embeddings": arguments["max_seq_len"],
        "hidden_size": arguments["d_model"],
        "num_hidden_layers": arguments["n_layers"],
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_heads,
        "head_dim": arguments["d_model"] // n_heads,
        "intermediate_size": arguments["d_ff"],
        "hidden_act": "silu",
        "attention_bias": arguments["bias"],
        "mlp_bias": arguments["bias"],
        "attention_dropout": arguments["dropout"],
        "rms_norm_eps": NORM_EPSILON,
        # The first is read from version 5 of transformers on, the others are before.
        "rope_parameters": {"rope_type": "default", "rope_theta": base},
        "rope_theta": base,
        "rope_scaling": None,
        "tie_word_embeddings": arguments["tie_embeddings"],
    }


def arguments_of(config: Fields) -> dict[str, Any]:
    """What builds a model of ours that is the one of a ``config.json``.

    Raises:
        InputError: There is none.
    """
    config.require("hidden_act", "silu", "the lab gates by nothing else")
    if "rms_norm_eps" not in config or config.number("rms_norm_eps", 0) != NORM_EPSILON:
        what = f"is not {NORM_EPSILON}, and the lab knows no other (none is {_USUAL_EPSILON})"
        config.refuse("rms_norm_eps", what)
    config.require("sliding_window", None, "in the lab, every token sees all before it")
    _require_plain_rotation(config)
    d_model, n_heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    n_key_heads = config.integer("num_key_value_heads", n_heads)
    if n_heads % n_key_heads:
        config.refuse("num_key_value_heads", f"does not divide num_attention_heads {n_heads}")
    if d_model % n_heads or config.integer("head_dim", d_model // n_heads) != d_model // n_heads:
        config.refuse("head_dim", f"times {n_heads} heads is not hidden_size {d_model}")
    biases = [config.truth(f"{part}_bias", False) for part in ("attention", "mlp")]
    return {
        "vocab_size": config.integer("vocab_size"),
        "n_layers": config.integer("num_hidden_layers"),
        "d_model": d_model,
        "n_heads": n_heads,
        "d_ff": config.integer("intermediate_size"),
        "dropout": config.number("attention_dropout", 0.0),
        "max_seq_len": config.integer("max_position_embeddings"),
        "position": "rope",
        "norm": "rmsnorm",
        "activation": "swiglu",
        "qk_norm": False,
        "tie_embeddings": config.truth("tie_word_embeddings", False),
        # Where only one of both has biases, those of the other are zeros.
        "bias": any(biases),
        "logit_softcap": None,
    }


def _require_plain_rotation(config: Fields) -> None:
    """Refuses rotations that are not those of the lab.

    Raises:
        InputError: They are others.
    """
    why = "the lab rotates by plain angles, of the base 10000"
    told = [config]
    for name in ("rope_parameters", "rope_scaling"):
        table = config.get(name)
        if table is not None and not isinstance(table, dict):
            config.refuse(name, "is no object")
        if table is not None:
            told.append(Fields(table, f"{config.place}: {name}"))
    for table in told:
        table.require("rope_theta", float(BASE), why)
        table.require("partial_rotary_factor", _WHOLE, why)
    for table in told[1:]:
        # Early versions called it by its second name.
        for name in ("rope_type", "type"):
            table.require(name, "default", why)


def outer_parts(arguments: Mapping[str, Any], config: Fields | None = None) -> list[Part]:
    """The weights outside of the blocks.

    Args:
        arguments: What builds our model.
        config: Not needed here.
    """
    return [
        *embedding_and_head("model.embed_tokens.weight", arguments),
        Part("final_norm.weight", (Piece("model.norm.weight", (arguments["d_model"],)),)),
    ]


def block_parts(
    layer: int, arguments: Mapping[str, Any], config: Fields | None = None
) -> list[Part]:
    """The weights of a block.

    Args:
        layer: Its index.
        arguments: What builds our model.
        config: Of the other program, which may have fewer heads of keys and values, each for
            several of queries, and biases in some layers only. None: as our model.
    """
    width, d_ff, n_heads = (arguments[name] for name in ("d_model", "d_ff", "n_heads"))
    bias = arguments["bias"]
    config = config or Fields({"attention_bias": bias, "mlp_bias": bias}, "")
    has_bias = {part: config.truth(f"{part}_bias", False) for part in ("attention", "mlp")}
    n_key_heads = config.integer("num_key_value_heads", n_heads)
    d_head = width // n_heads
    repeated = {"repeats": n_heads // n_key_heads, "group": d_head}
    ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
    attention, mlp = f"{theirs}.self_attn", f"{theirs}.mlp"
    query = Piece(f"{attention}.q_proj", (width, width))
    key, value = (
        Piece(f"{attention}.{name}_proj", (n_key_heads * d_head, width), **repeated)
        for name in ("k", "v")
    )
    mix = Piece(f"{attention}.o_proj", (width, width))
    gate, rest = (Piece(f"{mlp}.{name}_proj", (d_ff, width)) for name in ("gate", "up"))
    down = Piece(f"{mlp}.down_proj", (width, d_ff))
    layers = [
        ("attention.query_key_value", (query, key, value), "attention"),
        ("attention.projection", (mix,), "attention"),
        ("mlp.expansion", (gate, rest), "mlp"),
        ("mlp.projection", (down,), "mlp"),
    ]
    parts = [
        Part(f"{ours}.{norm}.weight", (Piece(f"{theirs}.{name}.weight", (width,)),))
        for norm, name in (
            ("attention_norm", "input_layernorm"),
            ("mlp_norm", "post_attention_layernorm"),
        )
    ]
    for name, pieces, place in layers:
        weights = tuple(piece._replace(name=f"{piece.name}.weight") for piece in pieces)
        parts.append(Part(f"{ours}.{name}.weight", weights))
        if bias:
            biases = tuple(_bias_of(piece, has_bias[place]) for piece in pieces)
            parts.append(Part(f"{ours}.{name}.bias", biases))
    return parts


def _bias_of(layer: Piece, is_there: bool) -> Piece:
    return layer._replace(name=f"{layer.name}.bias", shape=layer.shape[:1], is_zero=not is_there)
