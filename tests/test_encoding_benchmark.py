import json
import subprocess
import sys

import pytest

from benchmarks.encoding import SCRIPTS, text_of
from tests.end_to_end.command_line import PROJECT


@pytest.mark.exhaustive
def test_the_program_that_measures_encoding_prints_all_tables(tmp_path):
    sizes = ["--megabytes=0.05", "--gigabytes=0.001", "--repetitions=1", f"--folder={tmp_path}"]
    words = [sys.executable, "-m", "benchmarks.encoding", *sizes, "--json"]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=True)
    printed = json.loads(done.stdout)
    assert {row["text"] for row in printed["rows"]} == {"ASCII", *SCRIPTS}
    assert all(row["MB/s"] > 0 for row in printed["rows"])
    assert {row["text"] for row in printed["bpe"]} == {"ASCII", *SCRIPTS}
    assert all(row["one core of package"] > 0 < row["all cores of one"] for row in printed["bpe"])
    assert [row["opened"] for row in printed["large"]] == ["first time", "next time", "verified"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_text_has_the_size_and_the_characters_that_it_should(script):
    letters, others, n_others = SCRIPTS[script]
    text = text_of(letters, others, n_others, 60_000)
    assert text == text_of(letters, others, n_others, 60_000)
    assert set(text) <= {*letters, *others, " "}
    share = sum(character in others for character in text) / len(text)
    assert 0.5 * n_others / 1000 < share < 1.5 * n_others / 1000
