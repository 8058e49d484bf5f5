"""An export, an import, and a run that begins with other weights, killed wherever they are."""

import json
import subprocess
import sys

import pytest

from tests.end_to_end.command_line import PROJECT


@pytest.mark.exhaustive
def test_killed_before_any_change_to_the_disk_they_end_as_if_they_had_not_been(tmp_path):
    words = [sys.executable, "-m", "tests.end_to_end.exchange_crash_points", str(tmp_path)]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tried = json.loads(done.stdout.splitlines()[-1])
    assert tried.keys() == {"exported", "imported", "begun"}
    assert min(tried.values()) > 15, tried
