"""``TrainingConfig``: the one table of hyperparameters.

Everything that speaks of hyperparameters reads this table: the check of every statement, the gin
binding each key becomes, the record of a run. A constructor repeats its own defaults, so that
it works without gin, and a test compares every pair.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, NotRequired, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from lm_core.randomness import LARGEST_SEED

CATEGORIES = (
    "Model architecture",
    "Training",
    "Dataset",
    "Evaluation and sampling",
    "Checkpointing",
)
# Steps are written with eight digits in the names of checkpoints.
LARGEST_STEP = 99_999_999
# Sizes of tensors beyond this cannot work on any machine.
LARGEST_SIZE = 2**31 - 1


def _field(default: Any, binds: str, category: str, **limits: Any) -> Any:
    """A field of the table: its default, the gin parameter it binds, its category and range."""
    extra = {"gin_parameter": binds, "category": category}
    return Field(default, json_schema_extra=extra, **limits)


def _model(default: Any, binds: str, **limits: Any) -> Any:
    return _field(default, f"Transformer.{binds}", "Model architecture", **limits)


def _training(default: Any, binds: str, **limits: Any) -> Any:
    return _field(default, f"Trainer.{binds}", "Training", **limits)


def _sampling(default: Any, binds: str, **limits: Any) -> Any:
    return _field(default, f"Sampler.{binds}", "Evaluation and sampling", **limits)


class BrokenRule(NamedTuple):
    """Two keys whose values do not fit, and what is wrong between them, to be read in a row."""

    key: str
    relation: str
    other_key: str


class HookEntry(TypedDict):
    """One hook in the ``hooks`` table; its other keys are the options of that hook."""

    __pydantic_config__ = ConfigDict(strict=True, extra="allow")  # type: ignore[misc]
    name: str
    enabled: NotRequired[bool]


class HooksTable(TypedDict):
    """The ``hooks`` hyperparameter: forward hooks and update hooks, in the order they run."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # type: ignore[misc]
    forward: NotRequired[list[HookEntry]]
    update: NotRequired[list[HookEntry]]


class TrainingConfig(BaseModel):
    """Every hyperparameter of the lab, with its type, default, range and meaning.

    Types are strict: ``True`` and ``"6"`` are no integers, an integer is a fine number, infinity
    and not-a-number are neither. Ranges refuse what cannot work and leave the merely unwise alone.
    """

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    n_layers: int = _model(4, "n_layers", ge=1, le=LARGEST_SIZE)
    """Number of Transformer blocks. Usual: 2 to 48; parameters and time grow in proportion."""

    d_model: int = _model(256, "d_model", ge=1, le=LARGEST_SIZE)
    """Width of the residual stream; must be a multiple of n_heads. Usual: 64 to 4096."""

    n_heads: int = _model(4, "n_heads", ge=1, le=LARGEST_SIZE)
    """Attention heads a block; each is d_model / n_heads wide. Usual: heads 32 to 128 wide."""

    d_ff: int = _model(1024, "d_ff", ge=1, le=LARGEST_SIZE)
    """Width of the hidden layer of each MLP. Usual: four times d_model."""

    dropout: float = _model(0.1, "dropout", ge=0, lt=1)
    """Share of activations zeroed in training, on embeddings, attention and MLP. Usual: 0 when
    the corpus is seen less than once, 0.1 to 0.3 when it is seen often."""

    max_seq_len: int = _model(256, "max_seq_len", ge=1, le=LARGEST_SIZE)
    """Context length in tokens, and the length of the training windows. Usual: 64 to 4096;
    attention's cost grows with its square."""

    max_steps: int = _training(10_000, "max_steps", ge=1, le=LARGEST_STEP)
    """Optimizer steps in the whole run. --max_steps overrides it."""

    batch_size: int = _training(16, "batch_size", ge=1, le=LARGEST_SIZE)
    """Windows in a step's batch; a step sees batch_size x max_seq_len tokens. Usual: 8 to 512."""

    learning_rate: float = _training(3e-4, "learning_rate", gt=0)
    """Step size of AdamW. Usual: 1e-4 to 3e-3, smaller for wider models."""

    weight_decay: float = _training(0.1, "weight_decay", ge=0)
    """Decoupled weight decay of AdamW, on matrices only, not on norms, biases and embeddings.
    Usual: 0 to 0.1."""

    beta1: float = _training(0.9, "beta1", ge=0, lt=1)
    """AdamW's decay of the mean of the gradient. Usual: 0.9."""

    beta2: float = _training(0.95, "beta2", ge=0, lt=1)
    """AdamW's decay of the mean of the squared gradient. Usual: 0.95 to 0.999."""

    seed: int | None = _training(None, "seed", ge=0, le=LARGEST_SEED)
    """Seed of initial weights, batches and dropout. null: one is drawn, used and recorded."""

    hooks: HooksTable | None = _training(None, "hooks")
    """Forward and update hooks: {forward: [{name, enabled, ...}], update: [{name, enabled, ...}]}.
    null: none."""

    corpus: str | None = _field(None, "load_corpus.path", "Dataset", min_length=1)
    """A UTF-8 text file, a folder (its *.txt at any depth) or a glob; relative to the working
    directory. null: the built-in corpus. --corpus overrides it."""

    tokenizer: Literal["ascii", "char", "byte"] = _field("ascii", "Tokenizer.kind", "Dataset")
    """ascii: the 128 characters of ASCII. char: the characters of the corpus. byte: the 256
    bytes of UTF-8, which take any text."""

    train_ratio: float = _field(0.95, "split_corpus.train_ratio", "Dataset", gt=0, lt=1)
    """Share of the corpus, from its start, that is trained on; the rest is held out for
    validation. Usual: 0.9 to 0.99."""

    eval_cadence: int | None = _field(
        None, "Trainer.eval_cadence", "Evaluation and sampling", ge=1, le=LARGEST_STEP
    )
    """Evaluate every so many steps. null: only after the last step."""

    sampling_cadence: int | None = _field(
        None, "Trainer.sampling_cadence", "Evaluation and sampling", ge=1, le=LARGEST_STEP
    )
    """Write a sample every so many steps, and after the last one. null: never."""

    sampling_temperature: float = _sampling(1.0, "temperature", ge=0)
    """Divides the logits before sampling; 0 always takes the likeliest token. Usual: 0.5 to 1."""

    sampling_prompt: str = _sampling("The", "prompt", min_length=1)
    """The text that every sample goes on from."""

    sampling_max_length: int = _sampling(100, "max_length", ge=1, le=LARGEST_SIZE)
    """New tokens in a sample, after the prompt."""

    sampling_seed: int = _sampling(42, "seed", ge=0, le=LARGEST_SEED)
    """Seed of the sampler: the same seed and weights give the same text."""

    sampling_top_k: int | None = _sampling(None, "top_k", ge=1)
    """Sample only from the k likeliest tokens. null: from all. Usual: 20 to 200."""

    sampling_top_p: float | None = _sampling(None, "top_p", gt=0, le=1)
    """Sample only from the likeliest tokens that together hold this probability. null: from all.
    Usual: 0.9 to 0.95."""

    checkpoint_cadence: int | None = _field(
        1000, "Trainer.checkpoint_cadence", "Checkpointing", ge=1, le=LARGEST_STEP
    )
    """Save every so many steps, at every evaluation that is the best so far, and after the last
    step. null: only after the last step."""

    @model_validator(mode="after")
    def _values_fit_each_other(self) -> Self:
        for key, relation, other in broken_rules(self.model_dump()):
            mine, theirs = getattr(self, key), getattr(self, other)
            raise ValueError(f"{key} {mine} {relation} {other} {theirs}")
        return self


KEYS: tuple[str, ...] = tuple(TrainingConfig.model_fields)


def gin_parameter(key: str) -> str:
    """The gin parameter that a YAML key binds, such as ``Transformer.n_layers``."""
    return _extra(key)["gin_parameter"]


def category(key: str) -> str:
    """The section of the table that a YAML key belongs to, one of ``CATEGORIES``."""
    return _extra(key)["category"]


def _extra(key: str) -> dict[str, Any]:
    return TrainingConfig.model_fields[key].json_schema_extra  # type: ignore[return-value]


KEY_OF_GIN_PARAMETER: dict[str, str] = {gin_parameter(key): key for key in KEYS}


def value_types(key: str) -> tuple[Any, ...]:
    """The types a hyperparameter takes; for ``tokenizer``, the words it takes."""
    annotation = TrainingConfig.model_fields[key].annotation
    return get_args(annotation) or (annotation,)


def is_text(key: str) -> bool:
    """Whether a hyperparameter's values are strings, so that a bare word can be meant as one."""
    return key == "tokenizer" or str in value_types(key)


def broken_rules(values: Mapping[str, Any]) -> list[BrokenRule]:
    """The rules between values that are good one by one.

    Args:
        values: Every key of the table with its value.

    Returns:
        What is broken, an empty list when all values fit each other.
    """
    broken = []
    if values["d_model"] % values["n_heads"]:
        broken.append(BrokenRule("d_model", "is not divisible by", "n_heads"))
    return broken
