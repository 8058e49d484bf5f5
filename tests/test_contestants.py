import sys

import pytest

from benchmarks.contestants import Contestant
from benchmarks.harness import take_turns

SERVES = """
from benchmarks.contestants import serve
import os, sys, time
def case():
    time.sleep(float(sys.argv[1]))
    if os.environ.get("ENDS"):
        sys.exit("no more")
serve(case, 2)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "test_serves.py").write_text(SERVES)
    monkeypatch.setenv("PYTHONPATH", ":".join([str(tmp_path), *filter(None, sys.path)]))
    return "test_serves"


def test_contestants_take_turns_and_tell_their_own_seconds(module):
    with Contestant(module, ["0.03"], {}) as slow, Contestant(module, ["0"], {}) as quick:
        seconds = take_turns({"slow": slow, "quick": quick}, repetitions=2, warm_up=0)
    assert min(seconds["slow"]) >= 0.03
    assert len(seconds["quick"]) == 2


def test_a_contestant_that_ends_is_told(module):
    with (
        Contestant(module, ["0"], {"ENDS": "1"}) as contestant,
        pytest.raises(RuntimeError, match="a contestant ended"),
    ):
        contestant()
