import itertools
import json

import pytest

from lm_core.config.hyperparameters import KEYS
from lm_core.config.resolution import ConfigSources, FileArgument, ResolvedConfig, resolve
from lm_core.config.statements import Source
from lm_core.config.training_config import TrainingConfig
from lm_core.errors import InputError, Problem
from tests.config_sources import PROJECT, problems, sources


def test_without_any_file_it_is_the_default_gin_file_which_is_the_default_yaml_file():
    config = sources()
    assert config.values == TrainingConfig()
    assert all(s.place.endswith("configs/default.yaml") for s in config.sources.values())


def test_the_default_yaml_file_states_every_hyperparameter_with_its_default():
    config = sources(files=["default.yaml"])
    assert config.values == TrainingConfig()
    assert all(source.line for source in config.sources.values())


def test_base_gin_repeats_no_value():
    text = (PROJECT / "gin_configs" / "base.gin").read_text()
    statements = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert statements == ["include '../configs/default.yaml'"]


def test_what_no_source_states_is_the_default(folder):
    (folder / "my.yaml").write_text("n_layers: 6\n")
    config = sources(files=["my.yaml"])
    assert config.values == TrainingConfig(n_layers=6)
    assert str(config.sources["n_layers"]) == "my.yaml:1"
    assert str(config.sources["d_model"]) == "default"


def places(folder):
    """Every kind of source, weakest first, each saying another number of steps."""
    (folder / "a.yaml").write_text("max_steps: 11\n")
    (folder / "b.gin").write_text("Trainer.max_steps = 12\n")
    return [
        ({"files": ["a.yaml"]}, 11),
        ({"files": ["b.gin"]}, 12),
        ({"bindings": ["Trainer.max_steps=13"]}, 13),
        ({"max_steps": 14}, 14),
    ]


@pytest.mark.parametrize("pair", list(itertools.combinations(range(4), 2)))
def test_in_every_pair_of_sources_the_later_one_wins(folder, pair):
    weak, strong = (places(folder)[i] for i in pair)
    merged = dict(weak[0])
    for name, value in strong[0].items():
        merged[name] = [*merged.get(name, []), *value] if isinstance(value, list) else value
    (folder / "empty.gin").write_text("")
    merged.setdefault("files", ["empty.gin"])
    assert sources(**merged).values.max_steps == strong[1]


def test_a_file_that_extends_wins_over_what_it_extends_wherever_the_line_stands(folder):
    places(folder)
    (folder / "own.yaml").write_text("max_steps: 21\nextends: a.yaml\n")
    assert sources(files=["own.yaml"]).values.max_steps == 21


@pytest.mark.parametrize(
    ("content", "steps"),
    [
        ("include 'a.yaml'\nTrainer.max_steps = 22\n", 22),
        ("Trainer.max_steps = 22\ninclude 'a.yaml'\n", 11),
        ("include 'a.yaml'\ninclude 'b.gin'\n", 12),
    ],
)
def test_an_include_stands_where_it_is_written(folder, content, steps):
    places(folder)
    (folder / "own.gin").write_text(content)
    assert sources(files=["own.gin"]).values.max_steps == steps


def test_a_flag_for_the_corpus_wins_over_files_and_bindings(folder):
    (folder / "a.yaml").write_text("corpus: a.txt\n")
    bindings = ["load_corpus.path='b.txt'"]
    assert sources(files=["a.yaml"], bindings=bindings).values.corpus == "b.txt"
    assert sources(files=["a.yaml"], bindings=bindings, corpus="c.txt").values.corpus == "c.txt"


def test_files_win_in_their_order_on_the_command_line_across_both_flags(folder):
    places(folder)
    assert sources(files=["a.yaml", "b.gin"]).values.max_steps == 12
    assert sources(files=["b.gin", "a.yaml"]).values.max_steps == 11


def test_a_later_binding_wins(folder):
    config = sources(bindings=["Trainer.max_steps=1", "Trainer.max_steps=2"])
    assert config.values.max_steps == 2


def test_a_wrong_statement_is_told_even_where_a_later_one_overrides_it(folder):
    (folder / "my.yaml").write_text("n_layers: 0\n")
    given = {"files": ["my.yaml"], "bindings": ["Transformer.n_layers=6"]}
    assert problems(**given) == [
        "my.yaml:1: n_layers: 0 is less than 1 (allowed: an integer from 1 to 2147483647)"
    ]


def test_all_problems_are_told_at_once(folder):
    (folder / "my.yaml").write_text("n_head: 3\ndropout: 1.5\nd_model: 250\n")
    (folder / "hooks.yaml").write_text("hooks: {update: [{}]}\n")
    found = problems(
        files=["my.yaml", "hooks.yaml"],
        bindings=["Transformer.n_layer=6", "Trainer.seed='x'"],
        max_steps=0,
    )
    assert [line.split(": ")[0] for line in found] == [
        "my.yaml:1",
        "my.yaml:2",
        "--gin_bindings",
        "hooks.yaml:1",
        "--gin_bindings",
        "--max_steps",
        "d_model 250 (my.yaml:3) is not divisible by n_heads 4 (default)",
    ]


UNFIT = "d_model 250 (my.yaml:1) is not divisible by n_heads 4 (default)"


@pytest.mark.parametrize(
    "unread",
    [
        {"files": ["my.yaml", "nope.yaml"]},
        {"files": ["my.yaml", "not.yaml"]},
        {"files": ["my.yaml"], "bindings": ["Transformer.n_heads = a b"]},
        {"files": ["my.yaml"], "bindings": ["Transformer.n_heads = %nope"]},
        {"files": ["my.yaml", "tagged.yaml"]},
        {"files": ["my.yaml", "inner.gin"]},
    ],
    ids=str,
)
def test_no_rule_is_held_against_what_may_be_set_where_nothing_can_be_read(folder, unread):
    (folder / "my.yaml").write_text("d_model: 250\n")
    (folder / "not.yaml").write_text("n_heads: [5\n")
    (folder / "tagged.yaml").write_text("n_heads: !number 5\n")
    (folder / "inner.gin").write_text("include 'nope.yaml'\n")
    assert problems(files=["my.yaml"]) == [UNFIT]
    (told,) = problems(**unread)
    assert "divisible" not in told


def test_a_rule_holds_where_only_other_values_cannot_be_read(folder):
    (folder / "my.yaml").write_text("d_model: 250\n")
    _, unfit = problems(files=["my.yaml"], bindings=["Trainer.seed = a b"])
    assert unfit == UNFIT


def test_the_rule_between_values_holds_for_what_results(folder):
    (folder / "my.yaml").write_text("d_model: 250\n")
    config = sources(files=["my.yaml"], bindings=["Transformer.n_heads=5"])
    assert config.values.n_heads == 5


def test_a_wrong_value_that_is_overridden_does_not_hide_what_results(folder):
    (folder / "my.yaml").write_text("d_model: x\n")
    wrong, unfit = problems(files=["my.yaml"], bindings=["Transformer.d_model=250"])
    assert wrong.startswith("my.yaml:1: d_model: 'x' is a text")
    assert unfit == "d_model 250 (--gin_bindings) is not divisible by n_heads 4 (default)"


@pytest.mark.parametrize("content", ["d_model: 250\nn_heads: 0", "d_model: x\nn_heads: 3"])
def test_no_rule_is_held_against_what_a_wrong_value_was_meant_to_be(folder, content):
    (folder / "my.yaml").write_text(content)
    (only,) = problems(files=["my.yaml"])
    assert only.startswith("my.yaml:")


@pytest.mark.parametrize(
    ("name", "content"),
    [("default.yaml", "n_layers: 7"), ("base.gin", "Transformer.n_layers = 7")],
)
def test_a_named_file_in_the_working_directory_comes_before_the_projects(folder, name, content):
    (folder / name).write_text(content)
    assert sources(files=[name]).values.n_layers == 7
    assert sources().values.n_layers == 4


def test_names_in_messages_are_those_that_were_written(folder):
    (line,) = problems(bindings=["Sampler.temperature=-1"])
    assert line.startswith("--gin_bindings: Sampler.temperature: -1 is less than 0")
    (line,) = problems(bindings=["Trainer.hooks={'forward': [{'nam': 'x'}]}"])
    assert line == "--gin_bindings: Trainer.hooks.forward[0].name: is missing"


def test_files_given_to_the_wrong_flag_are_told(folder):
    with pytest.raises(ValueError, match="is a gin file; give it to --gin_file"):
        resolve(ConfigSources(files=[FileArgument("--config", "base.gin")]))
    with pytest.raises(ValueError, match="is a YAML file; give it to --config"):
        resolve(ConfigSources(files=[FileArgument("--gin_file", "a.yaml")]))


def test_problems_of_options_are_told_with_those_of_the_outer_form(folder):
    (folder / "my.yaml").write_text("hooks:\n  update:\n    - name: x\n      enabled: 1\n")

    def check(table):
        paths = ("hooks.update[0].enabled", "hooks.update[0].every")
        return [Problem(path, "is told") for path in paths]

    option, outer = problems(files=["my.yaml"], check_hooks=check)
    assert outer == "my.yaml:4: hooks.update[0].enabled: 1 is not true or false"
    assert option == "my.yaml:3: hooks.update[0].every: is told"


def test_problems_of_hooks_are_told_with_their_line(folder):
    (folder / "my.yaml").write_text("hooks:\n  update:\n    - name: x\n      every: 0\n")

    def check(table):
        assert table == {"update": [{"name": "x", "every": 0}]}
        return [Problem("hooks.update[0].every", "0 is too often")]

    assert problems(files=["my.yaml"], check_hooks=check) == [
        "my.yaml:4: hooks.update[0].every: 0 is too often"
    ]


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("hooks.update[0].name", "my.yaml:4: hooks.update[0].name"),
        ("hooks.update[0].other", "my.yaml:4: hooks.update[0].other"),
        ("hooks.forward[0].name", "my.yaml:2: hooks.forward[0].name"),
        ("hooks.update", "my.yaml:3: hooks.update"),
        ("n_layers", "my.yaml:1: n_layers"),
        ("d_model", "default: d_model"),
        ("sampling_prompt", "--gin_bindings: Sampler.prompt"),
    ],
)
def test_a_problem_is_told_where_and_under_which_name_its_value_was_set(folder, path, place):
    (folder / "my.yaml").write_text("n_layers: 6\nhooks:\n  update:\n    - name: x\n")
    config = sources(files=["my.yaml"], bindings=["Sampler.prompt='Once'"])
    assert config.sentence(Problem(path, "is odd")) == f"{place}: is odd"


def test_a_nested_value_of_gin_keeps_the_name_of_its_parameter(folder):
    config = sources(bindings=["Trainer.hooks={'update': [{'name': 'x'}]}"])
    told = config.sentence(Problem("hooks.update[0].every", "is odd"))
    assert told == "--gin_bindings: Trainer.hooks.update[0].every: is odd"


def test_problems_of_a_file_come_in_the_order_of_its_lines(folder):
    (folder / "a.yaml").write_text("n_head: 1\ndropout: 7\nd_ff: 8\nd_ff: 9\nseed: -1\n")
    (folder / "b.yaml").write_text("seed: -1\nx: 1\n")
    told = problems(files=["a.yaml", "b.yaml"], bindings=["y = 1", "Trainer.seed = -1"])
    assert [line.split(": ")[0] for line in told] == [
        "a.yaml:1",
        "a.yaml:2",
        "a.yaml:4",
        "a.yaml:5",
        "b.yaml:1",
        "b.yaml:2",
        "--gin_bindings",
        "--gin_bindings",
    ]


def test_a_drawn_value_has_its_source(folder):
    config = sources().with_value("seed", 17, Source("drawn"))
    assert config.values.seed == 17
    assert str(config.sources["seed"]) == "drawn"


def test_a_runs_own_record_is_below_all_and_stands_in_for_the_default_file(folder):
    (folder / "config.yaml").write_text("n_layers: 2\nmax_steps: 5\nseed: 9\n")
    base = folder / "config.yaml"
    config = sources(base=base)
    assert config.values == TrainingConfig(n_layers=2, max_steps=5, seed=9)
    assert sources(base=base, max_steps=7).values.max_steps == 7
    assert sources(base=base, bindings=["Transformer.n_layers=3"]).values.n_layers == 3


def test_a_seed_left_open_does_not_change_the_recorded_one(folder):
    (folder / "config.yaml").write_text("seed: 9\n")
    base = folder / "config.yaml"
    assert sources(base=base, files=["default.yaml"]).values.seed == 9
    assert sources(base=base, bindings=["Trainer.seed=None"]).values.seed == 9
    assert sources(base=base, bindings=["Trainer.seed=3"]).values.seed == 3
    (folder / "five.yaml").write_text("seed: 5\n")
    last = {"files": ["five.yaml"], "bindings": ["Trainer.seed=None"]}
    assert sources(base=base, **last).values.seed == 9
    assert sources(base=base, files=["default.yaml", "five.yaml"]).values.seed == 5


def test_a_seed_that_is_wrong_is_told_even_where_it_is_left_open_at_last(folder):
    (folder / "config.yaml").write_text("seed: 9\n")
    bindings = ["Trainer.seed=-1", "Trainer.seed=None"]
    (told,) = problems(base=folder / "config.yaml", bindings=bindings)
    assert told.startswith("--gin_bindings: Trainer.seed: -1 is less than 0")


def test_a_search_path_that_is_no_folder_is_told_with_everything_else(folder):
    given = ConfigSources(
        files=[FileArgument("--config", "default.yaml")],
        yaml_folders=[PROJECT / "configs"],
        gin_folders=[folder / "nope"],
        overrides={"max_steps": 0},
    )
    with pytest.raises(InputError) as error:
        resolve(given)
    one, other = error.value.message.splitlines()
    assert one.startswith("--gin_search_paths: ")
    assert other.startswith("--max_steps: 0 is less than 1")


def fit_of(files, told=()):
    asked = []

    def check_fit(values):
        asked.append(values)
        return [Problem("hooks.update[0].limit", message) for message in told]

    given = ConfigSources(files=[FileArgument("--config", name) for name in files])
    try:
        resolve(given, None, check_fit)
    except InputError as error:
        return asked, error.message.splitlines()
    return asked, []


def test_whether_hooks_fit_the_model_is_told_with_everything_else(folder):
    (folder / "a.yaml").write_text("hooks:\n  update:\n    - name: x\n      limit: 3\nseed: -1\n")
    (values,), told = fit_of(["a.yaml"], ["does not fit"])
    assert values.hooks == {"update": [{"name": "x", "limit": 3}]}
    assert [line.partition(": ")[0] for line in told] == ["a.yaml:4", "a.yaml:5"]
    assert told[0] == "a.yaml:4: hooks.update[0].limit: does not fit"


@pytest.mark.parametrize("other", ["d_model: 0", "d_model: 3", "n_layers: x", "hooks: 3", "- x"])
def test_whether_hooks_fit_a_model_that_is_wrong_is_not_asked(folder, other):
    (folder / "a.yaml").write_text("hooks: {update: [{name: x}]}\n")
    (folder / "b.yaml").write_text(other)
    asked, told = fit_of(["a.yaml", "b.yaml"])
    assert asked == []
    assert len(told) == 1


def test_every_key_can_be_traced(folder):
    assert set(sources().sources) == set(KEYS)


def test_a_value_set_by_the_program_is_checked_too(folder):
    with pytest.raises(ValueError, match="max_steps"):
        sources().with_value("max_steps", 0, Source("drawn"))


def test_a_configuration_travels_as_plain_data():
    config = sources(bindings=["Trainer.hooks = {'update': [{'name': 'identity'}]}"])
    plain = json.loads(json.dumps(config.to_plain()))
    assert ResolvedConfig.from_plain(plain) == config
