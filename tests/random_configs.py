"""Random configurations: valid ones, and valid ones with one mistake in them."""

from hypothesis import strategies as st

from lm_core.config.hyperparameters import KEYS
from lm_core.config.training_config import TrainingConfig

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
size = st.integers(1, 2**31 - 1)
cadence = st.none() | st.integers(1, 99_999_999)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | text
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
entry = st.builds(
    lambda options, fixed: {**options, **fixed},
    st.dictionaries(text, plain, max_size=3),
    st.fixed_dictionaries({"name": text}, optional={"enabled": st.booleans()}),
)
hooks = st.none() | st.fixed_dictionaries(
    {}, optional={"forward": st.lists(entry, max_size=2), "update": st.lists(entry, max_size=2)}
)
positive = st.floats(0, exclude_min=True, allow_infinity=False)
above_0_below_1 = st.floats(0, 1, exclude_min=True, exclude_max=True)
FIELDS = {
    "position": st.sampled_from(["learned", "rope"]),
    "norm": st.sampled_from(["layernorm", "rmsnorm"]),
    "activation": st.sampled_from(["gelu", "gelu_tanh", "relu_squared", "swiglu"]),
    "qk_norm": st.booleans(),
    "tie_embeddings": st.booleans(),
    "bias": st.booleans(),
    "logit_softcap": st.none() | st.floats(1e-3, 1e6),
    "accumulation_steps": size,
    "optimizer": st.sampled_from(["adamw", "muon"]),
    "learning_rate_schedule": st.sampled_from(
        ["constant", "linear", "cosine", "warmup_stable_decay"]
    ),
    "warmup_steps": st.integers(0, 99_999_999),
    "decay_steps": cadence,
    "decay_share": st.floats(0, 1, exclude_min=True),
    "min_learning_rate_ratio": st.floats(0, 1),
    "muon_learning_rate": positive,
    "muon_momentum": st.floats(0, 1, exclude_max=True),
    "max_grad_norm": st.none() | positive,
    "label_smoothing": st.floats(0, 1, exclude_max=True),
    "z_loss": st.floats(0, 1e6),
    "ema_decay": st.none() | above_0_below_1,
    "data_order": st.sampled_from(["random", "shuffled"]),
    "early_stopping_evaluations": cadence,
    "n_layers": size,
    "d_ff": size,
    "dropout": st.floats(0, 1, exclude_max=True),
    "max_seq_len": size,
    "max_steps": st.integers(1, 99_999_999),
    "batch_size": size,
    "learning_rate": positive,
    "weight_decay": st.floats(0, allow_infinity=False),
    "beta1": st.floats(0, 1, exclude_max=True),
    "beta2": st.floats(0, 1, exclude_max=True),
    "max_skipped_batches": st.integers(0, 99_999_999),
    "precision": st.sampled_from(["auto", "float32", "bfloat16"]),
    "device": st.sampled_from(["auto", "cpu", "cuda", "mps"]),
    "compile": st.booleans(),
    "parallelism": st.sampled_from(["auto", "none", "ddp"]),
    "exact_reduction": st.booleans(),
    "seed": st.none() | st.integers(0, 2**63 - 1),
    "init_from": st.none() | text,
    "hooks": hooks,
    "corpus": st.none() | text,
    "text_key": text,
    "split_by": st.sampled_from(["position", "document"]),
    "tokenizer": st.sampled_from(["ascii", "char", "byte", "bpe"]),
    "vocab_size": st.integers(257, 2**20),
    "tokenizer_file": st.none() | text,
    "train_ratio": above_0_below_1,
    "eval_cadence": cadence,
    "sampling_cadence": cadence,
    "sampling_temperature": st.floats(0, allow_infinity=False),
    "sampling_prompt": text,
    "sampling_max_length": size,
    "sampling_seed": st.integers(0, 2**63 - 1),
    "sampling_num_samples": size,
    "sampling_top_k": st.none() | st.integers(1, 2**70),
    "sampling_top_p": st.none() | st.floats(0, 1, exclude_min=True),
    "checkpoint_cadence": cadence,
    "keep_checkpoints": cadence,
}
heads = st.tuples(st.integers(1, 64), st.integers(1, 64)).map(
    lambda pair: {"n_heads": pair[0], "d_model": pair[0] * pair[1]}
)


def fitting(fields, heads):
    """A configuration of values that are good one by one, made to fit each other."""
    if not fields.get("sampling_prompt", "The").isascii():
        fields = {**fields, "tokenizer": "byte"}
    if fields.get("tokenizer_file") is not None:
        fields = {**fields, "tokenizer": "bpe"}
    if "accumulation_steps" in fields:
        fields = {**fields, "batch_size": fields["accumulation_steps"]}
    if fields.get("decay_steps") is not None and "warmup_steps" in fields:
        fields = {**fields, "warmup_steps": min(fields["warmup_steps"], fields["decay_steps"])}
    if fields.get("eval_cadence") is None:
        fields = {**fields, "early_stopping_evaluations": None}
    if fields.get("position") == "rope":
        heads = {**heads, "d_model": 2 * heads["d_model"]}
    return TrainingConfig(**fields, **heads)


configs = st.builds(
    fitting,
    st.fixed_dictionaries({}, optional=FIELDS),
    heads,
)

# Values that no key takes, values of the wrong type for most, and values out of every range.
WRONG_FOR_ALL = [[1], {"a": 1}, {"forward": 3}, True, False, -1, -0.5, float("inf"), float("nan")]
WRONG = {
    **{key: [*WRONG_FOR_ALL, None, 0, 1.5, "6", 2**31] for key in FIELDS if FIELDS[key] is size},
    **{key: [*WRONG_FOR_ALL, 0, 1.5, "6", 10**8] for key in FIELDS if FIELDS[key] is cadence},
    "n_heads": [*WRONG_FOR_ALL, None, 0, "4"],
    "d_model": [*WRONG_FOR_ALL, None, 0, "256"],
    "max_skipped_batches": [*WRONG_FOR_ALL, None, 1.5, "0", 10**8],
    "max_steps": [*WRONG_FOR_ALL, None, 0, 10**8],
    "dropout": [*WRONG_FOR_ALL, None, 1, 1.5, "0.1"],
    "beta1": [*WRONG_FOR_ALL, None, 1, "0.9"],
    "beta2": [*WRONG_FOR_ALL, None, 1, "0.9"],
    "learning_rate": [*WRONG_FOR_ALL, None, 0, "3e-4"],
    "weight_decay": [*WRONG_FOR_ALL, None, "0.1"],
    "train_ratio": [*WRONG_FOR_ALL, None, 0, 1, 1.0, "0.95"],
    "sampling_temperature": [*WRONG_FOR_ALL, None, "1"],
    "sampling_top_p": [*WRONG_FOR_ALL, 0, 1.5, "0.9"],
    "sampling_top_k": [*WRONG_FOR_ALL, 0, 1.5, "3"],
    "seed": [*WRONG_FOR_ALL, 1.5, "1", 2**63],
    "sampling_seed": [*WRONG_FOR_ALL, None, 1.5, "1", 2**63],
    "hooks": [*WRONG_FOR_ALL, "identity", {"update": [{}]}, {"update": [{"name": 3}]}],
    "corpus": [*WRONG_FOR_ALL, ""],
    "init_from": [*WRONG_FOR_ALL, ""],
    "text_key": [*WRONG_FOR_ALL, None, ""],
    "split_by": [*WRONG_FOR_ALL, None, "documents", "Position"],
    "sampling_prompt": [*WRONG_FOR_ALL, None, ""],
    "tokenizer": [*WRONG_FOR_ALL, None, "gpt2", "Byte"],
    "vocab_size": [*WRONG_FOR_ALL, None, 256, "4096", 2**20 + 1],
    "tokenizer_file": [*WRONG_FOR_ALL, ""],
    "precision": [*WRONG_FOR_ALL, None, "bf16", "float16"],
    "device": [*WRONG_FOR_ALL, None, "gpu", "cuda:0"],
    "bias": [[1], {"a": 1}, None, 0, 1, "no"],
    "compile": [[1], {"a": 1}, None, 0, 1, "true"],
    "parallelism": ["DDP", "", None, 1, True, ["ddp"]],
    "exact_reduction": [[1], {"a": 1}, None, 0, 1, "true"],
    "qk_norm": [[1], {"a": 1}, None, 0, 1, "true"],
    "tie_embeddings": [[1], {"a": 1}, None, 0, 1, "false"],
    "position": [*WRONG_FOR_ALL, None, "rotary", "RoPE"],
    "norm": [*WRONG_FOR_ALL, None, "rms", "LayerNorm"],
    "activation": [*WRONG_FOR_ALL, None, "relu", "relu^2"],
    "logit_softcap": [*WRONG_FOR_ALL, 0, 1e7, "30"],
    "optimizer": [*WRONG_FOR_ALL, None, "adam", "Muon"],
    "learning_rate_schedule": [*WRONG_FOR_ALL, None, "wsd", "Cosine"],
    "warmup_steps": [*WRONG_FOR_ALL, None, 1.5, "100", 10**8],
    "decay_share": [*WRONG_FOR_ALL, None, 0, 1.5, "0.2"],
    "min_learning_rate_ratio": [*WRONG_FOR_ALL, None, 1.5, "0.1"],
    "muon_learning_rate": [*WRONG_FOR_ALL, None, 0, "2e-2"],
    "muon_momentum": [*WRONG_FOR_ALL, None, 1, "0.95"],
    "max_grad_norm": [*WRONG_FOR_ALL, 0, "1"],
    "label_smoothing": [*WRONG_FOR_ALL, None, 1, "0.1"],
    "z_loss": [*WRONG_FOR_ALL, None, 1e7, "1e-4"],
    "ema_decay": [*WRONG_FOR_ALL, 0, 1, "0.99"],
    "data_order": [*WRONG_FOR_ALL, None, "shuffle", "epochs"],
}
# For each key a value that is not the default, and may stand beside the defaults of all others, but
# for early_stopping_evaluations, which needs an eval_cadence, and tokenizer_file, which needs
# tokenizer bpe; where there is none here, it is 77.
ANOTHER_VALUE = {
    "vocab_size": 5000,
    "tokenizer_file": "tokenizer.json",
    "n_heads": 8,
    "d_model": 512,
    "position": "rope",
    "norm": "rmsnorm",
    "activation": "swiglu",
    "qk_norm": True,
    "tie_embeddings": False,
    "bias": False,
    "accumulation_steps": 4,
    "optimizer": "muon",
    "learning_rate_schedule": "cosine",
    "data_order": "shuffled",
    "compile": True,
    "parallelism": "ddp",
    "exact_reduction": True,
    "hooks": {"update": [{"name": "identity"}]},
    "init_from": "runs/another",
    "corpus": "my.txt",
    "text_key": "content",
    "split_by": "document",
    "tokenizer": "byte",
    "precision": "float32",
    "device": "cpu",
    "sampling_prompt": "Once",
    **dict.fromkeys(
        (
            "dropout",
            "beta1",
            "beta2",
            "train_ratio",
            "sampling_top_p",
            "decay_share",
            "min_learning_rate_ratio",
            "muon_momentum",
            "label_smoothing",
            "ema_decay",
        ),
        0.5,
    ),
}
mistakes = st.sampled_from([(key, value) for key in KEYS for value in WRONG.get(key, ())])


@st.composite
def misspelled(draw):
    """A key with one letter lost, doubled or changed, which is no key; and the key itself."""
    key = draw(st.sampled_from(KEYS))
    place = draw(st.integers(0, len(key) - 1))
    letter = draw(st.sampled_from(["", key[place] * 2, "x"]))
    wrong = key[:place] + letter + key[place + 1 :]
    return (wrong if wrong not in KEYS and wrong.strip("_") else f"{key}x"), key
