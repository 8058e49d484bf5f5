"""Sentences about names that are no hyperparameter, with the right one where it can be told."""

import difflib
from collections.abc import Iterable

from lm_core.config.hyperparameters import KEYS
from lm_core.config.table import KEY_OF_GIN_PARAMETER, gin_parameter
from lm_core.errors import unknown

# Arguments of configurables that are built at run time, so that nobody can bind them.
RUNTIME_ARGUMENTS = frozenset(
    {
        "Transformer.vocab_size",
        "Transformer.seed",
        "Tokenizer.corpus",
        "split_corpus.tokens",
        "Sampler.model",
        "Sampler.tokenizer",
        "Trainer.model",
        "Trainer.tokens",
        "Trainer.evaluate",
        "Trainer.sample",
        "Trainer.tokenizer",
    }
)
_OF_RUNTIME = "is not a hyperparameter: the program itself gives it a value when it runs"
_KEYS_OF_ARGUMENT: dict[str, list[str]] = {}
for _parameter, _key in KEY_OF_GIN_PARAMETER.items():
    _KEYS_OF_ARGUMENT.setdefault(_parameter.split(".")[1], []).append(_key)


def unknown_key(name: str, others: Iterable[str] = ()) -> str:
    """The sentence about a key that the table does not have.

    Args:
        name: The key as it was written.
        others: Further names that have a meaning where it stands.
    """
    meant = _meant(name)
    if meant is None and f"Transformer.{name}" in RUNTIME_ARGUMENTS:
        return _OF_RUNTIME
    if meant is not None:
        return f"unknown hyperparameter; did you mean {meant}?"
    return unknown(name, (*KEYS, *others), "hyperparameter")


def unknown_parameter(selector: str, argument: str) -> str:
    """The sentence about a gin parameter that binds no hyperparameter.

    Args:
        selector: The constructor as it was written, perhaps with modules in front.
        argument: Its argument.
    """
    last = f"{selector.rsplit('.', 1)[-1]}.{argument}"
    if last in KEY_OF_GIN_PARAMETER:
        return f"unknown parameter; write {last}"
    if last in RUNTIME_ARGUMENTS:
        return _OF_RUNTIME
    key = _meant(argument)
    if key:
        return f"unknown parameter; did you mean {gin_parameter(key)}?"
    # A right constructor makes names look alike that are not.
    of_it = [p for p in KEY_OF_GIN_PARAMETER if p.split(".")[0] == selector]
    arguments = {p.split(".")[1].lower(): p for p in of_it or sorted(KEY_OF_GIN_PARAMETER)}
    near = difflib.get_close_matches(argument.lower(), arguments, 1)
    return "unknown parameter" + (f"; did you mean {arguments[near[0]]}?" if near else "")


def unused_macro(name: str) -> str:
    """The sentence about a macro that nothing uses, perhaps meant as a hyperparameter."""
    key = _meant(name)
    hint = f"; did you mean {gin_parameter(key)}?" if key else ""
    return f"{name}: a macro that nothing uses{hint}"


def _meant(name: str) -> str | None:
    """The key that is meant by its own name, by its gin parameter, or by that's last part."""
    keys = [name] if name in KEYS else _KEYS_OF_ARGUMENT.get(name, [])
    keys = keys or [key for parameter, key in KEY_OF_GIN_PARAMETER.items() if parameter == name]
    return keys[0] if len(keys) == 1 else None
