import gin
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lm_core.experiment  # noqa: F401 -- defines the configurables that gin knows
from lm_core.config.binding import bind
from lm_core.config.hyperparameters import KEYS, TrainingConfig
from lm_core.config.rendering import config_hash, gin_text, yaml_text
from lm_core.config.resolution import ConfigSources, FileArgument, ResolvedConfig, resolve
from lm_core.config.statements import Source
from lm_core.config.table import gin_parameter

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
    "sampling_top_k": st.none() | st.integers(1, 2**70),
    "sampling_top_p": st.none() | st.floats(0, 1, exclude_min=True),
    "checkpoint_cadence": cadence,
}
heads = st.tuples(st.integers(1, 64), st.integers(1, 64)).map(
    lambda pair: {"n_heads": pair[0], "d_model": pair[0] * pair[1]}
)
configs = st.builds(
    lambda fields, heads: TrainingConfig(**fields, **heads),
    st.fixed_dictionaries({}, optional=FIELDS),
    heads,
)


def resolved(values, place="somewhere"):
    sources, names = {key: Source(place) for key in KEYS}, {key: key for key in KEYS}
    return ResolvedConfig(values, sources, names, lines={})


def read_back(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode())
    flag = "--config" if name.endswith(".yaml") else "--gin_file"
    return resolve(ConfigSources(files=[FileArgument(flag, str(path))])).values


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("configs")


@settings(max_examples=150)
@given(configs)
def test_the_yaml_record_gives_the_same_configuration(folder, values):
    content = yaml_text(resolved(values), "a header")
    assert read_back(folder, "config.yaml", content) == values


@settings(max_examples=150)
@given(configs, text)
def test_the_gin_record_gives_the_same_configuration(folder, values, place):
    content = gin_text(resolved(values, place))
    assert read_back(folder, "config.gin", content) == values


@settings(max_examples=50)
@given(configs)
def test_what_gin_holds_after_binding_is_the_configuration(values):
    bind(resolved(values))
    for key in KEYS:
        assert gin.query_parameter(gin_parameter(key)) == getattr(values, key)


def test_each_gin_binding_says_where_it_was_set():
    lines = gin_text(resolved(TrainingConfig(n_layers=6), "configs/my.yaml")).splitlines()
    assert "Transformer.n_layers = 6  # configs/my.yaml" in lines


def test_the_record_is_read_in_sections():
    lines = yaml_text(resolved(TrainingConfig()), "a header").splitlines()
    assert lines[0] == "# a header"
    assert [line for line in lines[1:] if line.startswith("#")] == [
        "# Model architecture",
        "# Training",
        "# Dataset",
        "# Evaluation and sampling",
        "# Checkpointing",
    ]


def test_a_header_cannot_break_out_of_its_line(folder):
    content = yaml_text(resolved(TrainingConfig()), "x\nn_layers: 99")
    assert read_back(folder, "config.yaml", content) == TrainingConfig()


TABLE = TrainingConfig().to_dict()


def test_the_hash_ignores_where_the_corpus_lies_but_not_what_it_says():
    here, there = {**TABLE, "corpus": "/here"}, {**TABLE, "corpus": "/there"}
    assert config_hash(here, "abc") == config_hash(there, "abc")
    assert config_hash(here, "abc") != config_hash(here, "abd")


@given(st.sampled_from(["n_layers", "learning_rate", "sampling_prompt", "seed"]))
def test_the_hash_sees_every_other_value(key):
    changed = {**TABLE, key: 77}
    assert config_hash(changed, "abc") != config_hash(TABLE, "abc")


def test_the_hash_does_not_depend_on_the_order_of_keys():
    assert config_hash(dict(reversed(TABLE.items())), "abc") == config_hash(TABLE, "abc")
