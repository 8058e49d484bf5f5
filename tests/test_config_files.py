"""The configuration files that the lab brings: each loads, says what it is, and trains."""

import itertools
import re

import pytest

from lm_core import experiment
from lm_core.config.resolution import ConfigSources, FileArgument
from lm_core.config.table import default
from lm_core.config.training_config import TrainingConfig
from lm_core.request import Request
from tests.config_sources import PROJECT, plain_yaml, sources

YAML_FILES = sorted(path.name for path in (PROJECT / "configs").glob("*.yaml"))
GIN_FILES = sorted(path.name for path in (PROJECT / "gin_configs").glob("*.gin"))
VARIANTS = [name for name in YAML_FILES if name != "default.yaml"]
EXPECTED = {
    "default.yaml": {},
    "small-model.yaml": {"n_layers": 2, "d_model": 128},
    "large-model.yaml": {"n_layers": 6, "d_model": 512},
    "fast-training.yaml": {"max_steps": 750, "batch_size": 32},
    "speedrun.yaml": {"optimizer": "muon", "position": "rope"},
    "shakespeare.yaml": {"max_seq_len": 512, "weight_decay": 1.0},
    "python-docs.yaml": {"corpus": None, "max_steps": 1200, "sampling_cadence": 100},
    "detailed-eval.yaml": {"eval_cadence": 100, "sampling_cadence": 100},
}


def text_of(name):
    return (PROJECT / "configs" / name).read_text()


def test_the_files_are_those_that_are_documented():
    assert set(YAML_FILES) == set(EXPECTED)
    assert set(GIN_FILES) == {"base.gin", "macros.gin", *(v[:-4] + "gin" for v in VARIANTS)}


@pytest.mark.parametrize("name", YAML_FILES)
def test_each_file_gives_the_configuration_that_it_is_for(name):
    values = sources(files=[name]).values.to_dict()
    assert {key: values[key] for key in EXPECTED[name]} == EXPECTED[name]


def test_models_and_batches_differ_between_the_files():
    names = ("default.yaml", "small-model.yaml", "large-model.yaml")
    assert len({sources(files=[name]).values.batch_size for name in names}) == 3
    fast = sources(files=["fast-training.yaml"]).values
    assert fast.batch_size > default("batch_size")
    assert fast.max_steps < default("max_steps")


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_states_only_what_differs_from_what_it_extends(name):
    stated = plain_yaml(text_of(name))
    assert stated.pop("extends") == "default.yaml"
    assert stated
    assert all(value != default(key) for key, value in stated.items())


@pytest.mark.parametrize("name", YAML_FILES)
def test_the_head_of_a_file_gives_its_command_and_what_was_measured(name):
    head = text_of(name).split("# ---")[0]
    assert f"#   python run.py --config={name}" in head
    measured = head[head.index("# Measured with --gin.Trainer.seed=1") :]
    assert re.search(r"\d+ (s|min)\b", measured)
    assert re.search(r"\d\.\d\d nats per token", measured)
    assert "cores" in measured


@pytest.mark.parametrize("name", YAML_FILES)
def test_the_sections_come_in_their_order(name):
    sections = ["Model architecture", "Training", "Dataset", "Evaluation and sampling"]
    found = re.findall(r"^# --- ([A-Z][a-z ]+) -+$", text_of(name), re.M)
    assert found == [s for s in [*sections, "Checkpointing"] if s in found]
    assert found


@pytest.mark.parametrize("name", VARIANTS)
def test_the_gin_file_of_a_variant_repeats_no_value(name):
    gin_name = name.replace(".yaml", ".gin")
    text = (PROJECT / "gin_configs" / gin_name).read_text()
    statements = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert statements == [f"include '../configs/{name}'"]
    assert f"#   python run.py --gin_file={gin_name}" in text
    assert sources(files=[gin_name]).values == sources(files=[name]).values


def test_the_example_of_macros_states_one_number_once():
    names = ("eval_cadence", "sampling_cadence", "checkpoint_cadence")
    values = sources(files=["macros.gin"]).values
    assert [getattr(values, name) for name in names] == [100] * 3
    config = sources(files=["macros.gin"], bindings=["cadence=50"])
    assert [getattr(config.values, name) for name in names] == [50] * 3
    assert "%cadence from --gin_bindings" in str(config.sources["eval_cadence"])


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        *itertools.product(["--config"], YAML_FILES),
        ("--gin_file", "base.gin"),
        *(
            # They name the files of YAML.
            pytest.param("--gin_file", name, marks=pytest.mark.exhaustive)
            for name in GIN_FILES
            if name != "base.gin"
        ),
    ],
)
def test_each_file_trains_a_few_steps(folder, flag, name):
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 200)
    config = ConfigSources(
        files=[FileArgument(flag, name)],
        overrides={"max_steps": 2, "corpus": "text.txt"},
        yaml_folders=[PROJECT / "configs"],
        gin_folders=[PROJECT / "gin_configs"],
    )
    experiment.train(Request(config, run_dir=folder / "run"))
    recorded = sources(files=["run/config.yaml"]).values
    given = sources(files=[name], max_steps=2).values
    changed = {"seed", "corpus", "precision", "decay_steps"}
    assert recorded.model_dump(exclude=changed) == given.model_dump(exclude=changed)
    assert len((folder / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_the_default_file_is_the_default():
    assert sources(files=["default.yaml"]).values == TrainingConfig()
