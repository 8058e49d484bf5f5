import io
import os
import sys
from pathlib import Path

import pytest

from lm_core.output import say, warn


@pytest.fixture
def abandoned_pipe():
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        yield stream


def test_a_line_is_there_at_once():
    stream = io.TextIOWrapper(io.BytesIO())
    say("a line", stream)
    assert stream.buffer.getvalue() == b"a line\n"


def test_a_reader_who_goes_away_is_not_missed(abandoned_pipe, capsys):
    for _ in range(3):
        say("a line", abandoned_pipe)
    abandoned_pipe.flush()
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_is_told_once_and_not_missed(capsys):
    with Path("/dev/full").open("w") as stream:
        for _ in range(3):
            say("a line", stream)
    assert capsys.readouterr().err == (
        "warning: the output takes no more, and the run goes on in silence: "
        "[Errno 28] No space left on device\n"
    )


def test_a_closed_stream_is_not_missed():
    stream = io.StringIO()
    stream.close()
    say("a line", stream)


def test_a_warning_goes_to_standard_error(capsys):
    warn("take care")
    assert capsys.readouterr() == ("", "warning: take care\n")


def test_a_warning_that_nobody_reads_is_not_missed(abandoned_pipe, monkeypatch):
    monkeypatch.setattr(sys, "stderr", abandoned_pipe)
    warn("take care")


def test_a_warning_is_one_line_that_moves_no_cursor(capsys):
    warn("a\x1b[31m file\nerror: forged")
    assert capsys.readouterr().err == "warning: a\\x1b[31m file\\nerror: forged\n"


def test_of_several_processes_the_first_one_speaks(capsys, monkeypatch):
    for rank in ("1", "0"):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
        say(f"process {rank}")
        warn(f"process {rank}")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("process 0\n", "warning: process 0\n")
