"""The report of a study."""

import json
import re

import pytest

from lm_core.report.page import MARK
from lm_core.search.progress_table import best_of
from lm_core.search.study_folder import StudyFolder
from lm_core.search.study_page import study_page
from lm_core.search.trial_records import COMPLETED, DIVERGED, FreshResult
from tests.small_studies import BASE, study, tried
from tests.test_report_elements import Reader

FRESH = [FreshResult(11, COMPLETED, 2.1, ""), FreshResult(12, COMPLETED, 2.3, "")]
ATTACK = "</script><script>alert(1)</script><img src=x>"


def page_of(folder, *text, results=(), n=20, change=None):
    one, trials = tried(folder, *text, n=n)
    trials = [change(trial) for trial in trials] if change else trials
    place = folder / "study"
    place.mkdir(exist_ok=True)
    return study_page(one, StudyFolder(place), trials, best_of(trials), list(results))


def data_in(html):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', html)[1]
    )


def texts(html):
    return " ".join(text.strip() for text in Reader(html).texts if text.strip())


def test_it_tells_what_was_found_and_how_it_did_again(folder):
    html = page_of(folder, results=FRESH)
    assert MARK in html[:200]
    told = texts(html)
    assert "the same on fresh seeds 2.2000 ± 0.1414 nats on 2 fresh seeds" in told
    assert "17 completed, 1 pruned, 1 diverged, 1 failed" in told
    assert "trials 20 default" in told
    assert "learning_rate log_uniform [0.0001, 0.1] my.yaml:6" in told


def test_every_chart_has_its_place_and_its_numbers(folder):
    html = page_of(folder)
    places = [value for name, value in Reader(html).attributes if name == "data-chart"]
    assert places == [
        "history",
        "curves",
        "parallel",
        "importance",
        "slice-learning_rate",
        "slice-dropout",
    ]
    data = data_in(html)
    assert [trial["number"] for trial in data["trials"]] == list(range(20))
    assert data["trials"][0]["steps"] == [10, 20, 30, 40]
    assert data["trials"][5]["loss"] is None
    low, high = data["keys"][0]["low"], data["keys"][0]["high"]
    assert (low, high, data["keys"][0]["is_log"]) == (1e-4, 1e-1, True)
    assert {share["name"] for share in data["importance"]["shares"]} == {"learning_rate", "dropout"}


def test_choices_are_drawn_at_their_places(folder):
    space = "search:\n  norm: {choice: [layernorm, rmsnorm]}\n  dropout: {uniform: [0.0, 0.5]}\n"
    _, trials = tried(folder)
    trials = [trial._replace(values={"norm": "rmsnorm", "dropout": 0.1}) for trial in trials]
    (folder / "study").mkdir()
    one = study(folder, f"{BASE}{space}trials: 4\n")
    html = study_page(one, StudyFolder(folder / "study"), trials, best_of(trials), [])
    assert data_in(html)["keys"][0]["options"] == ["layernorm", "rmsnorm"]
    assert data_in(html)["trials"][3]["values"] == {"norm": 1, "dropout": 0.1}


def test_a_best_value_at_the_end_of_its_range_is_warned_of(folder):
    def at_the_end(trial):
        loss = 1.0 if trial.values["learning_rate"] > 0.09 else 2.0
        return trial._replace(loss=loss if trial.loss else None)

    html = page_of(folder, change=at_the_end)
    assert "The best learning_rate, 0.1, lies at the high end" in html
    assert "The best learning_rate" not in page_of(folder)


def test_a_study_that_has_not_come_to_its_end_says_so(folder):
    one, trials = tried(folder, n=6)
    (folder / "study").mkdir()
    html = study_page(one, StudyFolder(folder / "study"), trials, best_of(trials), [], False)
    assert "The study has not come to its end: the same command goes on with it." in html
    assert "What mattered" not in html


def test_a_study_without_a_completed_trial_is_drawn_all_the_same(folder):
    one, trials = tried(folder, n=6)
    trials = [trial._replace(outcome=DIVERGED, loss=None) for trial in trials]
    (folder / "study").mkdir()
    html = study_page(one, StudyFolder(folder / "study"), trials, None, [], False)
    assert "no trial was completed" in html
    assert data_in(html)["best"] is None


def test_with_few_trials_nothing_is_said_about_what_mattered(folder):
    html = page_of(folder, n=5)
    assert "Too few trials" in html
    assert data_in(html)["importance"] is None


def test_trials_that_have_a_page_are_linked(folder):
    (folder / "study" / "trials" / "0003").mkdir(parents=True)
    (folder / "study" / "trials" / "0003" / "report.html").write_text("")
    links = [v for name, v in Reader(page_of(folder)).attributes if name == "href"]
    assert links == ["trials/0003/report.html"]


@pytest.mark.parametrize("place", ["reason", "value"])
def test_no_text_of_a_trial_becomes_anything_but_text(folder, place):
    def attacked(trial):
        if place == "reason":
            return trial._replace(reason=ATTACK)
        return trial._replace(values={**trial.values, "dropout": 0.1}, owner=ATTACK)

    read = Reader(page_of(folder, change=attacked))
    assert read.names.count("script") == 2
    assert "img" not in read.names
