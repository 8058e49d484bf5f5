"""Exporting: the model of a run as a folder that transformers loads from the disk."""

import json
from collections.abc import Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from lm_core.atomic_files import write_synced
from lm_core.data.tokenizer import Tokenizer
from lm_core.errors import InputError
from lm_core.examination import open_run
from lm_core.exchange.families import Family, all_parts, family_for
from lm_core.exchange.model_card import card_of
from lm_core.exchange.occupied import refuse_occupied
from lm_core.exchange.parts import to_theirs
from lm_core.exchange.tokenizer_files import tokenizer_files
from lm_core.exchange.weight_files import ONE_FILE
from lm_core.memory import memory_explained
from lm_core.model.transformer import Transformer
from lm_core.new_folders import new_folder
from lm_core.output import say, warn
from lm_core.request import Request
from lm_core.training.restoring import restored_model
from lm_core.training.tensor_files import write_tensors

# What transformers insists on in the header of a file of weights.
_METADATA = {"format": "pt"}


def export(request: Request) -> None:
    """Writes the result of a run as a folder of transformers.

    Raises:
        LabError: Anything a person should read; nothing half-made is left behind.
    """
    if request.to is None:
        raise InputError("--to is missing: it names the folder to be made, such as exported")
    run, config, checkpoint = open_run(request)
    with memory_explained():
        model, tokenizer = restored_model(checkpoint)
    hooks = config.values.hooks or {}
    if any(entry.get("enabled", True) for entry in hooks.get("forward", [])):
        warn("the forward hooks of this run are no part of what is exported")
    card = card_of(run, config, checkpoint, family_for(model.arguments), tokenizer)
    write_folder(model, tokenizer, request.to, card, who="--to")
    family = family_for(model.arguments).NAME
    say(f"checkpoint: step {checkpoint.step:,} of {run.path}")
    say(f"exported as {family}, {model.n_parameters:,} parameters: {request.to}")


def write_folder(
    model: Transformer,
    tokenizer: Tokenizer,
    to: str | PathLike[str],
    card: str | None = None,
    who: str = "to",
) -> None:
    """Writes a model and its tokenizer as a folder of transformers, whole or not at all.

    Args:
        model: The model; its hooks are no part of it.
        tokenizer: Its tokenizer.
        to: The folder, which must not be there.
        card: What its README.md says; None: it has none.
        who: What named the folder, for messages: a flag, where there is one.

    Raises:
        InputError: transformers has no architecture like this model, the tokenizer is not the
            model's, or the folder cannot be made there.
        MachineError: The disk is full or fails.
    """
    to = Path(to)
    model.require_vocabulary(tokenizer.vocab_size)
    family = family_for(model.arguments)
    texts = _texts(family, model.arguments, tokenizer)
    if card is not None:
        texts["README.md"] = card
    parts = all_parts(family, model.arguments)
    weights = to_theirs(parts, {name: p.float() for name, p in model.state_dict().items()})
    with new_folder(to, "folder", who, partial(refuse_occupied, who)) as folder:
        write_tensors(folder / ONE_FILE, weights, _METADATA)
        for name, text in texts.items():
            write_synced(folder / name, text.encode())


def _texts(family: Family, arguments: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, str]:
    """Everything but the weights, by the names of the files."""
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.separator}
    # The first is read by version 5 of transformers, the second by those before.
    types = {"dtype": "float32", "torch_dtype": "float32"}
    return {
        "config.json": _json(family.config_of(arguments) | ends | types),
        "generation_config.json": _json({"_from_model_config": True, **ends}),
        **tokenizer_files(tokenizer, arguments["max_seq_len"]),
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
