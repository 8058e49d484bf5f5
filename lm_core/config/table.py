"""Questions to the table of hyperparameters."""

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from lm_core.config.fields import Entry
from lm_core.config.hyperparameters import KEYS, Hyperparameters

# The parts of configuration files and tables, each with its categories.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Model architecture": ("Model architecture",),
    "Training": ("Training",),
    "Dataset": ("Dataset",),
    "Evaluation and sampling": ("Evaluation", "Sampling"),
    "Checkpointing": ("Checkpointing",),
}


def entry(key: str) -> Entry:
    """What the table says of a key beside its type, default, range and meaning."""
    return Entry(**Hyperparameters.model_fields[key].json_schema_extra)  # type: ignore[arg-type]


def gin_parameter(key: str) -> str:
    """The gin parameter that a YAML key binds, such as ``Transformer.n_layers``."""
    return entry(key).gin_parameter


def keys_by_section() -> dict[str, list[str]]:
    """The keys of each section of a configuration file, in their order."""
    return {
        section: [key for key in KEYS if entry(key).category in categories]
        for section, categories in SECTIONS.items()
    }


def default(key: str) -> Any:
    """The default of a hyperparameter."""
    return Hyperparameters.model_fields[key].default


def meaning(key: str) -> str:
    """What a hyperparameter does, in one line."""
    return " ".join((Hyperparameters.model_fields[key].description or "").split())


KEY_OF_GIN_PARAMETER: dict[str, str] = {gin_parameter(key): key for key in KEYS}


def value_types(key: str) -> tuple[Any, ...]:
    """The types a hyperparameter takes; a ``Literal`` stands for the words it takes."""
    annotation = Hyperparameters.model_fields[key].annotation
    is_union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if is_union else (annotation,)


def words(key: str) -> tuple[str, ...]:
    """The words a hyperparameter takes; none where it takes something else."""
    return tuple(word for t in value_types(key) if get_origin(t) is Literal for word in get_args(t))
