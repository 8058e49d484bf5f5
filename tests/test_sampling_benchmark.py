import json
import subprocess
import sys

import pytest

from tests.end_to_end.command_line import PROJECT


@pytest.mark.exhaustive
def test_the_program_that_measures_sampling_prints_all_contestants_for_both_batches():
    pytest.importorskip("transformers")
    words = [sys.executable, "-m", "benchmarks.sampling", "--repetitions=1", "--tokens=2"]
    done = subprocess.run(
        [*words, "--json"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    rows = json.loads(done.stdout)["rows"]
    names = ["lm_core", "transformers", "without its cache", "the window moves"]
    assert [(row["batch"], row["written by"]) for row in rows] == [
        (batch, name) for batch in ("1", "16") for name in names
    ]
    assert all(row["tokens/s"] > 0 for row in rows)
    assert [row["times as fast is lm_core"] for row in rows[::4]] == [1, 1]
