"""The README.md of an exported model: what is known about it, without a word about the machine."""

import json
import re
from typing import NamedTuple

import numpy as np

from lm_core.config.rendering import rows
from lm_core.config.resolution import ResolvedConfig
from lm_core.data.tokenizer import Tokenizer
from lm_core.errors import InputError
from lm_core.exchange.families import Family
from lm_core.record import RunDirectory
from lm_core.training.checkpoint import Checkpoint

# Hyperparameters that are paths of the machine that trained, which say nothing elsewhere.
_PATHS = ("corpus", "init_from", "tokenizer_file")
# A digest of SHA-256 in hexadecimal.
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
# No line of metrics is longer: one has some hundred bytes, and a few for each hook.
_LONGEST_LINE = 2**20
# New tokens of the example, where the context has room for them: a line or two.
_MOST_NEW_TOKENS = 50

_CARD = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- {model_type}
- lm_core
---

# A language model from lm_core

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
inputs = tokenizer({prompt}, return_tensors="pt"{cut})
print(tokenizer.decode(model.generate(**inputs, max_new_tokens={n_new})[0]))
```

It was exported as {family} by `python run.py --mode=export`.

{facts}

The hyperparameters that differ from the defaults of lm_core:

```yaml
{values}
```
"""


class _Example(NamedTuple):
    """What the example in a README.md fills in, as Python.

    Attributes:
        prompt: The text that it goes on from.
        cut: A further argument where only the beginning of that fits.
        n_new: New tokens.
    """

    prompt: str
    cut: str
    n_new: int


def card_of(
    run: RunDirectory,
    config: ResolvedConfig,
    checkpoint: Checkpoint,
    family: Family,
    tokenizer: Tokenizer,
) -> str:
    """The text of a model's README.md.

    Args:
        run: The run that it is the result of.
        config: The run's configuration.
        checkpoint: What is exported.
        family: Its architecture.
        tokenizer: Its tokenizer.
    """
    manifest = run.manifest
    facts = {
        "steps": f"{checkpoint.step:,} of {config.values.max_steps:,}",
        "tokens in each step": f"{config.values.batch_size * config.values.max_seq_len:,}",
        "longest context": f"{config.values.max_seq_len:,} tokens",
        "tokenizer": config.values.tokenizer,
    }
    loss = _validation_loss(run, checkpoint)
    if loss is not None:
        facts["validation loss"] = f"{loss[0]:.4f} nats per token, {loss[1]:.4f} bits per byte"
    for name, digest in (
        ("SHA-256 of the text", manifest["corpus"]["sha256"]),
        ("configuration", manifest.get("config_hash")),
    ):
        if isinstance(digest, str) and _SHA256.fullmatch(digest):
            facts[name] = f"`{digest}`"
    table = [row for section in rows(config).values() for row in section]
    shown = [row for row in table if row.differs and row.key not in _PATHS]
    values = [f"{row.key}: {row.value}" for row in shown]
    lines = ["| | |", "|---|---|", *(f"| {name} | {fact} |" for name, fact in facts.items())]
    return _CARD.format(
        model_type=family.MODEL_TYPE,
        family=family.NAME,
        **_example(config, tokenizer)._asdict(),
        facts="\n".join(lines),
        values="\n".join(values),
    )


def _example(config: ResolvedConfig, tokenizer: Tokenizer) -> _Example:
    """The run's prompt and as much after it as the context holds.

    Beyond the context a GPT-2 of transformers has no positions, and ends with an IndexError.
    """
    prompt, context = config.values.sampling_prompt, config.values.max_seq_len
    try:
        n_tokens = len(tokenizer.encode(prompt))
    except InputError:
        # Characters that it lacks are left out by transformers, which might leave nothing.
        prompt, n_tokens = tokenizer.decode(np.zeros(1, tokenizer.dtype)), 1
    # Of a context of one, the prompt has all: the token after it takes no place any more.
    n_kept = min(n_tokens, max(context - 1, 1))
    cut = f", truncation=True, max_length={n_kept}" if n_kept < n_tokens else ""
    return _Example(repr(prompt), cut, min(_MOST_NEW_TOKENS, max(context - n_kept, 1)))


def _validation_loss(run: RunDirectory, checkpoint: Checkpoint) -> tuple[float, float] | None:
    """The loss of a checkpoint in nats per token and in bits per byte, if it was evaluated."""
    try:
        with run.metrics.open("rb") as stream:
            while line := stream.readline(_LONGEST_LINE):
                row = _row(line)
                if row.get("step") == checkpoint.step:
                    found = row.get("val_loss"), row.get("bits_per_byte")
                    return found if all(isinstance(one, float) for one in found) else None
    except OSError:
        pass
    return None


def _row(line: bytes) -> dict[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}
