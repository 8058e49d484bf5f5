"""The README.md of an exported model."""

import re

import pytest

from lm_core.config.resolution import ConfigSources
from lm_core.data.tokenizer import AsciiTokenizer, CharTokenizer
from lm_core.exchange import gpt2
from lm_core.exchange.exporting import write_folder
from lm_core.exchange.families import family_for
from lm_core.exchange.model_card import card_of
from lm_core.record import RunDirectory
from lm_core.recorded_config import resolve_upon
from lm_core.training.checkpoint import Checkpoint
from tests.exchanged import SIZES, shaken
from tests.made_run import amend_manifest, make_run

LONG = 'it\'s "longer" 🙂 than the context'
LLAMA = {"position": "rope", "norm": "rmsnorm", "activation": "swiglu"}


@pytest.fixture
def run(tmp_path):
    path = make_run(tmp_path / "run", losses=[3.0, 2.5, 2.25], evaluations={2: 2.5, 3: 2.0})
    return RunDirectory.open(path)


def card(run, step=3):
    config = resolve_upon(run, ConfigSources())
    return card_of(run, config, Checkpoint(step, {}, {}), gpt2, AsciiTokenizer())


def test_it_tells_the_loss_of_what_is_exported(run):
    assert "| validation loss | 2.0000 nats per token, 2.8854 bits per byte |" in card(run)
    assert "| validation loss | 2.5000 nats per token" in card(run, step=2)
    assert "validation loss" not in card(run, step=1)
    assert "validation loss" not in card(run, step=7)


def test_it_tells_the_text_and_the_configuration_by_their_digests(run):
    text = card(run)
    assert run.manifest["config_hash"] in text
    assert run.manifest["corpus"]["sha256"] in text
    assert text.startswith("---\nlibrary_name: transformers\n")
    assert str(run.path) not in text


@pytest.mark.parametrize("content", ["", "{", "[1]\n", "x" * 3_000_000, '{"step": 3}\n'])
def test_metrics_that_are_lost_or_damaged_keep_nobody_from_exporting(run, content):
    run.metrics.write_text(content)
    assert "validation loss" not in card(run)
    run.metrics.unlink()
    assert "validation loss" not in card(run)


def test_what_is_no_digest_is_left_out(run):
    amend_manifest(run.path, config_hash="`](https://example.org)")
    config = resolve_upon(run, ConfigSources())
    text = card_of(run, config, Checkpoint(3, {}, {}), gpt2, AsciiTokenizer())
    assert "example.org" not in text


@pytest.mark.parametrize("choices", [{}, LLAMA], ids=["GPT-2", "Llama"])
@pytest.mark.parametrize(
    ("prompt", "tokenizer", "context", "n_new"),
    [
        ("The", AsciiTokenizer(), 16, 13),
        ("The", AsciiTokenizer(), 100, 50),
        (LONG, CharTokenizer("".join(sorted(set(LONG)))), 16, 1),
        ("one more character than that", AsciiTokenizer(), 1, 1),
        ("unknown to it", CharTokenizer("xyz"), 16, 15),
    ],
)
def test_its_example_runs_whatever_the_context_and_the_prompt_are(
    choices, prompt, tokenizer, context, n_new, tmp_path, monkeypatch, capsys
):
    sizes = {**SIZES, "max_seq_len": context}
    path = make_run(tmp_path / "run", **sizes, **choices, sampling_prompt=prompt, tokenizer="char")
    run = RunDirectory.open(path)
    model = shaken(tokenizer.vocab_size, max_seq_len=context, **choices)
    config = resolve_upon(run, ConfigSources())
    family = family_for(model.arguments)
    text = card_of(run, config, Checkpoint(3, {}, {}), family, tokenizer)
    write_folder(model, tokenizer, tmp_path / "out", text)
    monkeypatch.chdir(tmp_path / "out")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code, {})
    (line,) = re.findall(r"max_new_tokens=(\d+)", code)
    assert int(line) == n_new
    written = capsys.readouterr().out
    begun = {15: "x"}.get(n_new, prompt[: max(1, context - 1)])
    assert written.startswith(begun)
    assert len(written) == len(begun) + n_new + len("\n")
