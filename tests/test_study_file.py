from pathlib import Path

import pytest

from lm_core import inspection
from lm_core.errors import InputError
from lm_core.search.space import Choice, Range
from lm_core.search.study_file import StudyFile
from tests.config_sources import PROJECT
from tests.small_studies import sources, study

STUDIES = sorted((PROJECT / "configs" / "search").glob("*.yaml"))
WHOLE = """\
extends: base.yaml
search:
  learning_rate: {log_uniform: [1e-4, 1e-2]}
  n_layers: {choice: [2, 4, 6]}
  dropout: {uniform: [0.0, 0.3]}
  batch_size: {int_log: [8, 64]}
  warmup_steps: {int: [0, 20]}
trials: 30
sampler: random
pruner: hyperband
seeds_for_best: 1
"""


@pytest.fixture(autouse=True)
def base(folder):
    (folder / "base.yaml").write_text("d_model: 64\neval_cadence: 10\n")


def problems(text, **given):
    """What is wrong with a study, a line for each."""
    with pytest.raises(InputError) as error:
        study_of(text, **given)
    return error.value.message.splitlines()


def study_of(text, **given):
    return study(Path(), text, **given)


def searching(line):
    """A study of one line of space."""
    return f"search:\n  {line}\n"


def test_a_study_is_a_configuration_and_what_is_searched(folder):
    found = study_of(WHOLE)
    assert found.values.d_model == 64
    settings = found.settings
    assert settings.space == {
        "learning_rate": Range(1e-4, 1e-2, is_log=True),
        "n_layers": Choice((2, 4, 6)),
        "dropout": Range(0.0, 0.3),
        "batch_size": Range(8, 64, is_log=True, is_integer=True),
        "warmup_steps": Range(0, 20, is_integer=True),
    }
    assert (settings.trials, settings.sampler, settings.pruner) == (30, "random", "hyperband")
    assert settings.seeds_for_best == 1


def test_what_is_searched_has_its_first_value_in_the_base_with_its_line(folder):
    found = study_of(WHOLE)
    assert (found.values.n_layers, found.values.learning_rate) == (2, 1e-4)
    assert str(found.config.sources["n_layers"]) == "my.yaml:4"


def test_what_is_not_said_has_its_default(folder):
    settings = study_of(searching("dropout: {uniform: [0.0, 0.3]}")).settings
    assert (settings.trials, settings.sampler, settings.pruner) == (20, "tpe", "none")
    assert settings.seeds_for_best == 3


def test_a_grid_is_tried_as_a_whole(folder):
    text = "sampler: grid\nsearch:\n  n_layers: {choice: [1, 2]}\n  warmup_steps: {int: [0, 4]}\n"
    assert study_of(text).settings.trials == 10
    assert study_of(text + "trials: 4\n").settings.trials == 4


def test_a_small_space_is_tried_as_a_whole_and_no_more(folder):
    assert study_of(searching("n_layers: {choice: [1, 2]}")).settings.trials == 2


def test_a_grid_that_nobody_could_try_is_told(folder):
    (told,) = problems(searching("warmup_steps: {int: [0, 9999999]}") + "sampler: grid\n")
    assert told.startswith("my.yaml:1: search: a grid of 10,000,000 combinations is more than")


def test_a_study_may_extend_another_and_state_what_is_different(folder):
    (folder / "first.yaml").write_text(WHOLE)
    settings = study_of("extends: first.yaml\ntrials: 5\n").settings
    assert (settings.trials, settings.sampler) == (5, "random")


@pytest.mark.parametrize(
    ("line", "place", "sentence"),
    [
        ("learning_rat: {uniform: [0, 1]}", "", "unknown hyperparameter; did you mean learning_ra"),
        ("lr: {uniform: [0.1, 1]}", "", "unknown hyperparameter; did you mean learning_rate?"),
        ("dropout: {unifrom: [0, 0.1]}", ".unifrom", "unknown kind of range; did you mean uniform"),
        ("dropout: 0.1", "", "0.1 says nothing of what to try; write one of uniform, log_uniform"),
        ("dropout: {}", "", "has 0 kinds of range; write one of"),
        ("dropout: {uniform: [0, 0.1], choice: [0]}", "", "has 2 kinds of range"),
        ("dropout: {uniform: 0.1}", ".uniform", "0.1 is no list"),
        ("dropout: {uniform: [0.1]}", ".uniform", "[0.1] is not a low end and a high one"),
        ("dropout: {uniform: [0.2, 0.1]}", ".uniform", "is empty: 0.2 is not below 0.1"),
        ("dropout: {uniform: [0.2, 0.2]}", ".uniform", "is empty: 0.2 is not below 0.2"),
        ("dropout: {uniform: [0.2, 1.5]}", ".uniform[1]", "1.5 is not less than 1"),
        ("dropout: {uniform: [a, 0.5]}", ".uniform[0]", "'a' is no number"),
        ("dropout: {uniform: [0, .inf]}", ".uniform[1]", "inf is no number"),
        ("dropout: {uniform: [true, 0.5]}", ".uniform[0]", "true is no number"),
        ("dropout: {log_uniform: [0, 0.5]}", ".log_uniform[0]", "0 is not greater than 0"),
        ("warmup_steps: {int_log: [0, 5]}", ".int_log[0]", "0 is not greater than 0"),
        ("n_layers: {int: [1, 2.5]}", ".int[1]", "2.5 is no integer"),
        ("n_layers: {int: [0, 2]}", ".int[0]", "0 is less than 1"),
        ("n_layers: {uniform: [1, 2]}", ".uniform", "a hyperparameter of whole numbers: write int"),
        ("optimizer: {uniform: [1, 2]}", ".uniform", "a hyperparameter without numbers: write"),
        ("n_layers: {choice: []}", ".choice", "is empty: there is nothing to choose from"),
        ("n_layers: {choice: [1, 0]}", ".choice[1]", "0 is less than 1"),
        ("n_layers: {choice: [1, 2, 1]}", ".choice[2]", "1 stands there twice"),
        ("dropout: {choice: [0, 0.0]}", ".choice[1]", "0.0 stands there twice"),
        ("optimizer: {choice: [adamw, moun]}", ".choice[1]", "'moun' is an unknown optimizer; did"),
        ("seed: {int: [1, 3]}", "", "cannot be searched: all trials share it"),
        ("max_steps: {int: [1, 3]}", "", "cannot be searched: all trials have the same steps"),
        ("tokenizer: {choice: [char, byte]}", "", "cannot be searched: the losses of two trials"),
        ("hooks: {choice: [{}]}", "", "cannot be searched: it is no plain value"),
    ],
)
def test_what_is_wrong_with_a_range_is_told_with_its_line(folder, line, place, sentence):
    (told,) = problems(f"d_model: 32\n{searching(line)}")
    key = line.partition(":")[0]
    assert told.startswith(f"my.yaml:3: search.{key}{place}: {sentence}")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("trials: 0", "trials: 0 is not an integer from 1 to 100000"),
        ("trials: many", "trials: 'many' is not an integer from 1"),
        ("seeds_for_best: -1", "seeds_for_best: -1 is not an integer from 0 to 1000"),
        ("sampler: tep", "sampler: 'tep' is an unknown sampler; did you mean tpe? (allowed: tpe, "),
        ("pruner: null", "pruner: null is an unknown pruner; did you mean none? (allowed: hyper"),
        ("trails: 3", "trails: unknown hyperparameter; did you mean trials?"),
        ("search: {n_layers: {int: [1, 2]}}", "search: set twice in this file, first in line 1"),
    ],
)
def test_what_else_is_wrong_is_told_with_its_line(folder, line, sentence):
    (told,) = problems(searching("dropout: {uniform: [0.0, 0.3]}") + line)
    assert told.startswith(f"my.yaml:3: {sentence}")


def test_everything_is_told_at_once_with_what_is_wrong_with_hyperparameters(folder):
    told = problems(
        "n_head: 3\nsearch:\n  dropout: {uniform: [3, 1]}\n  n_layers: {choice: [1, 1]}\n"
        "  dropuot: {int: [1, 2]}\ntrials: -1\nd_model: 30\n"
    )
    places = [line.partition(": ")[0] for line in told]
    assert places[:6] == [f"my.yaml:{n}" for n in (1, 3, 3, 4, 5, 6)]
    assert "d_model 30 (my.yaml:7) is not divisible by n_heads 4 (default)" in told


def test_a_searched_name_that_stands_twice_is_told(folder):
    (told,) = problems("search:\n  dropout: {uniform: [0, 0.1]}\n  dropout: {uniform: [0, 0.2]}\n")
    assert told == "my.yaml:3: search.dropout: set twice in one mapping, first in line 2"


@pytest.mark.parametrize("value", ["", "[learning_rate]", "{}", "learning_rate"])
def test_a_search_for_nothing_is_told(folder, value):
    (told,) = problems(f"search: {value}\n")
    assert "is no mapping of hyperparameters to ranges; write a line such as" in told


def test_a_configuration_without_a_search_is_no_study(folder):
    (told,) = problems("trials: 3\nn_layers: 2\n")
    assert told == "nothing to search: --mode=search needs a study, a file with the key search"


def test_a_misspelled_search_is_recognised(folder):
    told = problems("serach:\n  dropout: {uniform: [0, 0.1]}\n")
    assert "my.yaml:1: serach: unknown hyperparameter; did you mean search?" in told


def test_what_the_command_line_sets_cannot_be_searched(folder):
    text = searching("learning_rate: {log_uniform: [1e-4, 1e-2]}")
    (told,) = problems(text, bindings=["Trainer.learning_rate=0.1"])
    assert told == (
        "--gin_bindings: Trainer.learning_rate: is searched (my.yaml:2); leave out one of the two"
    )
    assert study_of(text, bindings=["Trainer.beta1=0.8"]).values.beta1 == 0.8


def test_what_a_file_that_is_extended_sets_may_be_searched(folder):
    (folder / "base.yaml").write_text("learning_rate: 0.5\n")
    text = "extends: base.yaml\n" + searching("learning_rate: {log_uniform: [1e-4, 1e-2]}")
    assert study_of(text).values.learning_rate == 1e-4


def test_what_the_same_file_sets_cannot_be_searched(folder):
    text = searching("learning_rate: {log_uniform: [1e-4, 1e-2]}") + "learning_rate: 0.5\n"
    (told,) = problems(text)
    assert told == "my.yaml:3: learning_rate: is searched (my.yaml:2); leave out one of the two"


def test_a_pruner_needs_evaluations(folder):
    text = searching("dropout: {uniform: [0.0, 0.3]}") + "pruner: median\n"
    (told,) = problems(text)
    assert told == (
        "pruner median (my.yaml:3) ends runs at evaluations, and there are none with "
        "eval_cadence null (default)"
    )
    assert study_of(text + "eval_cadence: 5\n").settings.pruner == "median"


@pytest.mark.parametrize(
    ("line", "sampler", "sentence"),
    [
        ("dropout: {uniform: [0.0, 0.3]}", "grid", "dropout.uniform: a grid needs values one by"),
        ("n_layers: {choice: [1, 2]}", "cmaes", "n_layers.choice: cmaes knows ranges of numbers"),
        ("dropout: {uniform: [0.0, 0.3]}", "cmaes", "cmaes needs two ranges or more"),
    ],
)
def test_a_sampler_that_cannot_do_with_the_space_is_told(folder, line, sampler, sentence):
    told = problems(f"{searching(line)}sampler: {sampler}\n")
    number = 1 if "two ranges" in sentence else 2
    assert any(sentence in one and one.startswith(f"my.yaml:{number}: ") for one in told)


@pytest.mark.parametrize("sampler", ["grid", "tpe", "random"])
def test_more_trials_than_combinations_are_told(folder, sampler):
    text = searching("n_layers: {choice: [1, 2]}") + f"sampler: {sampler}\ntrials: 3\n"
    (told,) = problems(text)
    assert told == (
        "my.yaml:4: trials: 3 are more than the 2 combinations that there are to search"
    )


def test_a_study_is_refused_where_a_configuration_is_wanted(folder):
    (folder / "my.yaml").write_text(WHOLE)
    with pytest.raises(InputError) as error:
        inspection.check(sources("my.yaml"))
    assert error.value.message == "my.yaml:2: search: makes this a study, which --mode=search runs"


def test_a_base_that_breaks_a_rule_is_told_with_the_first_searched_value(folder):
    text = "n_heads: 4\n" + searching("d_model: {choice: [30, 35]}")
    (told,) = problems(text)
    assert told == "d_model 30 (my.yaml:3) is not divisible by n_heads 4 (my.yaml:1)"


def test_a_first_value_that_does_not_fit_refuses_no_study(folder):
    found = study_of("d_model: 16\n" + searching("n_heads: {choice: [3, 2]}"))
    assert (found.values.n_heads, found.settings.space["n_heads"].options) == (2, (3, 2))
    assert str(found.config.sources["n_heads"]) == "my.yaml:3"


def test_an_unknown_value_of_the_search_breaks_no_rule(folder):
    told = problems("n_heads: 4\n" + searching("d_model: {int: [30, 3]}"))
    assert len(told) == 1


def test_the_file_is_read_once_for_all(folder):
    file = StudyFile()
    (folder / "my.yaml").write_text(WHOLE)
    inspection.check(sources("my.yaml"), file)
    assert str(file.sources["trials"]) == "my.yaml:8"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_the_studies_that_the_lab_brings_are_sound_and_say_how_to_run_them(folder, path):
    file = StudyFile()
    inspection.check(sources(f"search/{path.name}"), file)
    assert file.settings.trials * 300 < 10_000
    command = f"#   python run.py --mode=search --config=search/{path.name}\n"
    assert command in path.read_text()
