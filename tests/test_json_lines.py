import json
import os
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.json_lines import append_rows, rewind

rows = st.lists(st.fixed_dictionaries({"step": st.integers(1, 9), "text": st.text()}))


def lines(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_what_json_has_no_number_for_becomes_null(tmp_path):
    path = tmp_path / "rows"
    append_rows(path, [{"step": 1, "loss": 2.5}, {"step": 2, "loss": float("nan")}])
    append_rows(path, [{"step": 3, "loss": float("-inf")}])
    assert lines(path) == [
        {"step": 1, "loss": 2.5},
        {"step": 2, "loss": None},
        {"step": 3, "loss": None},
    ]


@given(rows)
def test_any_text_survives_in_a_line_of_its_own(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("folder") / "rows"
    append_rows(path, rows)
    is_text = not any("\ud800" <= letter <= "\udfff" for row in rows for letter in row["text"])
    assert lines(path) == rows if is_text else len(lines(path)) == len(rows)


@given(
    st.lists(st.integers(1, 18), unique=True).map(sorted),
    st.integers(0, 18),
    st.sampled_from([b"", b'{"step": 1', b'{"step": 1}']),
    st.text(),
)
def test_rewinding_is_to_have_written_no_more(tmp_path_factory, steps, step, torn, text):
    folder = tmp_path_factory.mktemp("folder")
    rows = [{"step": number, "text": text} for number in steps]
    append_rows(folder / "straight", [row for row in rows if row["step"] <= step])
    append_rows(folder / "rewound", rows)
    with (folder / "rewound").open("ab") as stream:
        stream.write(torn)
    left = [number for number in steps if number <= step]
    assert rewind(folder / "rewound", step) == (len(left), max(left, default=0))
    assert (folder / "rewound").read_bytes() == (folder / "straight").read_bytes()
    assert {path.name for path in folder.iterdir()} == {"straight", "rewound"}


def test_no_step_is_there_twice(tmp_path):
    path = tmp_path / "rows"
    append_rows(path, [{"step": step, "at": at} for at, step in enumerate((1, 2, 9, 2, 1, 3, 3))])
    assert rewind(path, 4) == (3, 3)
    assert [(row["step"], row["at"]) for row in lines(path)] == [(1, 0), (2, 1), (3, 5)]


@given(st.lists(st.integers(0, 4), max_size=8), st.integers(0, 9), st.integers(0, 9))
def test_the_samples_of_a_step_stay_together(tmp_path_factory, counts, step, n_again):
    path = tmp_path_factory.mktemp("folder") / "rows"
    places = [(at + 1, index) for at, count in enumerate(counts) for index in range(count)]
    rows = [{"step": at, "sample": index} for at, index in places]
    # A process that goes on may have written the first of them once more.
    append_rows(path, [*rows, *rows[:n_again]])
    rewind(path, step)
    assert lines(path) == [row for row in rows if row["step"] <= step]


def test_a_step_with_one_sample_from_an_older_lab_is_followed_by_those_of_a_newer(tmp_path):
    path = tmp_path / "rows"
    rows = [{"step": 3, "text": "x"}, {"step": 6, "sample": 0}, {"step": 6, "sample": 1}]
    append_rows(path, [*rows, {"step": 7, "sample": -1}, {"step": 7, "sample": True}])
    assert rewind(path, 9) == (3, 6)
    assert lines(path) == rows


@given(st.integers(2, 30), st.data())
def test_one_wrong_number_costs_one_line(tmp_path_factory, n, data):
    path = tmp_path_factory.mktemp("folder") / "rows"
    at, wrong = data.draw(st.integers(0, n - 2)), data.draw(st.integers(1, 60))
    append_rows(path, [{"step": wrong if i == at else i + 1} for i in range(n)])
    left = rewind(path, 40)
    assert left.last_step == n
    assert left.n >= n - 1


def test_a_file_that_is_missing_is_made(tmp_path):
    assert rewind(tmp_path / "rows", 3) == (0, 0)
    assert (tmp_path / "rows").read_bytes() == b""


def test_lines_that_are_none_go(tmp_path):
    path = tmp_path / "rows"
    for line in (
        "[]",
        "{}",
        '{"step": "1"}',
        '{"step": -1}',
        '{"step": true}',
        "[" * 99_999,
        "\0",
        "",
        '{"step": 1}',
    ):
        with path.open("a") as stream:
            stream.write(f"{line}\n")
    with path.open("a") as stream:
        stream.write('{"step": 2}')  # Whole, but for its end: the next line would join it.
    assert rewind(path, 3) == (1, 1)
    assert lines(path) == [{"step": 1}]


def test_a_line_without_an_end_is_not_read_whole(tmp_path):
    path = tmp_path / "rows"
    with path.open("wb") as stream:
        stream.truncate(10**11)
    with pytest.raises(RuntimeError, match=r"rows has a line of [0-9,]+ bytes or more; move it"):
        rewind(path, 0)


def test_lines_that_cannot_be_written_whole_are_not_there_at_all(tmp_path):
    path = tmp_path / "rows"
    append_rows(path, [{"step": 1}])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, limits[1]))
    try:
        with pytest.raises(RuntimeError, match=r"rows cannot be written: File too large"):
            append_rows(path, [{"step": 2, "train_loss": 1.5}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert lines(path) == [{"step": 1}]
    append_rows(path, [{"step": 2}])
    assert lines(path) == [{"step": 1}, {"step": 2}]


def test_a_pipe_is_refused_and_nothing_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "rows")
    with pytest.raises(RuntimeError, match="rows is not a regular file"):
        rewind(tmp_path / "rows", 1)


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "mine").write_text("")
    (tmp_path / "rows").symlink_to(tmp_path / "mine")
    with pytest.raises(RuntimeError, match="rows is not a regular file"):
        rewind(tmp_path / "rows", 0)
    with pytest.raises(RuntimeError, match="rows cannot be written"):
        append_rows(tmp_path / "rows", [{"step": 1}])
    assert (tmp_path / "mine").read_text() == ""


def test_nothing_is_written_into_a_file_that_has_another_name_too(tmp_path):
    append_rows(tmp_path / "rows", [{"step": 1}])
    (tmp_path / "mine").hardlink_to(tmp_path / "rows")
    with pytest.raises(RuntimeError, match="rows is a hard link"):
        rewind(tmp_path / "rows", 0)
