"""The program that runs recipes and takes choices away, and the figures that the pages show."""

import argparse
import json
import re
import statistics
from pathlib import Path

import pytest

from benchmarks import recipes
from benchmarks.recipe_records import (
    Results,
    Run,
    curve_of,
    draw,
    folder_of_change,
    keep,
    keep_curve,
    rows_of,
)
from benchmarks.recipes import RECIPE, changes_of, statements
from lm_core.config.hyperparameters import KEYS
from lm_core.config.resolution import ConfigSources, resolve
from lm_core.config.training_config import TrainingConfig
from lm_core.errors import InputError
from tests.config_sources import PROJECT, plain_yaml

PAGE = (PROJECT / "docs" / "recipes.md").read_text()
RECORDS = sorted((PROJECT / "docs" / "recipes").iterdir())
ABLATIONS = [path for path in (folder / "ablation.json" for folder in RECORDS) if path.exists()]


def test_each_choice_is_taken_back_alone_and_sizes_are_left():
    recipe = TrainingConfig(
        d_model=64,
        activation="swiglu",
        d_ff=200,
        norm="rmsnorm",
        optimizer="muon",
        max_steps=9,
        muon_momentum=0.7,
        learning_rate=0.01,
    )
    assert changes_of(recipe) == {
        "norm: layernorm": {"norm": "layernorm"},
        "activation: gelu, d_ff: 300": {"activation": "gelu", "d_ff": 300},
        "optimizer: adamw, learning_rate: 0.001": {"optimizer": "adamw", "learning_rate": 1e-3},
        "optimizer: adamw, learning_rate: 0.002": {"optimizer": "adamw", "learning_rate": 2e-3},
        "learning_rate: 0.0003": {"learning_rate": 3e-4},
        "muon_momentum: 0.95": {"muon_momentum": 0.95},
    }
    assert changes_of(TrainingConfig()) == {}
    assert set(KEYS) >= recipes.NO_CHOICES


def test_a_change_that_is_none_is_told_before_anything_runs():
    assert recipes.change_of('{"bias": true}') == {"bias": True}
    with pytest.raises(InputError, match="did you mean norm"):
        recipes.change_of('{"nrom": "layernorm"}')
    with pytest.raises(InputError, match="seed: --seeds gives it"):
        recipes.change_of('{"seed": 5}')
    for text in ("norm=layernorm", "3", "{}"):
        with pytest.raises(InputError, match="it takes JSON"):
            recipes.change_of(text)


def test_changes_become_bindings():
    assert statements({"norm": "layernorm", "ema_decay": None, "bias": True}) == [
        "Transformer.norm = 'layernorm'",
        "Trainer.ema_decay = None",
        "Transformer.bias = True",
    ]


def test_a_change_is_called_by_its_values():
    assert recipes.name_of({"norm": "layernorm", "d_ff": 9}) == "norm: layernorm, d_ff: 9"


def test_each_change_has_a_folder_of_its_own():
    folder = folder_of_change(Path("out"), "activation: gelu, d_ff: 9")
    assert folder == Path("out/ablation/activation=gelu,d_ff=9")
    assert folder_of_change(Path("out"), RECIPE) == Path("out/ablation/the-recipe")


def test_seeds_are_numbers_with_commas():
    assert recipes.seeds_of("3,1") == [3, 1]
    for text in ("", "1,", "-1", "1.5", "a"):
        with pytest.raises(argparse.ArgumentTypeError, match="numbers with commas"):
            recipes.seeds_of(text)


def test_a_row_tells_what_a_choice_is_worth():
    runs = {RECIPE: [Run(1, 1.0, 5.0), Run(2, 2.0, 6.0)], "x": [Run(1, 1.75, 9.0)]}
    first, second, third = rows_of((RECIPE, "x", "y"), runs)
    assert first["mean loss"] == "1.5000"
    assert first["standard deviation"] == f"{statistics.stdev([1.0, 2.0]):.4f}"
    assert second["standard deviation"] == ""
    # Against the recipe with the same seed, not against its mean.
    assert second["worse by"] == "+0.7500"
    assert list(third.values()) == ["y", "0", "", "", "", ""]


def test_results_are_kept_after_each_run_and_gone_on_with(tmp_path):
    path, facts = tmp_path / "result.json", {"steps": 9, "recipe": {"norm": "rmsnorm"}}
    first = Results(path, facts)
    first.add(RECIPE, Run(2, 1.5, 3.0))
    second = Results(path, facts)
    assert (RECIPE, 2) in second
    assert (RECIPE, 1) not in second
    second.add(RECIPE, Run(1, 1.25, 4.0))
    assert Results(path, facts).runs() == {RECIPE: [Run(1, 1.25, 4.0), Run(2, 1.5, 3.0)]}
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_results_of_something_else_are_not_added_to(tmp_path):
    path = tmp_path / "result.json"
    Results(path, {"steps": 9}).add(RECIPE, Run(1, 1.5, 3.0))
    with pytest.raises(InputError, match="another steps, 9 and not 10; remove it"):
        Results(path, {"steps": 10})


@pytest.mark.parametrize("text", ["", "3", "{}", '{"steps": 9, "runs": 3}', '{"steps": 9'])
def test_a_file_that_holds_no_results_is_told_and_left(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(InputError, match="no results of recipes; remove it"):
        Results(path, {"steps": 9})
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--config=nope.yaml"], "'nope.yaml': unknown file"),
        (["--config=python-docs.yaml", '--change={"dropout": "a"}'], "--change"),
        (["--config=python-docs.yaml", "--corpus=file"], "corpus: 'file' is empty"),
        (["--config=python-docs.yaml", "--max_steps=0"], "max_steps: 0 is less than 1"),
        (["--config=python-docs.yaml", "--out=file"], "--out=file: File exists"),
    ],
)
def test_mistakes_are_told_before_the_first_run(tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr("sys.argv", ["recipes.py", *words])
    monkeypatch.setattr(recipes, "trained", lambda *_: pytest.fail("it ran"))
    monkeypatch.setattr(recipes, "end_children_on_termination", lambda: None)
    with pytest.raises(SystemExit) as ended:
        recipes.main()
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_what_is_kept_of_a_run_has_no_place_of_this_machine(tmp_path):
    run, corpus = tmp_path / "run", tmp_path / "texts" / "a.txt"
    run.mkdir()
    (run / "config.yaml").write_text(f"# --config={run}/config.yaml\ncorpus: {corpus}\n")
    lines = ['{"step": 1, "train_loss": 3.0}', '{"step": 2, "train_loss": 2.0, "val_loss": 2.5}']
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    keep(run, tmp_path / "kept", corpus)
    keep_curve(run, tmp_path / "kept")
    assert (tmp_path / "kept/config.yaml").read_text() == "# --config=config.yaml\ncorpus: a.txt\n"
    assert (tmp_path / "kept/metrics.jsonl").read_text() == lines[1] + "\n"
    curve = json.loads((tmp_path / "kept/curve.json").read_text())
    assert curve == {"training": [[1, 3.0], [2, 2.0]], "validation": [[2, 2.5]]}


def test_a_long_curve_is_means_of_its_parts():
    rows = [{"step": step, "train_loss": float(step)} for step in range(1, 601)]
    points = curve_of(rows)["training"]
    assert len(points) == 60
    assert points[0] == (10, 5.5)
    assert points[-1] == (600, 595.5)


def test_the_picture_shows_every_seed(tmp_path):
    pytest.importorskip("matplotlib")
    for seed in (1, 4):
        (tmp_path / f"seed-{seed}").mkdir()
        curve = {"training": [[1, 3.0], [2, 2.0]], "validation": [[2, 2.5]]}
        (tmp_path / f"seed-{seed}" / "curve.json").write_text(json.dumps(curve))
    draw(tmp_path, [1, 4])
    picture = (tmp_path / "losses.svg").read_text()
    assert "training, seed 1" in picture
    assert "training, seed 4" in picture


@pytest.mark.parametrize("folder", RECORDS, ids=lambda path: path.name)
def test_the_figures_on_the_page_are_those_of_the_records(folder):
    paths = sorted(folder.glob("*.json"))
    assert folder / "result.json" in paths
    for path in paths:
        document = json.loads(path.read_text())
        assert document["configuration"] == f"{folder.name}.yaml"
        table = {label: [Run(**run) for run in mine] for label, mine in document["runs"].items()}
        rows = rows_of(list(table), table)
        lines = [f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0])]
        for row in rows:
            label, *cells = row.values()
            label = label if label == RECIPE else f"`{label}`"
            lines.append(f"| {' | '.join([label, *cells])} |")
        # A table of its own, with nothing behind it.
        assert "\n".join(["", *lines, "", ""]) in PAGE


@pytest.mark.parametrize("folder", RECORDS, ids=lambda path: path.name)
def test_the_records_are_of_the_recipe_as_it_is(folder):
    recipe = recipes.resolved(f"{folder.name}.yaml", {})
    for run in json.loads((folder / "result.json").read_text())["runs"][RECIPE]:
        assert_record_is_of(folder / f"seed-{run['seed']}", recipe, Run(**run))


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.parent.name)
def test_the_records_of_an_ablation_are_of_one_change_each(path):
    document, folder = json.loads(path.read_text()), path.parent
    for name, runs in document["runs"].items():
        changed = {} if name == RECIPE else plain_yaml(f"{{{name}}}")
        recipe = recipes.resolved(f"{folder.name}.yaml", changed, document["steps"])
        for run in runs:
            kept = folder_of_change(folder, name) / f"seed-{run['seed']}"
            assert_record_is_of(kept, recipe, Run(**run))


def assert_record_is_of(kept, recipe, run):
    """A run's record has the values of a recipe, and the loss that is told of the run."""
    recorded = resolve(ConfigSources(base=kept / "config.yaml")).values
    assert recorded.seed == run.seed
    # What the start of a run fills in.
    filled = {"corpus", "seed", "precision", "decay_steps"}
    for key in set(KEYS) - filled:
        assert getattr(recorded, key) == getattr(recipe, key), key
    last = json.loads((kept / "metrics.jsonl").read_text())
    assert last["step"] == recipe.max_steps
    assert f"{last['val_loss']:.4f}" == f"{run.loss:.4f}"


def test_the_page_shows_what_is_kept():
    for folder in RECORDS:
        assert f"recipes/{folder.name}/losses.svg" in PAGE
        sample = (folder / "sample.txt").read_text()
        assert all(line in PAGE for line in sample.splitlines())
    named = set(re.findall(r"--config=([\w-]+)\.yaml", PAGE))
    assert {folder.name for folder in RECORDS} <= named
