"""Sentences about names that are no hyperparameter, with the right one where it can be told."""

import difflib
from collections.abc import Iterable

from lm_core.config.hyperparameters import KEYS
from lm_core.config.table import KEY_OF_GIN_PARAMETER, gin_parameter
from lm_core.errors import nearest, unknown

# Arguments of configurables that are built at run time, so that nobody can bind them.
RUNTIME_ARGUMENTS = frozenset(
    {
        "Transformer.vocab_size",
        "Transformer.seed",
        "Tokenizer.split",
        "Tokenizer.verify",
        "load_corpus.verify",
        "load_corpus.cache_folder",
        "load_corpus.largest_in_memory",
        "split_corpus.corpus",
        "Sampler.model",
        "Sampler.tokenizer",
        "Trainer.model",
        "Trainer.tokens",
        "Trainer.group",
        "Trainer.evaluate",
        "Trainer.sample",
        "Trainer.tokenizer",
    }
)
_OF_RUNTIME = "is not a hyperparameter: the program itself gives it a value when it runs"
# What other programs and papers call the same, so that a habit finds its name here: the flags of
# nanoGPT (https://github.com/karpathy/nanoGPT/blob/master/train.py), the configurations and
# training arguments of Hugging Face transformers, and abbreviations.
_KEY_OF_OTHER_NAME = {
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "batch": "batch_size",
    "block_size": "max_seq_len",
    "bs": "batch_size",
    "context_length": "max_seq_len",
    "data": "corpus",
    "dataset": "corpus",
    "embed_dim": "d_model",
    "eval_interval": "eval_cadence",
    "eval_steps": "eval_cadence",
    "ffn_dim": "d_ff",
    "hidden_size": "d_model",
    "intermediate_size": "d_ff",
    "iterations": "max_steps",
    "lr": "learning_rate",
    "max_iters": "max_steps",
    "max_new_tokens": "sampling_max_length",
    "max_position_embeddings": "max_seq_len",
    "n_embd": "d_model",
    "n_positions": "max_seq_len",
    "n_vocab": "vocab_size",
    "num_attention_heads": "n_heads",
    "num_heads": "n_heads",
    "num_hidden_layers": "n_layers",
    "num_layers": "n_layers",
    "per_device_train_batch_size": "batch_size",
    "random_seed": "seed",
    "save_interval": "checkpoint_cadence",
    "save_steps": "checkpoint_cadence",
    "seq_len": "max_seq_len",
    "steps": "max_steps",
    "tokenizer_path": "tokenizer_file",
    "wd": "weight_decay",
}
# What gin, Hydra and others call the file that one inherits from.
_NAMES_OF_EXTENDS = {"_base_", "base", "defaults", "import", "include", "inherits", "parent"}
# The keys of a mapping that may be meant as hooks.
_INSIDE_HOOKS = {"forward", "update"}
_KEYS_OF_ARGUMENT: dict[str, list[str]] = {}
for _parameter, _key in KEY_OF_GIN_PARAMETER.items():
    _KEYS_OF_ARGUMENT.setdefault(_parameter.split(".")[1], []).append(_key)


def unknown_key(name: str, others: Iterable[str] = (), inside: Iterable[str] = ()) -> str:
    """The sentence about a key that the table does not have.

    Args:
        name: The key as it was written.
        others: Further names that have a meaning where it stands.
        inside: The keys of the mapping that is its value; with hyperparameters among them, it is
            a section, as other programs want them.
    """
    if any(_meant(key) or nearest(key, KEYS) for key in inside if key not in _INSIDE_HOOKS):
        return "unknown hyperparameter; all of them stand in one list, without sections"
    if "extends" in others and name.lower() in _NAMES_OF_EXTENDS:
        return "unknown hyperparameter; did you mean extends?"
    meant = _meant(name)
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
        # Of another constructor it is a hyperparameter: Trainer.seed, Tokenizer.kind.
        meant = _meant(argument)
        return _OF_RUNTIME + (f"; did you mean {gin_parameter(meant)}?" if meant else "")
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
    parameter = near_parameter(name)
    hint = f"; did you mean {parameter}?" if parameter else ""
    return f"{name}: a macro that nothing uses{hint}"


def meant_parameter(name: str) -> str | None:
    """The gin parameter that somebody means who says ``lr``, ``n_layers`` or ``batch-size``."""
    key = _meant(name.replace("-", "_"))
    return gin_parameter(key) if key else None


def near_parameter(name: str) -> str | None:
    """The gin parameter that is meant by a name, or that is most like it, if any is."""
    key = None if meant_parameter(name) else nearest(name, KEYS)
    return gin_parameter(key) if key else meant_parameter(name)


def _meant(name: str) -> str | None:
    """The key meant by its name, its gin parameter, the last part of that, or another's name."""
    keys = [name] if name in KEYS else _KEYS_OF_ARGUMENT.get(name, [])
    keys = keys or [key for parameter, key in KEY_OF_GIN_PARAMETER.items() if parameter == name]
    return keys[0] if len(keys) == 1 else _KEY_OF_OTHER_NAME.get(name.lower())
