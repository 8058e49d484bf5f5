"""The program that runs recipes and takes choices away, and the figures that the pages show."""

import json
import re
import statistics

import pytest

from benchmarks import recipes
from benchmarks.recipes import Run, bindings_of, changes_of, keep, rows_of
from lm_core.config.hyperparameters import KEYS
from lm_core.config.resolution import ConfigSources, FileArgument, resolve
from lm_core.config.training_config import TrainingConfig
from tests.config_sources import PROJECT

PAGE = (PROJECT / "docs" / "recipes.md").read_text()
RECORDS = sorted((PROJECT / "docs" / "recipes").iterdir())


def test_each_choice_is_taken_back_alone_and_sizes_are_left():
    recipe = TrainingConfig(
        d_model=64, activation="swiglu", d_ff=200, norm="rmsnorm", optimizer="muon", max_steps=9
    )
    assert changes_of(recipe) == {
        "norm: layernorm": {"norm": "layernorm"},
        "activation: gelu, d_ff: 300": {"activation": "gelu", "d_ff": 300},
        "optimizer: adamw, learning_rate: 0.004": {"optimizer": "adamw", "learning_rate": 4e-3},
    }
    assert changes_of(TrainingConfig()) == {}
    assert set(KEYS) >= recipes.NO_CHOICES


def test_a_change_that_is_none_is_told_before_anything_runs():
    assert recipes.change_of('{"bias": true}') == {"bias": True}
    with pytest.raises(SystemExit, match="did you mean norm"):
        recipes.change_of('{"nrom": "layernorm"}')
    for text in ("norm=layernorm", "3", "{}"):
        with pytest.raises(SystemExit, match="it takes JSON"):
            recipes.change_of(text)


def test_changes_become_bindings():
    flags = bindings_of({"norm": "layernorm", "ema_decay": None, "bias": True})
    assert flags == [
        "--gin_bindings=Transformer.norm = 'layernorm'",
        "--gin_bindings=Trainer.ema_decay = None",
        "--gin_bindings=Transformer.bias = True",
    ]


def test_a_row_tells_what_a_choice_is_worth():
    runs = {"the recipe": [Run(1, 1.0, 5.0), Run(2, 2.0, 6.0)], "x": [Run(1, 1.75, 9.0)]}
    first, second = rows_of(runs)
    assert first["mean loss"] == "1.5000"
    assert first["standard deviation"] == f"{statistics.stdev([1.0, 2.0]):.4f}"
    assert second["worse by"] == "+0.2500"
    assert second["standard deviation"] == "0.0000"


def test_what_is_kept_of_a_run_has_no_place_of_this_machine(tmp_path):
    run, corpus = tmp_path / "run", tmp_path / "texts" / "a.txt"
    run.mkdir()
    (run / "config.yaml").write_text(f"# --config={run}/config.yaml\ncorpus: {corpus}\n")
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    keep(run, tmp_path / "kept", corpus)
    assert (tmp_path / "kept/config.yaml").read_text() == "# --config=config.yaml\ncorpus: a.txt\n"
    assert (tmp_path / "kept/metrics.jsonl").read_text() == '{"step": 2}\n'


@pytest.mark.parametrize("folder", RECORDS, ids=lambda path: path.name)
def test_the_figures_on_the_page_are_those_of_the_records(folder):
    for name in ("result.json", "ablation.json"):
        document = json.loads((folder / name).read_text())
        assert document["configuration"] == f"{folder.name}.yaml"
        table = {label: [Run(**run) for run in mine] for label, mine in document["runs"].items()}
        for row in rows_of(table):
            label, *cells = (row[column] for column in row)
            cells[-1] = f"{cells[-1]:.1f}"
            label = label if label == "the recipe" else f"`{label}`"
            assert f"| {' | '.join([label, *cells])} |" in PAGE


@pytest.mark.parametrize("folder", RECORDS, ids=lambda path: path.name)
def test_the_records_are_of_the_recipe_as_it_is(folder):
    file = FileArgument("--config", f"{folder.name}.yaml")
    recipe = resolve(ConfigSources(files=[file], yaml_folders=[PROJECT / "configs"])).values
    runs = json.loads((folder / "result.json").read_text())["runs"]["the recipe"]
    # What the start of a run fills in.
    filled = {"corpus", "seed", "precision", "decay_steps"}
    for run in runs:
        kept = folder / f"seed-{run['seed']}"
        base = ConfigSources(base=kept / "config.yaml")
        recorded = resolve(base).values
        assert recorded.seed == run["seed"]
        for key in set(KEYS) - filled:
            assert getattr(recorded, key) == getattr(recipe, key), key
        last = json.loads((kept / "metrics.jsonl").read_text())
        assert last["step"] == recipe.max_steps
        assert f"{last['val_loss']:.4f}" == f"{run['loss']:.4f}"


def test_the_page_shows_what_is_kept():
    for folder in RECORDS:
        assert f"recipes/{folder.name}/losses.svg" in PAGE
        sample = (folder / "sample.txt").read_text()
        assert all(line in PAGE for line in sample.splitlines())
    named = set(re.findall(r"--config=([\w-]+)\.yaml", PAGE))
    assert {folder.name for folder in RECORDS} <= named
