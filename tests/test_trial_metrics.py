import json

import pytest

from lm_core.search.trial_metrics import Ending, MetricsTail, ending_of


def line(step, **values):
    return json.dumps({"step": step, **values}) + "\n"


@pytest.fixture
def metrics(folder):
    return folder / "metrics.jsonl"


def test_losses_come_as_they_are_written_and_whole_lines_only(folder, metrics):
    tail = MetricsTail(folder)
    tail.look()
    assert (tail.step, tail.losses) == (0, {})
    metrics.write_text(line(1) + line(2, val_loss=3.0))
    tail.look()
    assert (tail.step, tail.losses) == (2, {2: 3.0})
    with metrics.open("a") as stream:
        stream.write(line(3) + line(4, val_loss=2.0)[:-3])
        stream.flush()
        tail.look()
        assert (tail.step, tail.losses) == (3, {2: 3.0})
        stream.write(line(4, val_loss=2.0)[-3:])
    tail.look()
    assert (tail.step, tail.losses) == (4, {2: 3.0, 4: 2.0})


def test_a_run_that_goes_on_from_an_earlier_step_is_followed(folder, metrics):
    tail = MetricsTail(folder)
    metrics.write_text("".join(line(n) for n in range(1, 9)))
    tail.look()
    shorter = folder / "shorter"
    shorter.write_text(line(1) + line(2))
    shorter.replace(metrics)
    with metrics.open("a") as stream:
        stream.write("".join(line(n, val_loss=1.0 * n) for n in range(3, 20)))
    tail.look()
    assert tail.step == 19
    assert sorted(tail.losses) == list(range(3, 20))


@pytest.mark.parametrize(
    "odd",
    ["nonsense\n", "[]\n", "3\n", '{"val_loss": 1}\n', '{"step": "1", "val_loss": 1}\n', "\0\n"],
)
def test_lines_that_are_none_are_passed_over(folder, metrics, odd):
    metrics.write_text(line(1, val_loss=2.0) + odd + line(3))
    tail = MetricsTail(folder)
    tail.look()
    assert (tail.step, tail.losses) == (3, {1: 2.0})


@pytest.mark.parametrize("loss", ["null", "NaN", "Infinity", '"low"', "true"])
def test_a_loss_that_is_no_number_is_none(folder, metrics, loss):
    metrics.write_text(f'{{"step": 4, "val_loss": {loss}}}\n')
    tail = MetricsTail(folder)
    tail.look()
    assert (tail.step, tail.losses) == (4, {})


def test_the_result_is_the_last_loss_or_the_best(folder, metrics):
    tail = MetricsTail(folder)
    assert tail.result(is_best=False) is None
    metrics.write_text(line(1, val_loss=2.0) + line(2, val_loss=1.0) + line(3, val_loss=1.5))
    tail.look()
    assert tail.result(is_best=False) == 1.5
    assert tail.result(is_best=True) == 1.0


def test_the_end_of_a_run_is_in_its_manifest(folder):
    manifest = {"outcome": "diverged", "reason": "too fast", "last_step": 3}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert ending_of(folder) == Ending("diverged", "too fast", 3)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"outcome": 3, "last_step": "x"}'])
def test_where_there_is_no_word_of_an_end_there_is_none(folder, text):
    assert ending_of(folder / "nowhere") == Ending("", "", 0)
    (folder / "manifest.json").write_text(text)
    assert ending_of(folder) == Ending("", "", 0)
