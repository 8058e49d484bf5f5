"""What a field of the table of hyperparameters is made of."""

from typing import Any, NamedTuple, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

CATEGORIES = (
    "Model architecture",
    "Training",
    "Dataset",
    "Evaluation",
    "Sampling",
    "Checkpointing",
)
# The largest step that the eight digits in the names of checkpoints hold.
LARGEST_STEP = 99_999_999
# The largest signed number of 32 bits: sizes of tensors beyond it cannot work on any machine.
LARGEST_SIZE = 2**31 - 1
# All bytes, and the token that ends a document: with fewer, byte-level BPE takes not every text.
SMALLEST_VOCABULARY = 257
# Far beyond the vocabularies that are in use, which have some 250,000 tokens.
LARGEST_VOCABULARY = 2**20
# Far beyond factors of a loss and bounds of logits that do something, far within float32's range.
LARGEST_FACTOR = 1e6


class Entry(NamedTuple):
    """What the table says of a hyperparameter beside its type, default, range and meaning.

    Attributes:
        gin_parameter: The gin parameter that the key binds, such as ``Transformer.n_layers``.
        category: One of ``CATEGORIES``.
        usual: The values that people usually give it, in words.
        change: When to give it another value than the default.
        interactions: Which other hyperparameters it has to do with, and how.
    """

    gin_parameter: str
    category: str
    usual: str
    change: str
    interactions: str


def field(
    default: Any,
    gin_parameter: str,
    category: str,
    *,
    usual: str,
    change: str,
    interactions: str,
    **limits: Any,
) -> Any:
    """A field of the table: its default, its entry, and pydantic's limits of its range."""
    entry = Entry(gin_parameter, category, usual, change, interactions)
    return Field(default, json_schema_extra=entry._asdict(), **limits)


def model(default: Any, binds: str, **details: Any) -> Any:
    """A field about the model."""
    return field(default, f"Transformer.{binds}", "Model architecture", **details)


def training(default: Any, binds: str, **details: Any) -> Any:
    """A field about training."""
    return field(default, f"Trainer.{binds}", "Training", **details)


def sampling(default: Any, binds: str, **details: Any) -> Any:
    """A field about samples."""
    return field(default, f"Sampler.{binds}", "Sampling", **details)


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
