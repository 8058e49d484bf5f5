"""Tokenizers as the files that transformers reads, and back.

The format of ``tokenizer.json`` is that of the package ``tokenizers``,
https://huggingface.co/docs/tokenizers/api/tokenizer; it is written here without the package.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_core.data.tokenizer import (
    AsciiTokenizer,
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
    tokenizer_from_dict,
)
from lm_core.data.tokenizer_json import byte_of_character
from lm_core.errors import InputError, shown
from lm_core.exchange.json_files import read_bounded

TOKENIZER_FILE = "tokenizer.json"
# Those of the largest vocabularies that are in use have some 20 megabytes.
_LARGEST_FILE = 64 * 2**20
# The version of the format, which has never had another.
_VERSION = "1.0"
# What a tokenizer of ours says about itself, beside its model.
_STEPS = ("normalizer", "pre_tokenizer", "decoder", "added_tokens")
# Of its model, what decides about tokens.
_OF_MODEL = ("type", "vocab", "merges", "unk_token", "continuing_subword_prefix")
# What the lab leaves out of a file that it takes, since it is no part of how text becomes tokens.
_LEFT_OUT = ("truncation", "padding", "post_processor")
# Where bytes are characters: each is written as its stand-in, and no text is split.
_BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": False,
    "use_regex": False,
}


def tokenizer_files(tokenizer: Tokenizer, max_seq_len: int) -> dict[str, str]:
    """The files by which transformers knows a tokenizer, each by its name.

    Args:
        tokenizer: The tokenizer.
        max_seq_len: The longest context of its model, in tokens.
    """
    text = tokenizer_json(tokenizer)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_seq_len,
        "clean_up_tokenization_spaces": False,
        # What looks like a special token in a text is text, as it is here.
        "split_special_tokens": True,
    }
    name = _name_of_separator(tokenizer)
    if name is not None:
        config["eos_token"] = name
    return {TOKENIZER_FILE: text, "tokenizer_config.json": json.dumps(config, indent=2) + "\n"}


def _name_of_separator(tokenizer: Tokenizer) -> str | None:
    added = json.loads(tokenizer.to_dict().get("json", "{}")).get("added_tokens", [])
    names = {token["id"]: token["content"] for token in added}
    return names.get(tokenizer.separator)


def tokenizer_json(tokenizer: Tokenizer) -> str:
    """The text of the ``tokenizer.json`` that gives a text the ids that a tokenizer of ours gives.

    Raises:
        InputError: There is none for this tokenizer.
    """
    stored = tokenizer.to_dict()
    if "json" in stored:
        return _as_it_is_used(stored["json"])
    if isinstance(tokenizer, CharTokenizer):
        vocab = {character: token for token, character in enumerate(tokenizer.characters)}
        table = _table(vocab, None, {"type": "Fuse"})
    elif isinstance(tokenizer, ByteTokenizer):
        # In the order of tokens, which are the bytes.
        pairs = sorted(byte_of_character().items(), key=lambda pair: pair[1])
        vocab = dict(pairs[: tokenizer.vocab_size])
        table = _table(vocab, dict(_BYTE_LEVEL), dict(_BYTE_LEVEL))
    else:
        raise InputError(f"there is no tokenizer.json for the {tokenizer.kind} tokenizer")
    return json.dumps(table, indent=2, ensure_ascii=False) + "\n"


def _as_it_is_used(text: str) -> str:
    """A ``tokenizer.json`` without what the lab does not do, and with the decoder that it has.

    Args:
        text: One that the lab takes; where nothing is to be changed, it stays as it is.

    Raises:
        InputError: The other program would decode one of its tokens to another text.
    """
    table = json.loads(text)
    byte_of = byte_of_character()
    for token in table.get("added_tokens") or []:
        content = token["content"]
        # The decoder takes such a name for bytes, where the lab takes it for what it says.
        if not content.isascii() and all(character in byte_of for character in content):
            message = f"transformers decodes the token {shown(content)} to other characters"
            raise InputError(f"{message}: a tokenizer with it cannot be exported")
    changes: dict[str, Any] = {name: None for name in _LEFT_OUT if table.get(name) is not None}
    if (table.get("decoder") or {}).get("type") != _BYTE_LEVEL["type"]:
        changes["decoder"] = dict(_BYTE_LEVEL)
    if not changes:
        return text
    return json.dumps({**table, **changes}, indent=2, ensure_ascii=False) + "\n"


def _table(vocab: dict[str, int], splits: Any, joins: Any) -> dict[str, Any]:
    """A tokenizer that merges nothing: each character is a token."""
    return {
        "version": _VERSION,
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": splits,
        "post_processor": None,
        "decoder": joins,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [],
        },
    }


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in a folder of transformers.

    Those that were written here are found again; what else is byte-level BPE is of the kind
    ``bpe``.

    Raises:
        InputError: There is none, or none that the lab has; says what helps.
    """
    path = folder / TOKENIZER_FILE
    if not path.exists():
        how = "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        message = f"{folder} has no {TOKENIZER_FILE}, which tells how text becomes tokens"
        raise InputError(f"{message}; transformers writes one from older files with {how}")
    data = read_bounded(path, _LARGEST_FILE)
    try:
        text = data.decode("utf-8-sig")
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} holds no JSON") from error
    own = _own_of(table)
    if own is not None:
        return own
    try:
        return tokenizer_from_dict({"kind": "bpe", "json": text})
    except InputError as error:
        raise InputError(f"{path}: {error.message}") from error


def _own_of(table: Any) -> Tokenizer | None:
    """The tokenizer without merges that a ``tokenizer.json`` describes, if it is one of ours."""
    model = table.get("model") if isinstance(table, Mapping) else None
    vocab = model.get("vocab") if isinstance(model, Mapping) else None
    if not isinstance(vocab, Mapping) or model.get("merges") != []:
        return None
    candidates: list[Tokenizer] = [AsciiTokenizer(), ByteTokenizer()]
    if all(len(character) == 1 for character in vocab):
        try:
            candidates.append(CharTokenizer("".join(sorted(vocab))))
        except InputError:  # It has no characters, or halves of some.
            return None
    for tokenizer in candidates:
        own = json.loads(tokenizer_json(tokenizer))
        is_same = all(table.get(step) == own[step] for step in _STEPS)
        if is_same and all(model.get(name) == own["model"][name] for name in _OF_MODEL):
            return tokenizer
    return None
