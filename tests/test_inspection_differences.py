"""Two runs or configuration files, set side by side."""

import json
import shutil
from dataclasses import replace

import pytest

from lm_core import inspection
from lm_core.config.hyperparameters import KEYS
from lm_core.config.rendering import config_hash, yaml_value
from lm_core.errors import InputError
from tests.config_sources import sources as resolved
from tests.random_configs import ANOTHER_VALUE
from tests.tiny_run import asked, train


@pytest.mark.parametrize(("one", "other"), [("1", "true"), ("1", "1.0"), ("a", "b")])
def test_options_of_hooks_that_python_calls_equal_differ(folder, capsys, one, other):
    for name, option in (("one.yaml", one), ("other.yaml", other)):
        entry = f"{{name: test_with_a_table, table: {{a: {option}}}}}"
        (folder / name).write_text(f"hooks: {{update: [{entry}]}}\n")
    inspection.show_difference(asked(compared=("one.yaml", "other.yaml")))
    assert "hooks" in capsys.readouterr().out


def test_a_file_that_is_not_there_is_told_as_one_to_be_compared(folder):
    with pytest.raises(InputError, match=r"^--mode=diff: 'nope.yaml': unknown file"):
        inspection.show_difference(asked(compared=("nope.yaml", "default.yaml")))


def test_both_sides_of_a_comparison_are_told(folder):
    (folder / "a.yaml").write_text("n_layer: 3\n")
    (folder / "b.yaml").write_text("dropout: 3\n")
    with pytest.raises(InputError) as error:
        inspection.show_difference(asked(compared=("a.yaml", "b.yaml")))
    assert [line[:6] for line in error.value.message.splitlines()] == ["a.yaml", "b.yaml"]


def test_two_files_are_compared_side_by_side(folder, capsys):
    (folder / "a.yaml").write_text("n_layers: 6\ndropout: 0.1\n")
    (folder / "b.gin").write_text("\nTransformer.n_layers = 8\n")
    inspection.show_difference(asked(compared=("a.yaml", "b.gin")))
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["a.yaml", "set", "by", "b.gin", "set", "by"],
        ["n_layers", "6", "a.yaml:1", "8", "b.gin:2"],
    ]


# What must stand beside a key, in both files.
NEEDED = {"early_stopping_evaluations": "eval_cadence: 5\n", "tokenizer_file": "tokenizer: bpe\n"}


@pytest.mark.parametrize("key", KEYS)
def test_a_difference_in_any_hyperparameter_is_shown(folder, capsys, key):
    value = ANOTHER_VALUE.get(key, 77)
    needed = NEEDED.get(key, "")
    (folder / "my.yaml").write_text(f"{key}: {yaml_value(value)}\n{needed}")
    (folder / "other.yaml").write_text(needed or "{}")
    inspection.show_difference(replace(asked(compared=("my.yaml", "other.yaml")), format="json"))
    found = json.loads(capsys.readouterr().out)["hyperparameters"]
    assert list(found) == [key]
    assert found[key]["left"] == {"value": value, "source": "my.yaml:1"}


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (("corpus", "sha256"), "corpus.sha256"),
        (("git", "commit"), "git.commit"),
        (("git", "dirty"), "git.dirty"),
        (("versions", "torch"), "versions.torch"),
        (("numerics", "threads"), "numerics.threads"),
        (("modules", "my_hooks"), "modules.my_hooks"),
    ],
)
def test_a_difference_in_any_fact_is_shown(tmp_path, monkeypatch, capsys, place, name):
    train(tmp_path, monkeypatch)
    shutil.copytree("run", "other")
    path = tmp_path / "other" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest[place[0]] = {**(manifest[place[0]] or {}), place[1]: "another"}
    if name == "corpus.sha256":
        table = resolved(base=tmp_path / "other" / "config.yaml").values.to_dict()
        manifest["config_hash"] = config_hash(table, "another")
    path.write_text(json.dumps(manifest))
    capsys.readouterr()
    inspection.show_difference(replace(asked(compared=("run", "other")), format="json"))
    found = json.loads(capsys.readouterr().out)
    assert found["hyperparameters"] == {}
    assert found["runs"][name]["right"] == "another"


def test_what_is_the_same_is_said_to_be(folder, capsys):
    (folder / "a.yaml").write_text("")
    inspection.show_difference(asked(compared=("a.yaml", "default.yaml")))
    message = "a.yaml and default.yaml are the same in every hyperparameter\n"
    assert capsys.readouterr().out == message


def test_two_runs_are_compared_with_what_else_explains_a_difference(tmp_path, monkeypatch, capsys):
    train(tmp_path, monkeypatch, Trainer__seed=1)
    (tmp_path / "run").rename(tmp_path / "first")
    train(tmp_path, monkeypatch, Trainer__seed=2, Transformer__d_ff=16)
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["versions"]["torch"] = "9.9"
    path.write_text(json.dumps(manifest))
    capsys.readouterr()
    names = (str(tmp_path / "first"), str(tmp_path / "run"))
    inspection.show_difference(asked(compared=names))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines[:2] == [
        ["d_ff", "32", "--gin_bindings", "16", "--gin_bindings"],
        ["seed", "1", "--gin_bindings", "2", "--gin_bindings"],
    ]
    assert [line[0] for line in lines[2:]] == ["versions.torch"]
    inspection.show_difference(replace(asked(compared=names), format="json"))
    found = json.loads(capsys.readouterr().out)
    assert (found["left"], found["right"]) == names
    assert found["hyperparameters"]["seed"]["left"] == {"value": 1, "source": "--gin_bindings"}
    assert found["runs"]["versions.torch"]["right"] == "9.9"


def test_a_run_is_compared_with_a_file(tmp_path, monkeypatch, capsys):
    train(tmp_path, monkeypatch)
    capsys.readouterr()
    inspection.show_difference(asked(compared=(str(tmp_path / "run"), "default.yaml")))
    printed = capsys.readouterr().out
    assert "n_layers" in printed
    assert "versions" not in printed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", "'nope' is neither a run directory nor a configuration"),
        ("nope.yaml", "'nope.yaml': unknown file"),
        (".", "is no run directory: it has no config.yaml"),
        ("wrong.yaml", "wrong.yaml:1: n_layer: unknown hyperparameter"),
    ],
)
def test_what_cannot_be_compared_is_told(folder, name, message):
    (folder / "wrong.yaml").write_text("n_layer: 3\n")
    with pytest.raises(InputError, match=message):
        inspection.show_difference(asked(compared=(name, "default.yaml")))
