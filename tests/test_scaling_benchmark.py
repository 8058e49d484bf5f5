import json
import subprocess
import sys

import pytest

from benchmarks.scaling import predicted, table_of_clusters
from tests.end_to_end.command_line import PROJECT


def test_without_messages_many_machines_divide_the_work():
    assert predicted(8.0, 0, 0.0, 1.0, 4) == 2.0


def test_a_gradient_goes_round_in_a_ring():
    # Each of 4 machines sends 6 quarters of 400 bytes at 100 bytes a second, and waits 6 times.
    assert predicted(0.0, 400, 0.5, 100.0, 4) == pytest.approx(6 * (1 + 0.5))


def test_a_cluster_has_no_more_machines_than_a_batch_has_sequences():
    rows = table_of_clusters(1.0, 10**6, 1e-4, batch_size=8)
    assert [list(row)[1:] for row in rows] == [["2 machines", "4 machines", "8 machines"]] * 3
    shares = [[int(share.rstrip("%")) for share in list(row.values())[1:]] for row in rows]
    assert all(row == sorted(row, reverse=True) for row in shares)
    assert shares == sorted(shares)


def benchmark(folder, batch_size, *more):
    text = "n_layers: 1\nd_model: 16\nn_heads: 2\nd_ff: 32\nmax_seq_len: 16\n"
    (folder / "tiny.yaml").write_text(f"{text}batch_size: {batch_size}\n")
    words = [sys.executable, "-m", "benchmarks.scaling", f"--config={folder / 'tiny.yaml'}", *more]
    return subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=240)


@pytest.mark.exhaustive
def test_the_program_that_measures_scaling_prints_all_cases(tmp_path):
    done = benchmark(tmp_path, 8, "--repetitions=2", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["rows"]) == 6
    assert result["rows"][0]["against 1 process, 1 thread"] == 1
    assert all(row["ms a step"] > 0 for row in result["rows"])
    assert result["efficiency of 2 processes"] > 0


def test_what_cannot_be_measured_is_told_in_a_line(tmp_path):
    done = benchmark(tmp_path, 1)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("batch_size 1 is too small for two processes")
