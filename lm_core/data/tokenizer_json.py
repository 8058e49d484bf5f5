"""What a ``tokenizer.json`` says, once it is sure that it loses nothing and can be cut anywhere.

The format is that of the package ``tokenizers``, which can do much that changes a text: lower-case
it, drop its spaces, put one in front. A text would not come back from its tokens then, and bits per
byte would be of another text. So everything is refused but byte-level BPE (Radford et al. 2019,
"Language Models are Unsupervised Multitask Learners", section 2.2) in the forms that keep each
byte, with patterns of which it is known where a text can be cut for them (``text_pieces``).
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from lm_core.config.fields import LARGEST_VOCABULARY
from lm_core.data.text_pieces import has_place_inside
from lm_core.errors import InputError, shown

# The names of the token that ends a document: GPT-2's, and that of Llama 3.
SEPARATORS = ("<|endoftext|>", "<|end_of_text|>")
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT2_SHORT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_BEFORE_NUMBERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_AFTER_NUMBERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_O200K_LETTERS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
)
_O200K_REST = r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How texts are parted into words, before words are parted into tokens: by GPT-2, in two spellings;
# by GPT-4, which Llama 3 took over, and with numbers of one digit, as in Qwen; by GPT-4o.
PATTERNS = (
    _GPT2,
    _GPT2_SHORT,
    _BEFORE_NUMBERS + r"\p{N}{1,3}" + _AFTER_NUMBERS,
    _BEFORE_NUMBERS + r"\p{N}" + _AFTER_NUMBERS,
    _O200K_LETTERS + _O200K_REST,
)
# Both keep all of a text where the pattern matches all of it: what it matches stands alone, or
# what it does not match is dropped.
_KEEPING = (("Isolated", False), ("Removed", True))
# The printable bytes, which stand for themselves in a vocabulary: ASCII without the space, and
# Latin-1 without the soft hyphen. The others have the characters from U+0100 on, in their order.
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
# The first character of those for bytes that are not printable.
_FIRST_OTHER = 0x100
# The values of a byte.
_N_BYTES = 256


class Description(NamedTuple):
    """A vocabulary, and what the package is to do with it.

    Attributes:
        ids: The id of each token that the package has to know, by its content.
        spellings: The bytes that each token stands for, by id; nothing for an id without a token,
            and for special tokens, which no text is made of.
        names: The names of the special tokens, by id.
        separator: The id of the token that ends a document; None: there is none.
        for_package: The JSON that the package takes, without what has nothing to do with text.
    """

    ids: dict[str, int]
    spellings: list[bytes]
    names: dict[int, str]
    separator: int | None
    for_package: str


def described(text: str) -> Description:
    """What a ``tokenizer.json`` says.

    Args:
        text: Its content.

    Raises:
        InputError: It is none, or one that loses something of a text; a sentence about ``it``.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is no JSON: {error}") from error
    model = data.get("model") if isinstance(data, dict) else None
    if not isinstance(model, dict):
        raise InputError('it is no tokenizer.json: it has no object "model"')
    _require_byte_level_bpe(model)
    if not _is_nothing(data.get("normalizer")):
        kind = shown(_kind(data["normalizer"]))
        raise InputError(f"its normalizer, {kind}, changes the text, which would not come back")
    _require_known_splitting(data.get("pre_tokenizer"))
    vocabulary = _ids(model.get("vocab"))
    added = _added_tokens(data.get("added_tokens"))
    _require_unmistakable(vocabulary, added, model)
    ids = {**vocabulary, **{content: token.number for content, token in added.items()}}
    if len(set(ids.values())) < len(ids):
        raise InputError("two of its tokens have one id")
    special = {token.number: content for content, token in added.items() if token.is_special}
    separator = next((ids[name] for name in SEPARATORS if ids.get(name) in special), None)
    nothing = dict.fromkeys(("truncation", "padding", "post_processor", "decoder", "normalizer"))
    try:
        for_package = json.dumps({**data, **nothing})
    except RecursionError as error:
        raise InputError("it is nested too deeply") from error
    return Description(ids, _spellings(ids, added), special, separator, for_package)


def byte_of_character() -> dict[str, int]:
    """The byte that each character of a vocabulary stands for, as in GPT-2's ``encoder.py``."""
    others = [byte for byte in range(_N_BYTES) if byte not in _PRINTABLE]
    characters = {chr(byte): byte for byte in _PRINTABLE}
    return characters | {chr(_FIRST_OTHER + place): byte for place, byte in enumerate(others)}


def _require_byte_level_bpe(model: Mapping[str, Any]) -> None:
    kind = _kind(model)
    # The oldest files do not name their model, and are of BPE where they have merges.
    if kind != "BPE" and not (kind is None and "merges" in model):
        raise InputError(f"its model is {shown(kind)}; the lab takes byte-level BPE")
    if model.get("dropout"):
        raise InputError(f"its dropout is {shown(model['dropout'])}: it encodes at random")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise InputError(f"its {name} is {shown(model[name])}, which is no text")


def _require_known_splitting(pre_tokenizer: Any) -> None:
    """Refuses what parts a text into words in a way that loses something, or that nobody knows."""
    steps = _steps(pre_tokenizer)
    kinds = [_kind(step) for step in steps]
    if kinds.count("ByteLevel") != 1 or kinds[-1] != "ByteLevel":
        raise InputError("its pre_tokenizer does not end with ByteLevel: it is not of bytes")
    if steps[-1].get("add_prefix_space", True):
        raise InputError("its add_prefix_space puts a space in front of each text")
    has_pattern = bool(steps[-1].get("use_regex", True))
    for step, kind in zip(steps[:-1], kinds[:-1], strict=True):
        if kind == "Digits":
            continue
        if kind != "Split":
            known = "Split, Digits and ByteLevel"
            raise InputError(f"its pre_tokenizer is {shown(kind)}; the lab knows {known}")
        pattern = step.get("pattern")
        regex = pattern.get("Regex") if isinstance(pattern, dict) else None
        if regex not in PATTERNS:
            known = "GPT-2, GPT-4 (Llama 3), or GPT-4o"
            raise InputError(f"its pattern {shown(regex or pattern)} is not that of {known}")
        behaviour = (step.get("behavior"), step.get("invert", False))
        if behaviour not in _KEEPING:
            raise InputError(f"its pre_tokenizer splits as {shown(behaviour[0])}, and loses text")
        has_pattern = True
    if not has_pattern:
        raise InputError(
            "its pre_tokenizer parts no text into words: it cannot be encoded piecewise"
        )


def _steps(step: Any) -> list[dict[str, Any]]:
    """The parts of a pre-tokenizer, in their order."""
    if not isinstance(step, dict):
        return []
    if _kind(step) != "Sequence":
        return [step]
    inner = step.get("pretokenizers")
    if not isinstance(inner, list) or not all(isinstance(one, dict) for one in inner):
        raise InputError('its pre_tokenizer is a Sequence without a list of "pretokenizers"')
    # One in another is written by nobody, and may be nested without end.
    return inner


def _is_nothing(normalizer: Any) -> bool:
    if normalizer is None:
        return True
    return _kind(normalizer) == "Sequence" and normalizer.get("normalizers") == []


def _kind(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else None


class _Added(NamedTuple):
    """A token that is added to those of the model: its id, and whether no text is made of it."""

    number: int
    is_special: bool


def _ids(vocabulary: Any) -> dict[str, int]:
    """The ids of the model's tokens."""
    if not isinstance(vocabulary, dict):
        raise InputError("its vocabulary is no object of tokens and their ids")
    for content, number in vocabulary.items():
        _require_id(content, number)
    missing = [
        byte for character, byte in _BYTE_OF_CHARACTER.items() if character not in vocabulary
    ]
    if missing:
        raise InputError(
            f"it has no token for the byte 0x{min(missing):02x}, which a text may hold"
        )
    return vocabulary


def _require_id(content: Any, number: Any) -> None:
    if type(number) is not int or not 0 <= number < LARGEST_VOCABULARY:
        limit = f"no number from 0 to {LARGEST_VOCABULARY - 1:,}"
        raise InputError(f"the id of its token {shown(content)} is {shown(number)}, {limit}")


def _added_tokens(added: Any) -> dict[str, _Added]:
    """The tokens that are added to the model's, by their content."""
    if added is None:
        return {}
    if not isinstance(added, list):
        raise InputError('its "added_tokens" are no list')
    found: dict[str, _Added] = {}
    for token in added:
        content = token.get("content") if isinstance(token, dict) else None
        if not isinstance(content, str) or not content:
            raise InputError('one of its "added_tokens" has no content')
        _require_id(content, token.get("id"))
        is_special = token.get("special", False) is True
        if not is_special and any(token.get(name) for name in ("lstrip", "rstrip", "single_word")):
            reason = "takes or minds what stands beside it (lstrip, rstrip, single_word)"
            raise InputError(f"its token {shown(content)} {reason}")
        if not is_special and has_place_inside(content):
            raise InputError(f"its added token {shown(content)} is more than one word")
        if content in found:
            raise InputError(f"its added token {shown(content)} stands twice")
        found[content] = _Added(token["id"], is_special)
    _require_nothing_hidden(found)
    return found


def _require_nothing_hidden(added: Mapping[str, _Added]) -> None:
    """Refuses special tokens that may be cut, and that hide another token while they are whole.

    They are text, but the package looks for no other token in what is one of them, or crosses it.
    """
    others = [content for content, token in added.items() if not token.is_special]
    for content, token in added.items():
        if others and token.is_special and has_place_inside(content):
            reason = f"is more than one word, and may hide its added token {shown(others[0])}"
            raise InputError(f"its special token {shown(content)} {reason}")


def _require_unmistakable(
    vocabulary: Mapping[str, int], added: Mapping[str, _Added], model: Mapping[str, Any]
) -> None:
    """Refuses added tokens that are the model's too, where that leaves open what they stand for."""
    both = [content for content in added if content in vocabulary]
    merged = _merged(model.get("merges")) if both else set()
    for content in both:
        of_bytes = _bytes_of(content)
        if added[content].is_special:
            # Every word that is in the vocabulary is a token where merges are ignored.
            is_of_text = content in merged or len(content) == 1 or model.get("ignore_merges")
            is_clear = of_bytes is None or not is_of_text
        else:
            is_clear = of_bytes == content.encode("utf-8", errors="replace")
        if not is_clear:
            raise InputError(f"its token {shown(content)} is special or added, and of text as well")


def _merged(merges: Any) -> set[str]:
    """All tokens that are made of two others; the package tells whether they are sound."""
    pairs = merges if isinstance(merges, list) else []
    spelled = (pair.split(" ") if isinstance(pair, str) else pair for pair in pairs)
    return {
        "".join(pair)
        for pair in spelled
        if isinstance(pair, list) and all(isinstance(part, str) for part in pair)
    }


def _bytes_of(content: str) -> bytes | None:
    """What a token of the model stands for; None where it is not made of bytes."""
    try:
        return bytes(map(_BYTE_OF_CHARACTER.__getitem__, content))
    except KeyError:
        return None


def _spellings(ids: Mapping[str, int], added: Mapping[str, _Added]) -> list[bytes]:
    """The bytes of each token, by id."""
    spellings = [b""] * (max(ids.values()) + 1)
    for content, number in ids.items():
        if content in added:
            of_bytes = b"" if added[content].is_special else None
        else:
            of_bytes = _bytes_of(content)
        try:
            # What is not made of bytes no text has as a token, unless it is added.
            spellings[number] = content.encode() if of_bytes is None else of_bytes
        except UnicodeEncodeError as error:
            raise InputError(f"its token {shown(content)} is no text") from error
    return spellings


_BYTE_OF_CHARACTER = byte_of_character()
