"""Run directories that look like those of training, made in a moment."""

import json
import math

from lm_core.config.hyperparameters import KEYS
from lm_core.config.rendering import config_hash, gin_text
from lm_core.config.resolution import ResolvedConfig
from lm_core.config.statements import Source
from lm_core.config.training_config import TrainingConfig
from lm_core.record import RunDirectory
from lm_core.recorded_config import record_sources, record_yaml

SHA256 = "0123456789abcdef" * 4
START = "2026-11-01T12:00:00+00:00"


def make_run(
    path,
    losses=(3.0, 2.5, 2.0),
    evaluations=None,
    samples=(),
    columns=None,
    manifest=None,
    **values,
):
    """A completed run.

    Args:
        path: Its directory.
        losses: The training loss of each step.
        evaluations: For some steps the validation loss; None: 2.0 after the last step.
        samples: Pairs of a step and a text.
        columns: Further metrics, each with a value for each step.
        manifest: What its manifest says otherwise.
        values: Hyperparameters.
    """
    values = {"seed": 1, "max_steps": len(losses) or 1, "precision": "float32", **values}
    table = TrainingConfig(**values)
    sources = {key: Source("made" if key in values else "default") for key in KEYS}
    config = ResolvedConfig(table, sources, {key: key for key in KEYS}, {})
    facts = {
        "versions": {"lm_core": "0.1.0", "torch": "2.13.0"},
        "git": {"commit": "c0ffee", "dirty": False},
        "numerics": {"threads": 2, "precision": "float32"},
        "command_line": ["run.py"],
        "corpus": {"path": None, "sha256": SHA256, "bytes": 1000},
        "config_hash": config_hash(table.to_dict(), SHA256),
        "sources": record_sources(config),
        "n_parameters": 1234,
        "start": START,
        "end": START.replace("12:00", "12:01"),
        "outcome": "completed",
        "reason": None,
        **(manifest or {}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    run = RunDirectory.create(path, record_yaml(config, path), gin_text(config), facts)
    evaluations = {len(losses): 2.0} if evaluations is None else evaluations
    rows = []
    for step, loss in enumerate(losses, start=1):
        row = {"step": step, "train_loss": loss, "learning_rate": table.learning_rate}
        row |= {"grad_norm": 1 / step, "tokens_per_second": 1000.0}
        row |= {name: column[step - 1] for name, column in (columns or {}).items()}
        if step in evaluations:
            loss = evaluations[step]
            row |= {"val_loss": loss, "bits_per_byte": loss / math.log(2)}
        rows.append(row)
    run.append_metrics(rows)
    run.append_samples(
        {"step": step, "sample": 0, "prompt": "The", "seed": 42, "temperature": 1.0, "text": text}
        for step, text in samples
    )
    return path


def amend_manifest(path, **fields):
    """Sets fields of a run's manifest."""
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
