"""Kills at every moment and damage in every place, counted; and what the page says of them."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.end_to_end.command_line import PROJECT


def output(*arguments):
    """What a Python program prints; it has to end well."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def faults(n_kills, n_flips):
    return output("benchmarks/faults.py", f"--kills={n_kills}", f"--flips={n_flips}")


def number(pattern, text):
    (found,) = re.findall(rf"^{pattern}", text, re.M)
    return int(found)


@pytest.mark.parametrize("every", [60, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_killed_before_any_change_it_makes_to_the_disk_a_run_ends_as_if_it_had_not_been(
    tmp_path, every
):
    told = json.loads(output("-m", "tests.end_to_end.crash_points", tmp_path, every))
    assert told["changes"] > 100
    assert told["tried"] == -(-told["changes"] // every)
    assert told["in_saves"] >= told["tried"] // 4


@pytest.mark.exhaustive
def test_no_kill_loses_anything_and_no_damage_passes_unseen():
    told = faults(24, 650)
    assert "runs that ended bit-identical: 24 of 24\n" in told
    assert "damages detected: 650 of 650\n" in told
    # Every kind of damage is among them, done to every file.
    assert re.search(r"flip \d+, cut \d+, zero \d+, lengthen \d+, lose \d+, mix \d+\n", told)
    assert number(r"kills that fell into a save: (\d+)$", told) >= 4


def test_the_page_shows_what_the_benchmark_prints():
    page = (PROJECT / "docs" / "reliability.md").read_text()
    (shown,) = re.findall(
        r"\$ python benchmarks/faults.py --kills=200 --flips=1000\n(.*?)```", page, re.S
    )
    assert number(r"kills: (\d+)$", shown) == 200
    assert number(r"kills that fell into a save: (\d+)$", shown) >= 50
    assert "runs that ended bit-identical: 200 of 200\n" in shown
    assert "damages detected: 1000 of 1000\n" in shown
    readme = (PROJECT / "README.md").read_text()
    assert f"{number('kills that fell into a save: ([0-9]+)$', shown)} of them in" in readme
    subjects = [re.sub(r"\d+", "N", line) for line in shown.splitlines()]
    told = faults(0, 65)
    assert "damages detected: 65 of 65\n" in told
    assert subjects == [re.sub(r"\d+", "N", line) for line in told.splitlines()]
