import json
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lm_core import experiment
from lm_core.config.hyperparameters import KEYS
from lm_core.config.rendering import config_hash
from lm_core.config.resolution import FileArgument
from lm_core.config.statements import Source
from lm_core.config.training_config import TrainingConfig
from lm_core.errors import InputError
from lm_core.record import RunDirectory
from lm_core.recorded_config import (
    Recorded,
    read_record,
    require_same_experiment,
    resolve_upon,
    with_first_sources,
)
from tests.config_sources import resolved
from tests.random_configs import ANOTHER_VALUE
from tests.tiny_run import request


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run in the working directory, some of whose values come from a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    asked = request(tmp_path, load_corpus__path="my.txt")
    (tmp_path / "configs" / "base.gin").write_text("\nTrainer.beta1 = 0.8\n")
    experiment.train(asked)
    return RunDirectory.open(tmp_path / "run")


def sources_of(run):
    lines = (run.path / "config.gin").read_text().splitlines()
    return dict(line.split(" = ", 1) for line in lines if " = " in line)


def test_the_manifest_tells_where_each_value_was_set(run):
    sources = run.manifest["sources"]
    assert sources["n_layers"] == "--gin_bindings"
    assert sources["beta1"] == "configs/base.gin:2"
    assert sources["beta2"] == "default"
    assert sources["seed"] == "drawn"


def test_upon_a_run_its_values_keep_the_sources_they_first_had(run, tmp_path):
    asked = request(tmp_path, resume=True, Trainer__max_steps=5).config
    config = with_first_sources(resolve_upon(run, asked), run)
    assert config.sources["beta1"] == Source("configs/base.gin:2")
    assert config.sources["seed"] == Source("drawn")
    assert config.sources["max_steps"] == Source("--gin_bindings")
    assert config.values.max_steps == 5


def test_a_resume_that_changes_something_keeps_the_first_sources_of_the_rest(run, tmp_path):
    before = sources_of(run)
    asked = request(tmp_path, resume=True, Trainer__max_steps=5, load_corpus__path="my.txt")
    experiment.train(asked)
    after = sources_of(run)
    assert after.pop("Trainer.max_steps") == "5  # --gin_bindings"
    before.pop("Trainer.max_steps")
    assert after == before
    assert run.manifest["sources"]["beta1"] == "configs/base.gin:2"


def test_a_record_of_an_older_lab_has_the_lines_of_its_file_as_sources(run):
    path = run.path / "manifest.json"
    manifest = {k: v for k, v in json.loads(path.read_text()).items() if k != "sources"}
    path.write_text(json.dumps(manifest))
    config = with_first_sources(resolve_upon(run, request(run.path.parent).config), run)
    assert str(config.sources["beta1"]).startswith("run/config.yaml:")


def test_the_recorded_hash_names_the_recorded_values(run):
    assert read_record(run).config_hash == run.manifest["config_hash"]


def test_a_record_without_a_later_hyperparameter_is_named_by_what_it_states(run):
    path = run.path / "config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("sampling_top_p:")))
    values = YAML(typ="safe", pure=True).load(path)
    assert "sampling_top_p" not in values
    manifest = run.manifest
    named = config_hash(values, manifest["corpus"]["sha256"])
    assert named != manifest["config_hash"]
    (run.path / "manifest.json").write_text(json.dumps(manifest | {"config_hash": named}))
    recorded = read_record(RunDirectory.open(run.path))
    assert recorded.config_hash == named
    assert recorded.values.sampling_top_p is None


def test_a_record_of_a_lab_without_precisions_is_of_float32(run, tmp_path):
    path = run.path / "config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("precision:")))
    values = YAML(typ="safe", pure=True).load(path)
    manifest = run.manifest
    named = config_hash(values, manifest["corpus"]["sha256"])
    (run.path / "manifest.json").write_text(json.dumps(manifest | {"config_hash": named}))
    older = RunDirectory.open(run.path)
    assert read_record(older).values.precision == "float32"
    for asked in ({}, {"Trainer__precision": "auto"}):
        config = resolve_upon(older, request(tmp_path, resume=True, **asked).config)
        assert config.values.precision == "float32"
        require_same_experiment(older, read_record(older), config)
    asked = request(tmp_path, resume=True, Trainer__precision="bfloat16").config
    with pytest.raises(InputError, match="precision: 'float32' in the run, 'bfloat16' now"):
        require_same_experiment(older, read_record(older), resolve_upon(older, asked))


def test_a_precision_that_is_left_open_is_that_of_the_run(run, tmp_path):
    recorded = read_record(run).values.precision
    assert recorded in ("float32", "bfloat16")
    asked = request(tmp_path, resume=True, Trainer__precision="auto").config
    assert resolve_upon(run, asked).values.precision == recorded
    assert run.manifest["sources"]["precision"] == "auto on this cpu"


def test_what_is_changed_upon_a_run_has_the_source_of_the_change(run, tmp_path):
    (tmp_path / "more.yaml").write_text("beta1: 0.7\n")
    asked = request(tmp_path, resume=True).config
    asked = replace(asked, files=[FileArgument("--config", "more.yaml")])
    config = with_first_sources(resolve_upon(run, asked), run)
    assert config.sources["beta1"] == Source("more.yaml", 1)
    assert config.sources["seed"] == Source("drawn")


MAY_CHANGE = {
    "init_from",
    "max_steps",
    "checkpoint_cadence",
    "keep_checkpoints",
    "max_skipped_batches",
    "eval_cadence",
    "early_stopping_evaluations",
    "sampling_cadence",
    "sampling_temperature",
    "sampling_prompt",
    "sampling_max_length",
    "sampling_seed",
    "sampling_top_k",
    "sampling_top_p",
    "sampling_num_samples",
    "device",
    "parallelism",
    "corpus",
    # As long as its content is the same, which a test of its own looks at.
    "tokenizer_file",
}


@pytest.mark.parametrize("key", KEYS)
def test_a_resume_may_change_what_alters_no_step_and_nothing_else(key):
    value = ANOTHER_VALUE.get(key, 77)
    needed = {"eval_cadence": 5} if key == "early_stopping_evaluations" else {}
    if key == "tokenizer_file":
        return
    before = Recorded(TrainingConfig(**needed), "")
    now = resolved(TrainingConfig(**{**needed, key: value}))
    if key in MAY_CHANGE:
        require_same_experiment(RunDirectory(Path("run")), before, now)
    else:
        with pytest.raises(InputError, match=f"cannot go on .*\n  {key}: "):
            require_same_experiment(RunDirectory(Path("run")), before, now)
