"""Configurations shown and compared, asked for as the command line asks but in this process."""

import json

import pytest

from lm_core import inspection
from lm_core.config.hyperparameters import KEYS
from lm_core.errors import InputError
from lm_core.hooks import UpdateHook, builtin, update_hook
from tests.config_sources import plain_yaml
from tests.config_sources import sources as resolved
from tests.tiny_run import asked, train


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


@pytest.mark.parametrize("size", ["n_layers: 2147483647", "d_model: 2147483644"])
def test_a_model_that_no_machine_can_hold_is_not_built_for_its_hooks(folder, capsys, size):
    (folder / "my.yaml").write_text(f"{size}\nhooks: {{update: [{{name: identity}}]}}\n")
    inspection.show_config(asked("my.yaml"))
    assert "identity" in capsys.readouterr().out


def test_hooks_are_checked_against_the_model_though_something_else_is_wrong(folder):
    (folder / "my.yaml").write_text(
        "sampling_prompt: \u00e9\nhooks: {forward: [{name: ablate_heads, heads: [99]}]}\n"
    )
    with pytest.raises(InputError) as error:
        inspection.check(asked("my.yaml").config)
    told = sorted(error.value.message.splitlines())
    assert [line.partition(" ")[0] for line in told] == ["my.yaml:2:", "sampling_prompt"]
    assert "hooks.forward[0].heads: the model has no head 99" in told[0]


@pytest.mark.parametrize("option", ["[.inf]", "['a', 1e400]"])
def test_a_value_inside_an_option_is_told_once(folder, option):
    (folder / "my.yaml").write_text(
        f"hooks: {{forward: [{{name: ablate_heads, heads: {option}}}]}}\n"
    )
    with pytest.raises(InputError) as error:
        inspection.check(asked("my.yaml").config)
    assert len(error.value.message.splitlines()) == 1


def test_a_forged_line_in_a_name_stays_in_its_line(folder):
    (folder / "my.yaml").write_text('"a\\nconfigs/default.yaml:3: n_layers": 4\n"\\e[31m": 3\n')
    with pytest.raises(InputError) as error:
        inspection.show_config(asked("my.yaml"))
    assert len(error.value.message.splitlines()) == 2
    assert "\x1b" not in error.value.message


@pytest.mark.parametrize("table", ["{1: a, b: 2}", "{1: a}", "{null: 1}", "{x: {true: 1}}"])
def test_names_in_options_are_texts(folder, table):
    entry = f"{{name: test_with_a_table, table: {table}}}"
    (folder / "my.yaml").write_text(f"hooks: {{update: [{entry}]}}\n")
    with pytest.raises(InputError, match=r"^my.yaml:1: hooks.update\[0\].table.* is not a text"):
        inspection.check(asked("my.yaml").config)


def test_control_characters_in_names_and_values_do_not_reach_the_terminal(folder, capsys):
    name = "a\x1b[31m\n.yaml"
    (folder / name).write_text('sampling_prompt: "\\e[31m"\n')
    inspection.show_config(asked(name))
    inspection.show_difference(asked(compared=("default.yaml", name)))
    assert "\x1b" not in capsys.readouterr().out


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
    with pytest.raises(InputError, match=r"max_steps: 2 \(--max_steps\), and 3 are done"):
        inspection.show_config(asked(overrides={"max_steps": 2}, run_dir=run))
    another = (
        r"the text of .*other.txt is another one than before \(SHA-256 [0-9a-f]+... then, [0-9a-f]"
    )
    with pytest.raises(InputError, match=another):
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
