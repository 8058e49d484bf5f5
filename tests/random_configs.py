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
FIELDS = {
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
    "seed": st.none() | st.integers(0, 2**63 - 1),
    "hooks": hooks,
    "corpus": st.none() | text,
    "tokenizer": st.sampled_from(["ascii", "char", "byte"]),
    "train_ratio": st.floats(0, 1, exclude_min=True, exclude_max=True),
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
    "sampling_prompt": [*WRONG_FOR_ALL, None, ""],
    "tokenizer": [*WRONG_FOR_ALL, None, "bpe", "Byte"],
    "precision": [*WRONG_FOR_ALL, None, "bf16", "float16"],
    "device": [*WRONG_FOR_ALL, None, "gpu", "cuda:0"],
    "compile": [[1], {"a": 1}, None, 0, 1, "true"],
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
