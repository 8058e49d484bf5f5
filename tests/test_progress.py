import contextlib
import io
import os
import pty
import time

import pytest

from lm_core.progress import BytesProgress, ProgressBar, ProgressLines, training_progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_lines_come_first_now_and_then_and_last(clock):
    stream = io.StringIO()
    with ProgressLines(1, 100, stream, clock) as progress:
        for step in range(1, 101):
            clock.now += 1
            progress.update(step, 2.5, 1234.5)
    steps = [int(line.split()[1].split("/")[0]) for line in stream.getvalue().splitlines()]
    assert steps == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 100]


def test_a_line_tells_loss_speed_and_time_left(clock):
    stream = io.StringIO()
    progress = ProgressLines(1, 4000, stream, clock)
    clock.now += 2
    progress.update(1, 2.34567, 12345.6)
    assert stream.getvalue() == "step 1/4000  loss 2.3457 nats  12,346 tokens/s  2:13:18 left\n"


def test_the_time_left_follows_the_pace(clock):
    stream = io.StringIO()
    progress = ProgressLines(101, 200, stream, clock)
    for step in (110, 120, 130, 140, 150):
        clock.now += 30
        progress.update(step, 1.0, 1.0)
    assert stream.getvalue().splitlines()[-1].endswith("2:30 left")


def seconds_left(stream):
    total = 0
    for part in stream.getvalue().splitlines()[-1].split()[-2].split(":"):
        total = 60 * total + int(part)
    return total


def test_a_slow_first_step_is_not_taken_for_the_pace(clock):
    stream = io.StringIO()
    progress = ProgressLines(1, 750, stream, clock)
    # While loops are compiled; then 17 steps a second.
    for step, seconds in ((1, 13.5), (171, 10)):
        clock.now += seconds
        progress.update(step, 1.0, 1.0)
    assert 579 / 17 < seconds_left(stream) < 1.6 * 579 / 17


@pytest.mark.parametrize("pace", [0.1, 10])
def test_the_time_left_follows_a_pace_that_changes(clock, pace):
    stream = io.StringIO()
    progress = ProgressLines(1, 2000, stream, clock)
    step = 0
    for seconds_a_step in (1, 1, pace, pace, pace):
        clock.now += 20
        step += round(20 / seconds_a_step)
        progress.update(step, 1.0, 1.0)
    assert abs(seconds_left(stream) / ((2000 - step) * pace) - 1) < 0.1


def test_an_evaluation_is_not_taken_for_the_pace_but_counted_as_often_as_so_far(clock):
    stream = io.StringIO()
    progress = ProgressLines(1, 2400, stream, clock)
    for step in range(1, 301):
        clock.now += 1
        looks = 20 if step % 100 == 0 else 0
        clock.now += looks
        progress.update(step, 1.0, 1.0, looks)
    # Right after an evaluation, as far from the next as can be.
    clock.now += 10
    progress.update(310, 1.0, 1.0)
    truth = 2090 + 20 * 21
    assert abs(seconds_left(stream) / truth - 1) < 0.02


def test_looks_between_two_lines_are_not_taken_for_the_pace(clock):
    stream = io.StringIO()
    progress = ProgressLines(1, 1000, stream, clock)
    for step in range(1, 101):
        clock.now += 0.75
        progress.update(step, 1.0, 1.0, 0.25)
    assert abs(seconds_left(stream) / (0.75 * (1000 - 92)) - 1) < 0.05


def test_notes_are_whole_and_literal_however_long():
    stream = io.StringIO()
    text = "sample '[bold]x[/bold]' " + "y" * 500
    ProgressLines(1, 10, stream).note(text)
    assert stream.getvalue() == text + "\n"


def test_when_nobody_reads_any_more_training_goes_on():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    progress = ProgressLines(1, 10, Closed())
    for step in range(1, 11):
        progress.update(step, 1.0, 1.0)
        progress.note("x")


def test_when_the_terminal_goes_away_training_goes_on():
    class Terminal(io.StringIO):
        is_gone = False

        def isatty(self):
            return True

        def write(self, text):
            if self.is_gone:
                raise OSError(5, "Input/output error")
            return super().write(text)

    terminal = Terminal()
    with training_progress(1, 10, terminal) as progress:
        progress.note("seen")
        terminal.is_gone = True
        for step in range(1, 11):
            progress.update(step, 1.0, 1.0)
            progress.note("unseen")
    assert "seen" in terminal.getvalue()
    assert "unseen" not in terminal.getvalue()


def test_a_step_without_a_line_costs_next_to_nothing():
    progress = ProgressLines(1, 10**9, io.StringIO())
    progress.update(1, 1.0, 1.0)
    start = time.perf_counter()
    for step in range(2, 10_002):
        progress.update(step, 1.0, 1.0)
    assert time.perf_counter() - start < 1.0  # a hundred times what it takes


def test_a_stream_that_is_no_terminal_gets_plain_lines():
    assert isinstance(training_progress(1, 10, io.StringIO()), ProgressLines)


def everything_from(terminal):
    """All that was written to a terminal whose other end is closed."""
    parts = []
    with contextlib.suppress(OSError):  # How Linux says that there is no more.
        while part := os.read(terminal, 4096):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode()


def test_a_terminal_gets_a_bar_with_notes_above_it():
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as stream:
        progress = training_progress(1, 10, stream)
        assert isinstance(progress, ProgressBar)
        with progress:
            progress.update(3, 2.5, 1234.0)
            progress.note("step 3  validation loss [bold]2.5")
            progress.update(10, 2.0, 1234.0)
    shown = everything_from(reader)
    assert "step 3  validation loss [bold]2.5" in shown
    assert "step 10/10  loss 2.0000 nats" in shown


def test_work_on_bytes_tells_size_speed_and_time_left_now_and_then_and_the_whole_at_the_end(clock):
    stream = io.StringIO()
    with BytesProgress("encoding the corpus", 4 * 10**9, stream, clock) as progress:
        for _ in range(40):
            clock.now += 0.5
            progress.add(10**8)
    assert stream.getvalue().splitlines() == [
        "encoding the corpus: 200 of 4,000 MB  200 MB/s  0:19 left",
        "encoding the corpus: 2,200 of 4,000 MB  200 MB/s  0:09 left",
        "encoding the corpus: 4,000 MB in 20.0 s  200 MB/s",
    ]


def test_work_that_fails_tells_no_end(clock):
    stream = io.StringIO()

    def fail():
        with BytesProgress("reading", 100, stream, clock) as progress:
            progress.add(50)
            raise ValueError("no text")

    with pytest.raises(ValueError, match="no text"):
        fail()
    assert stream.getvalue() == ""


def test_work_on_bytes_says_what_it_does_where_the_output_of_a_program_is_not(capsys):
    with BytesProgress("reading the corpus", 2 * 10**6) as progress:
        progress.add(2 * 10**6)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("reading the corpus: 2 MB in ")


def test_work_on_bytes_has_a_bar_on_a_terminal_that_is_drawn_seldom():
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as stream, BytesProgress("reading", 10**9, stream) as progress:
        progress.add(10**6)
        for _ in range(1000):
            progress.add(1)
    shown = everything_from(reader)
    assert "reading: 1 of 1,000 MB" in shown
    assert "reading: 1 MB in" in shown
    assert shown.count("of 1,000 MB") < 100
