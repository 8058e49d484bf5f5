import json

import pytest
import torch

from benchmarks.harness import (
    arguments,
    matrix_rate,
    median_ratio,
    print_result,
    shown,
    take_turns,
    world,
)


def test_cases_take_turns_and_the_first_do_not_count():
    calls = []
    cases = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    seconds = take_turns(cases, repetitions=3, warm_up=2)
    assert calls == ["a", "b"] * 5
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3}
    assert all(second >= 0 for taken in seconds.values() for second in taken)


def test_a_ratio_is_the_median_of_the_turns():
    assert median_ratio([2, 4, 900], [1, 2, 3]) == 2
    with pytest.raises(ValueError, match="zip"):
        median_ratio([1, 2], [1])


def test_the_rate_of_products_is_a_rate(monkeypatch):
    monkeypatch.setattr("benchmarks.harness.RATE_SHAPES", ((8, 8, 8), (16, 16, 16)))
    assert 0 < matrix_rate(torch.bfloat16) < 1e16


def test_numbers_are_shown_with_three_digits():
    assert [shown(cell) for cell in (1.23456, 0.00123456, 12345.6, 7, None, "x")] == [
        "1.23",
        "0.00123",
        "12,346",
        "7",
        "",
        "x",
    ]


def test_a_result_is_a_table_for_people_and_json_for_programs(capsys):
    rows = [{"name": "a", "ms": 1.5}, {"name": "longer", "ms": None}]
    print_result(world(), rows, as_json=False, facts={"rate": 2.0})
    first, versions, rate, empty, head, *table = capsys.readouterr().out.splitlines()
    assert "cores" in first
    assert f"torch {torch.__version__}" in versions
    assert (rate, empty) == ("rate: 2", "")
    assert [head, *table] == ["name     ms", "a       1.5", "longer"]
    print_result(world(), rows, as_json=True, facts={"rate": 2.0})
    printed = json.loads(capsys.readouterr().out)
    assert printed["rows"] == rows
    assert printed["rate"] == 2.0
    assert printed["world"]["threads"] == torch.get_num_threads()


def test_every_program_takes_repetitions_and_json():
    given = arguments("Measures.", repetitions=5).parse_args([])
    assert (given.repetitions, given.json) == (5, False)
    given = arguments("Measures.", 5).parse_args(["--repetitions=2", "--json"])
    assert (given.repetitions, given.json) == (2, True)
