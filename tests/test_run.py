"""The entry point: from a command line to what is asked for."""

import itertools

import pytest

import run
from lm_core.command_line import parse
from lm_core.config.resolution import resolve
from lm_core.errors import InputError


def resolved(*arguments):
    return resolve(run.sources(parse(arguments)[0])).values


# Every kind of source, weakest first, each saying another number of steps. Those of one rank win
# in their order on the command line.
RANKS = [
    {"--config=a.yaml": 11, "--gin_file=b.gin": 12},
    {"--gin_bindings=Trainer.max_steps=13": 13, "--gin.Trainer.max_steps=14": 14},
    {"--max_steps=15": 15},
]
RANK_OF = {argument: rank for rank, group in enumerate(RANKS) for argument in group}
STEPS = {argument: steps for group in RANKS for argument, steps in group.items()}


@pytest.fixture
def files(folder):
    (folder / "a.yaml").write_text("max_steps: 11\ncorpus: a.txt\n")
    (folder / "b.gin").write_text("Trainer.max_steps = 12\n")


@pytest.mark.parametrize("pair", list(itertools.permutations(STEPS, 2)), ids=" ".join)
def test_in_every_pair_of_sources_the_stronger_wins_and_of_equals_the_later(files, pair):
    # max() takes the first of equals, so the later one stands first.
    winner = max(reversed(pair), key=RANK_OF.__getitem__)
    assert resolved(*pair).max_steps == STEPS[winner]


@pytest.mark.parametrize("order", list(itertools.permutations(STEPS))[::7], ids=" ".join)
def test_among_all_sources_it_is_the_same(files, order):
    assert resolved(*order).max_steps == 15
    without = [argument for argument in order if argument != "--max_steps=15"]
    bindings = [argument for argument in without if RANK_OF[argument] == 1]
    assert resolved(*without).max_steps == STEPS[bindings[-1]]


def test_a_flag_for_the_corpus_wins_over_files_and_bindings(files):
    binding = "--gin.load_corpus.path=b.txt"
    assert resolved("--config=a.yaml").corpus == "a.txt"
    assert resolved(binding, "--config=a.yaml").corpus == "b.txt"
    assert resolved("--corpus=c.txt", binding, "--config=a.yaml").corpus == "c.txt"


def test_no_configuration_is_the_default(folder):
    assert resolved() == resolved("--gin_file=base.gin") == resolved("--config=default.yaml")


def test_all_that_is_wrong_on_a_command_line_is_told_at_once(folder):
    (folder / "a.yaml").write_text("n_layer: 3\n")
    arguments = ["--max_steps=1e3", "--gin_search_paths=nope", "--config=a.yaml", "--gin.x=1"]
    with pytest.raises(InputError) as error:
        resolved(*arguments)
    starts = [line.split(": ")[0] for line in error.value.message.splitlines()]
    assert sorted(starts) == ["--gin_search_paths", "--max_steps", "a.yaml:1"]


def test_the_lines_of_a_message_hold_nothing_that_moves_a_cursor():
    told = run.told(InputError("one \x1b[2J\ntwo\x07"))
    assert told == "error: 2 problems\none \\x1b[2J\ntwo\\x07"
    assert run.told(InputError("one\n  a part of it")) == "error: one\n  a part of it"
