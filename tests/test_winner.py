import math

import pytest

from lm_core.config.resolution import ConfigSources, FileArgument, resolve
from lm_core.search.space import Choice, Range
from lm_core.search.study_folder import StudyFolder
from lm_core.search.trial_records import COMPLETED, DIVERGED, FreshResult
from lm_core.search.winner import best_text, edge_warnings, fresh_told, mean_and_deviation
from tests.small_studies import BASE, SPACE, study
from tests.test_progress_table import record

FRESH = [FreshResult(11, COMPLETED, 1.0, ""), FreshResult(12, COMPLETED, 2.0, "")]


@pytest.mark.parametrize(
    ("key", "one", "value", "end"),
    [
        ("learning_rate", Range(1e-4, 1e-2, is_log=True), 9e-3, "high"),
        ("learning_rate", Range(1e-4, 1e-2, is_log=True), 1.1e-4, "low"),
        ("learning_rate", Range(1e-4, 1e-2, is_log=True), 5e-3, None),
        ("learning_rate", Range(1e-4, 1e-2), 5e-4, "low"),
        ("dropout", Range(0.0, 0.3), 0.001, None),
        ("dropout", Range(0.0, 0.3), 0.299, "high"),
        ("beta1", Range(0.5, 0.99), 0.51, "low"),
        ("n_layers", Range(1, 8, is_integer=True), 1, None),
        ("n_layers", Range(2, 8, is_integer=True), 2, "low"),
        ("n_layers", Range(2, 8, is_integer=True), 3, None),
        ("n_layers", Range(2, 8, is_log=True, is_integer=True), 8, "high"),
        ("n_layers", Choice((2, 4)), 4, None),
    ],
)
def test_a_best_value_at_an_end_of_its_range_is_told_unless_all_values_end_there(
    key, one, value, end
):
    told = edge_warnings({key: one}, {key: value})
    assert len(told) == (end is not None)
    if end:
        assert f"the best {key}, " in told[0]
        assert f"lies at the {end} end of what was searched, " in told[0]


def test_fresh_seeds_are_told_as_mean_and_spread():
    assert mean_and_deviation(FRESH) == pytest.approx((1.5, math.sqrt(0.5)))
    assert fresh_told(FRESH) == "1.5000 ± 0.7071 nats on 2 fresh seeds"
    assert fresh_told(FRESH[:1]) == "1.0000 nats on 1 fresh seed"
    assert fresh_told([]) == ""


def test_a_fresh_seed_without_a_result_is_told():
    bad = FreshResult(13, DIVERGED, None, "")
    assert fresh_told([*FRESH, bad]) == (
        "1.5000 ± 0.7071 nats on 2 fresh seeds; diverged on seed 13"
    )
    assert fresh_told([bad]) == "on 1 fresh seed none was completed; diverged on seed 13"


def test_the_winner_s_file_gives_its_configuration_from_anywhere(folder, monkeypatch):
    (folder / "text.txt").write_text("text")
    one = study(folder, f"corpus: text.txt\n{BASE}{SPACE}trials: 3\n")
    best = record(1, COMPLETED, 1.25, values={"learning_rate": 3e-4, "dropout": 0.25})
    text = best_text(one, StudyFolder(folder / "studies" / "a\nb"), best, FRESH, 2)
    assert text.startswith("# The best of 2 trials of ")
    (folder / "best.yaml").write_text(text)
    monkeypatch.chdir("/")
    found = resolve(ConfigSources(files=[FileArgument("--config", str(folder / "best.yaml"))]))
    expected = one.values_of(best.values).to_dict() | {"corpus": str(folder / "text.txt")}
    assert found.values.to_dict() == expected
    # 3e-4 is the default, and was searched all the same.
    assert 'learning_rate: 0.0003  # searched: {"log_uniform": [0.0001, 0.1]}' in text
    assert "n_layers" not in text
    assert "# validation loss 1.2500 nats per token with the seed of the study; 1.5000 ±" in text
