"""Small tokenizers of the package ``tokenizers``, split into words in every way the lab takes."""

import functools
import json

import tokenizers
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from lm_core.data.tokenizer_json import PATTERNS

TEXT = (
    "The cat's on the mat, and they've said it'll rain; isn't it 1234 times WORSE?!\n\n"
    "  def f(x):\n        return x  # twice\r\n\tself.y = {1: 'a'}\n\n\n"
    "猫は猫、犬は犬。\n日本語の文章です\uff01 Ünïcödé naïve 🙂🎉 a\u0301\u00a0\u3000end\n"
    "<|endoftext|> x\n"
) * 3

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_ALONE = {"behavior": "Isolated", "invert": False}


def _split(pattern, **how):
    return {"type": "Split", "pattern": {"Regex": pattern}, **(how or _ALONE)}


def _sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


_MERELY_BYTES = {**_BYTES, "use_regex": False}
# One way to part a text into words each, as a ``tokenizer.json`` has it.
SPLITTINGS = {
    "byte level": {**_BYTES, "use_regex": True},
    "digits": _sequence(
        {"type": "Digits", "individual_digits": True}, {**_BYTES, "use_regex": True}
    ),
    "removed": _sequence(_split(PATTERNS[2], behavior="Removed", invert=True), _MERELY_BYTES),
    "both": _sequence(_split(PATTERNS[2]), {**_BYTES, "use_regex": True}),
    **{
        f"pattern {place}": _sequence(_split(pattern), _MERELY_BYTES)
        for place, pattern in enumerate(PATTERNS)
    },
}


@functools.cache
def tokenizer_json(splitting="byte level", vocab_size=400):
    """The text of a ``tokenizer.json``."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.decoder = decoders.ByteLevel()
    data = {**json.loads(tokenizer.to_str()), "pre_tokenizer": SPLITTINGS[splitting]}
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(data))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer.to_str()


def changed(**fields):
    """The text of a ``tokenizer.json`` with other fields."""
    return json.dumps({**json.loads(tokenizer_json()), **fields})


def changed_model(**fields):
    """The text of a ``tokenizer.json`` with other fields of its model."""
    data = json.loads(tokenizer_json())
    return json.dumps({**data, "model": {**data["model"], **fields}})


@functools.cache
def of_package(text):
    """The package's own tokenizer, to which special tokens in a text are text."""
    tokenizer = tokenizers.Tokenizer.from_str(text)
    tokenizer.encode_special_tokens = True
    return tokenizer


def package_ids(text_of_json, text):
    """What the package makes of a whole text."""
    return of_package(text_of_json).encode(text, add_special_tokens=False).ids


# What is hard to cut: white space of all kinds, in runs; what is nearly white space; contractions;
# scripts without spaces; what is made of several characters; names of special tokens.
_SPACES = [
    *" \n\r\t",
    "  ",
    "\n\n",
    "\r\n",
    " \n ",
    "\x0b\x0c\x1c\x1f\x85\xa0",
    "\u1680\u180e\u2003",
]
_SPACES += ["\u2028\u2029", "\u200b", "\u200d", "\u3000", "\ufeff"]
_WORDS = [
    "'s",
    "'S",
    "'ll",
    "'",
    "\u2019",
    *"azé_ǅʰª1²Ⅷ./$",
    "Ab",
    "a\u0301",
    "23",
    ";;",
    "/*",
    "Ġ",
]
_OTHERS = [
    *"猫、。가🙂",
    "かな",
    "カー",
    "\uff01",
    "ไทย",
    "👩\u200d👧",
    "🇩🇪",
    "\u0600",
    "<|",
    "<|endoftext|>",
]
_ANY = st.characters(exclude_categories=["Cs"])
texts = st.lists(
    st.one_of(*map(st.sampled_from, (_SPACES, _WORDS, _OTHERS)), _ANY), max_size=30
).map("".join)


@st.composite
def texts_in_parts(draw):
    """A text and parts of it, which are it together."""
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=5)))
    return text, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
