"""Which runs words on the command line mean."""

import pytest

from lm_core.analysis.selection import select_runs
from lm_core.errors import InputError
from tests.made_run import make_run


@pytest.fixture
def runs(folder):
    for name in ("b", "a1", "a2"):
        make_run(folder / "runs" / name)
    (folder / "runs" / "latest").symlink_to("b")
    (folder / "runs" / "notes").mkdir()
    (folder / "runs" / "notes.txt").write_text("")
    return folder / "runs"


def names(*words):
    return [str(run.path) for run in select_runs(words, "--mode=compare")]


def test_directories_are_taken_in_their_order(runs):
    assert names("runs/b", "runs/a1") == ["runs/b", "runs/a1"]


def test_a_pattern_finds_runs_and_passes_over_what_is_none(runs):
    assert names("runs/*") == ["runs/a1", "runs/a2", "runs/b"]
    assert names(str(runs / "a?")) == [str(runs / "a1"), str(runs / "a2")]


@pytest.mark.parametrize(
    "words", [("runs/latest", "runs/b"), ("runs/b", "runs/latest"), ("*/[bl]*",)]
)
def test_a_run_and_the_link_to_it_are_one(runs, words):
    assert names(*words) == ["runs/b"]


def test_a_link_alone_names_its_run(runs):
    assert names("runs/latest") == ["runs/latest"]


def test_a_directory_whose_name_looks_like_a_pattern_is_taken_as_it_is(runs):
    make_run(runs / "lr[1]")
    assert names("runs/lr[1]") == ["runs/lr[1]"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "runs/lates",
            r"--mode=compare: 'runs/lates': there is no such run directory; did you mean runs/lat",
        ),
        ("runs/z*", r"--mode=compare: 'runs/z\*' matches nothing"),
        ("runs/n*", r"--mode=compare: 'runs/n\*' matches no run directory"),
        ("runs/notes", r"runs/notes is no run directory: it has no config.yaml"),
        ("runs/notes.txt", r"runs/notes.txt is no run directory"),
        ("a\0b", r"--mode=compare: 'a\\x00b': there is no such run"),
    ],
)
def test_a_word_that_names_no_run_is_told(runs, word, message):
    with pytest.raises(InputError, match=message):
        select_runs([word], "--mode=compare")


def test_a_study_is_told_with_where_its_runs_are(runs):
    (runs / "notes" / "study.yaml").write_text("")
    with pytest.raises(InputError, match=r"is a study, .*: 'runs/notes/trials/\*'$"):
        select_runs(["runs/notes"], "--mode=compare")


def test_everything_that_is_wrong_is_told_at_once(runs):
    (runs / "a1" / "metrics.jsonl").write_text("")
    with pytest.raises(InputError) as error:
        select_runs(["runs/nope", "runs/a*", "runs/z*"], "--mode=compare")
    lines = error.value.message.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("--mode=compare: runs/a1 has no metrics yet")
