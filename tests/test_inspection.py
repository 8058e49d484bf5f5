"""Configurations shown and compared, asked for as the command line asks but in this process."""

import json
from dataclasses import replace

import pytest

from lm_core import experiment, inspection
from lm_core.config.hyperparameters import KEYS
from lm_core.config.resolution import Binding, ConfigSources, FileArgument
from lm_core.errors import InputError
from lm_core.hooks import UpdateHook, builtin, update_hook
from lm_core.request import Request
from tests.config_sources import PROJECT, plain_yaml
from tests.config_sources import sources as resolved
from tests.tiny_run import request


def asked(*files, bindings=(), overrides=None, **fields):
    """A request about files: YAML by --config, gin by --gin_file."""
    flags = {".gin": "--gin_file", ".yaml": "--config"}
    config = ConfigSources(
        files=[FileArgument(flags["." + name.rsplit(".")[-1]], name) for name in files],
        bindings=[Binding("--gin_bindings", text) for text in bindings],
        overrides=overrides,
        yaml_folders=[PROJECT / "configs"],
        gin_folders=[PROJECT / "gin_configs"],
    )
    return Request(config, **fields)


def table(text):
    """The rows of the printed table by key, as lists of cells after the mark."""
    rows = [line[1:].split() for line in text.splitlines() if line[:1] in ("*", " ")]
    return {cells[0]: cells[1:] for cells in rows if cells and cells[0] in KEYS}


def test_every_hyperparameter_is_shown_with_value_default_and_source(folder, capsys):
    (folder / "my.yaml").write_text("extends: base.yaml\n\nn_layers: 6\n")
    (folder / "base.yaml").write_text("dropout: 0.2\nd_ff: 1024\n")
    (folder / "my.gin").write_text("Trainer.beta1 = 0.8\n")
    inspection.show_config(
        asked(
            "my.yaml",
            "my.gin",
            bindings=["Sampler.seed=7"],
            overrides={"max_steps": 300},
        )
    )
    printed = capsys.readouterr().out
    rows = table(printed)
    assert list(rows) == list(KEYS)
    assert rows["n_layers"] == ["6", "4", "my.yaml:3"]
    assert rows["dropout"] == ["0.2", "0.1", "base.yaml:1"]
    assert rows["d_ff"] == ["1024", "1024", "base.yaml:2"]
    assert rows["beta1"] == ["0.8", "0.9", "my.gin:1"]
    assert rows["sampling_seed"] == ["7", "42", "--gin_bindings"]
    assert rows["max_steps"] == ["300", "10000", "--max_steps"]
    assert rows["d_model"] == ["256", "256", "default"]
    marked = [line.split()[1] for line in printed.splitlines() if line.startswith("*")]
    assert marked == ["n_layers", "dropout", "max_steps", "beta1", "sampling_seed"]
    assert printed.endswith(f"5 of {len(KEYS)} values differ from the default (*)\n")


def test_no_cell_is_cut_however_long(folder, capsys):
    (folder / "my.yaml").write_text(f"sampling_prompt: {'long ' * 100}\n")
    inspection.show_config(asked("my.yaml"))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "sampling_prompt" in line]
    assert line.count("long") == 100
    assert line.endswith("my.yaml:1")


@pytest.mark.parametrize("form", ["yaml", "gin"])
def test_what_is_printed_for_programs_gives_the_same_configuration(folder, capsys, form):
    (folder / "my.yaml").write_text("n_layers: 6\nhooks: {update: [{name: identity}]}\n")
    inspection.show_config(asked("my.yaml", format=form))
    (folder / f"printed.{form}").write_text(capsys.readouterr().out)
    again = resolved(files=[f"printed.{form}"]).values
    assert again == resolved(files=["my.yaml"]).values


def test_json_tells_value_default_source_and_parameter(folder, capsys):
    (folder / "my.yaml").write_text("n_layers: 6\n")
    inspection.show_config(asked("my.yaml", format="json"))
    found = json.loads(capsys.readouterr().out)["hyperparameters"]
    assert list(found) == list(KEYS)
    assert found["n_layers"] == {
        "value": 6,
        "default": 4,
        "differs": True,
        "source": "my.yaml:1",
        "gin_parameter": "Transformer.n_layers",
        "category": "Model architecture",
    }
    assert found["seed"]["value"] is None
    assert found["seed"]["differs"] is False


def test_a_wrong_configuration_is_told_and_nothing_printed(folder, capsys):
    (folder / "my.yaml").write_text("n_layer: 6\ndropout: 7\n")
    with pytest.raises(InputError) as error:
        inspection.show_config(asked("my.yaml"))
    assert len(error.value.message.splitlines()) == 2
    assert capsys.readouterr().out == ""


def test_hooks_are_checked_too(folder):
    (folder / "my.yaml").write_text("hooks:\n  update:\n    - name: identiti\n")
    with pytest.raises(
        InputError, match=r"^my.yaml:3: hooks.update\[0\].name: 'identiti' is an unknown update"
    ):
        inspection.check(asked("my.yaml").config)


def test_hooks_that_do_not_fit_the_model_are_told_together_with_their_lines(folder):
    (folder / "my.yaml").write_text(
        "hooks:\n"
        "  update:\n"
        "    - {name: freeze, parameters: nope}\n"
        "    - {name: freeze, parameters: nope2}\n"
        "  forward:\n"
        "    - {name: ablate_heads, heads: [7]}\n"
        "    - {name: activation_stats, sites: x, enabled: false}\n"
    )
    with pytest.raises(InputError, match=r"^my.yaml:3") as error:
        inspection.show_config(asked("my.yaml"))
    assert len(error.value.message.splitlines()) == 4
    with (folder / "my.yaml").open("a") as file:
        file.write("beta1: 7\n")
    with pytest.raises(InputError) as error:
        inspection.check(asked("my.yaml").config)
    places = [line.split(": ")[:2] for line in error.value.message.splitlines()]
    assert places == [
        ["my.yaml:3", "hooks.update[0].parameters"],
        ["my.yaml:4", "hooks.update[1].parameters"],
        ["my.yaml:6", "hooks.forward[0].heads"],
        ["my.yaml:7", "hooks.forward[1].sites"],
        ["my.yaml:8", "beta1"],
    ]


@update_hook("test_looks_at_weights")
class LooksAtWeights(UpdateHook):
    """Needs weights when it is prepared."""

    def prepare(self, model):
        self.first = model.token_embedding.weight.detach().numpy()[0, 0]


def test_a_hook_that_needs_weights_is_left_to_the_training(folder, capsys):
    (folder / "my.yaml").write_text("hooks: {update: [{name: test_looks_at_weights}]}\n")
    inspection.show_config(asked("my.yaml"))
    assert "test_looks_at_weights" in capsys.readouterr().out


def test_a_forged_line_in_a_name_stays_in_its_line(folder):
    (folder / "my.yaml").write_text('"a\\nconfigs/default.yaml:3: n_layers": 4\n"\\e[31m": 3\n')
    with pytest.raises(InputError) as error:
        inspection.show_config(asked("my.yaml"))
    assert len(error.value.message.splitlines()) == 2
    assert "\x1b" not in error.value.message


@pytest.mark.parametrize(("one", "other"), [("1", "true"), ("1", "1.0"), ("a", "b")])
def test_options_of_hooks_that_python_calls_equal_differ(folder, capsys, one, other):
    for name, option in (("one.yaml", one), ("other.yaml", other)):
        entry = f"{{name: test_with_a_table, table: {{a: {option}}}}}"
        (folder / name).write_text(f"hooks: {{update: [{entry}]}}\n")
    inspection.show_difference(asked(compared=("one.yaml", "other.yaml")))
    assert "hooks" in capsys.readouterr().out


@update_hook("test_with_a_table")
class WithATable(UpdateHook):
    """Has an option that may hold anything."""

    def __init__(self, table: dict):
        self.table = table


@pytest.mark.parametrize("table", ["{1: a, b: 2}", "{1: a}", "{null: 1}", "{x: {true: 1}}"])
def test_names_in_options_are_texts(folder, table):
    entry = f"{{name: test_with_a_table, table: {table}}}"
    (folder / "my.yaml").write_text(f"hooks: {{update: [{entry}]}}\n")
    with pytest.raises(InputError, match=r"^my.yaml:1: hooks.update\[0\].table.* is not a text"):
        inspection.check(asked("my.yaml").config)


def test_a_file_that_is_not_there_is_told_as_one_to_be_compared(folder):
    with pytest.raises(InputError, match=r"^--mode=diff: 'nope.yaml': unknown file"):
        inspection.show_difference(asked(compared=("nope.yaml", "default.yaml")))


def test_both_sides_of_a_comparison_are_told(folder):
    (folder / "a.yaml").write_text("n_layer: 3\n")
    (folder / "b.yaml").write_text("dropout: 3\n")
    with pytest.raises(InputError) as error:
        inspection.show_difference(asked(compared=("a.yaml", "b.yaml")))
    assert [line[:6] for line in error.value.message.splitlines()] == ["a.yaml", "b.yaml"]


def test_control_characters_in_names_and_values_do_not_reach_the_terminal(folder, capsys):
    name = "a\x1b[31m\n.yaml"
    (folder / name).write_text('sampling_prompt: "\\e[31m"\n')
    inspection.show_config(asked(name))
    inspection.show_difference(asked(compared=("default.yaml", name)))
    assert "\x1b" not in capsys.readouterr().out


def train(path, monkeypatch, **bindings):
    monkeypatch.chdir(path)
    experiment.train(request(path, **bindings))


def test_a_run_is_shown_with_the_sources_it_was_started_with(tmp_path, monkeypatch, capsys):
    train(tmp_path, monkeypatch)
    capsys.readouterr()
    inspection.show_config(asked(run_dir=tmp_path / "run"))
    rows = table(capsys.readouterr().out)
    assert rows["n_layers"] == ["1", "4", "--gin_bindings"]
    assert rows["beta1"] == ["0.9", "0.9", "default"]
    assert rows["seed"][2] == "drawn"


def test_a_run_is_shown_with_what_a_resume_would_change(tmp_path, monkeypatch, capsys):
    train(tmp_path, monkeypatch)
    capsys.readouterr()
    inspection.show_config(asked(overrides={"max_steps": 9}, run_dir=tmp_path / "run"))
    rows = table(capsys.readouterr().out)
    assert rows["max_steps"] == ["9", "10000", "--max_steps"]
    assert rows["n_layers"] == ["1", "4", "--gin_bindings"]


@pytest.mark.parametrize("sources", [None, 3, {"n_layers": 3}, {"n_layers": "\x1b[1m"}])
def test_a_manifest_without_sources_or_with_odd_ones_does_no_harm(
    tmp_path, monkeypatch, capsys, sources
):
    train(tmp_path, monkeypatch)
    path = tmp_path / "run" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sources": sources}))
    capsys.readouterr()
    inspection.show_config(asked(run_dir=tmp_path / "run"))
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert table(printed)["n_heads"][2].startswith("run/config.yaml:")


def test_two_files_are_compared_side_by_side(folder, capsys):
    (folder / "a.yaml").write_text("n_layers: 6\ndropout: 0.1\n")
    (folder / "b.gin").write_text("\nTransformer.n_layers = 8\n")
    inspection.show_difference(asked(compared=("a.yaml", "b.gin")))
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["a.yaml", "set", "by", "b.gin", "set", "by"],
        ["n_layers", "6", "a.yaml:1", "8", "b.gin:2"],
    ]


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


def test_the_printed_yaml_is_plain_for_other_programs(capsys):
    inspection.show_config(asked("small-model.yaml", format="yaml"))
    assert plain_yaml(capsys.readouterr().out)["d_model"] == 128


def test_a_mixture_with_a_run_that_a_resume_would_refuse_is_not_shown(
    tmp_path, monkeypatch, capsys
):
    train(tmp_path, monkeypatch)
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"cannot go on .*\n  n_layers: 1 in the run, 2 now"):
        inspection.show_config(asked(bindings=["Transformer.n_layers=2"], run_dir=tmp_path / "run"))
    assert capsys.readouterr().out == ""


def test_what_a_resume_would_refuse_for_its_steps_or_its_text_is_not_shown(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "my.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    (tmp_path / "copy.txt").write_text((tmp_path / "my.txt").read_text())
    (tmp_path / "other.txt").write_text("pack my box with five dozen liquor jugs. " * 40)
    train(tmp_path, monkeypatch, load_corpus__path="my.txt")
    run = tmp_path / "run"
    inspection.show_config(asked(overrides={"corpus": "copy.txt", "max_steps": 3}, run_dir=run))
    with pytest.raises(InputError, match=r"max_steps: 2 \(--max_steps\), and 3 are done already"):
        inspection.show_config(asked(overrides={"max_steps": 2}, run_dir=run))
    with pytest.raises(InputError, match=r"the text of .*other.txt is another one than before"):
        inspection.show_config(asked(overrides={"corpus": "other.txt"}, run_dir=run))


def test_a_hook_of_a_run_that_does_not_fit_is_told_with_its_line_in_the_record(
    tmp_path, monkeypatch
):
    hooks = {"update": [{"name": "freeze", "parameters": "final_norm.*"}]}
    train(tmp_path, monkeypatch, Trainer__hooks=hooks)
    monkeypatch.setattr(builtin.Freeze, "prepare", refuses)
    with pytest.raises(InputError) as error:
        inspection.show_config(asked(run_dir=tmp_path / "run"))
    record = (tmp_path / "run" / "config.yaml").read_text().splitlines()
    line = 1 + next(i for i, text in enumerate(record) if text.startswith("hooks:"))
    assert error.value.message == f"run/config.yaml:{line}: hooks.update[0].parameters: refused"


def refuses(hook, model):
    raise InputError("parameters: refused")
