"""Pages of studies and of many runs, opened by a real browser."""

import numpy as np
import pytest

from lm_core.analysis.records import read_run
from lm_core.report.page import page
from lm_core.search.study_folder import StudyFolder
from lm_core.search.study_page import study_page
from lm_core.search.trial_records import FreshResult
from tests.chromium import needs_chromium
from tests.made_run import make_run
from tests.small_studies import tried

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def study(tmp_path_factory, browser):
    """The page of a study of twenty trials."""
    folder = tmp_path_factory.mktemp("study")
    one, trials = tried(folder)
    (folder / "study").mkdir()
    file = folder / "report.html"
    results = [FreshResult(11, "completed", 2.1, "")]
    file.write_text(study_page(one, StudyFolder(folder / "study"), trials, trials[6], results))
    return file


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1200])
def test_the_page_of_a_study_draws_every_trial_in_every_chart(browser, study, width, theme):
    browser.show(width, theme=theme)
    browser.open(study)
    counts = browser.run("""
      const count = (name, what) =>
        document.querySelectorAll(`figure[data-chart="${name}"] ${what}`).length;
      return {
        history: count("history", "[data-trial]"), curves: count("curves", "path[data-trial]"),
        parallel: count("parallel", "path[data-trial]"), bars: count("importance", ".bar"),
        rates: count("slice-learning_rate", "[data-trial]"), rings: count("history", ".ring"),
      };
    """)
    # One trial diverged and one failed before their first evaluation.
    expected = {"history": 20, "curves": 18, "parallel": 18, "bars": 2, "rates": 20, "rings": 1}
    assert counts == expected
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []
    browser.show(1200)


def test_a_trial_that_is_chosen_stands_out_everywhere(browser, study):
    browser.open(study)
    browser.run("document.querySelector('tr[data-row=\"3\"]').click()")
    chosen = browser.run("""
      return [...document.querySelectorAll(".chosen")].map(({ dataset }) =>
        dataset.trial ?? dataset.row);
    """)
    assert set(chosen) == {"3"}
    assert len(chosen) == 6
    said = browser.run("return document.querySelector('[data-chosen]').textContent")
    assert said.startswith("trial 3, completed, ")


def test_a_study_of_nothing_but_failures_is_drawn_without_complaint(browser, tmp_path):
    one, trials = tried(tmp_path)
    failed = [t._replace(outcome="failed", loss=None, losses={}, steps=0) for t in trials]
    (tmp_path / "study").mkdir()
    file = tmp_path / "report.html"
    file.write_text(study_page(one, StudyFolder(tmp_path / "study"), failed, None, [], False))
    browser.open(file)
    marks = "return document.querySelectorAll('figure[data-chart=\"history\"] .bad').length"
    assert browser.run(marks) == 20
    assert browser.complaints() == []


def test_seeds_without_an_evaluation_leave_the_mean_of_the_others_whole(browser, tmp_path):
    ended = {"outcome": "diverged"}
    paths = [make_run(tmp_path / "1", losses=[3.0] * 9, evaluations={3: 2.5, 9: 2.0}, seed=1)]
    paths += [
        make_run(
            tmp_path / f"{s}", losses=[3.0] * 2, evaluations={}, seed=s, max_steps=9, manifest=ended
        )
        for s in (2, 3)
    ]
    file = tmp_path / "report.html"
    file.write_text(page([read_run(path) for path in paths]))
    browser.open(file)
    drawn = browser.run("""
      return [...document.querySelectorAll("figure path.line[data-points]")].map(({ dataset }) =>
        [dataset.column, Number(dataset.points)]);
    """)
    assert [n for name, n in drawn if name == "val_loss"] == [2]
    assert [n for name, n in drawn if name == "train_loss"] == [9, 2, 2]
    assert browser.complaints() == []


@pytest.mark.exhaustive
def test_fifty_runs_of_ten_thousand_points_are_small_and_open_at_once(browser, tmp_path):
    evaluations = {step: 2 + 1 / step for step in range(500, 10_001, 500)}
    runs = [
        read_run(
            make_run(
                tmp_path / f"{number}",
                losses=np.random.default_rng(number).normal(2, 0.1, size=10_000).tolist(),
                evaluations=evaluations,
                seed=number % 5,
                learning_rate=0.001 * (1 + number // 5),
            )
        )
        for number in range(50)
    ]
    file = tmp_path / "report.html"
    file.write_text(page(runs))
    assert file.stat().st_size <= 5_000_000
    browser.show(1200)
    # Whatever else the machine does, it makes no page faster than it is.
    assert min(browser.open(file) for _ in range(3)) <= 2.0
    browser.run("document.querySelector('input[name=\"mean\"]').click()")
    drawn = browser.run("""
      return [...document.querySelectorAll('path.line[data-column="train_loss"]')].map(
        (path) => Number(path.dataset.points));
    """)
    assert drawn == [10_000] * 50
    assert browser.complaints() == []
