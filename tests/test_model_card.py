"""The README.md of an exported model."""

import pytest

from lm_core.config.resolution import ConfigSources
from lm_core.exchange import gpt2
from lm_core.exchange.model_card import card_of
from lm_core.record import RunDirectory
from lm_core.recorded_config import resolve_upon
from lm_core.training.checkpoint import Checkpoint
from tests.made_run import amend_manifest, make_run


@pytest.fixture
def run(tmp_path):
    path = make_run(tmp_path / "run", losses=[3.0, 2.5, 2.25], evaluations={2: 2.5, 3: 2.0})
    return RunDirectory.open(path)


def card(run, step=3):
    config = resolve_upon(run, ConfigSources())
    return card_of(run, config, Checkpoint(step, {}, {}), gpt2)


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
    assert "example.org" not in card_of(run, config, Checkpoint(3, {}, {}), gpt2)
