"""A report: one file that needs nothing else, whatever the runs say."""

import json
import re

import pytest

from lm_core.analysis.records import read_run
from lm_core.report.page import MARK, page
from tests.made_run import make_run
from tests.test_report_elements import Reader

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'><!--"


def html_of(*paths):
    return page([read_run(path, needs_metrics=False) for path in paths])


def data_in(html):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', html)[1]
    )


def test_a_page_of_one_run_has_all_its_parts(tmp_path):
    html = html_of(make_run(tmp_path / "my-run", samples=[(2, "Once")]))
    read = Reader(html)
    assert MARK in html[:200]
    assert "my-run" in read.texts
    for part in ("Curves", "Samples", "Hyperparameters", "Manifest"):
        assert part in read.texts
    places = [value for name, value in read.attributes if name == "data-chart"]
    assert places == [chart["name"] for chart in data_in(html)["charts"]]


def test_a_page_of_several_runs_tells_what_differs(tmp_path):
    paths = [make_run(tmp_path / f"r{n}", n_layers=n, seed=1) for n in (2, 4)]
    html = html_of(*paths)
    assert "What differs: n_layers." in html
    assert "one seed each" in html
    assert '<input type="checkbox" name="mean"' not in html
    assert [run["label"] for run in data_in(html)["runs"]] == ["n_layers 2", "n_layers 4"]


def test_with_seeds_their_mean_can_be_drawn(tmp_path):
    html = html_of(*(make_run(tmp_path / f"r{n}", seed=n) for n in (1, 2, 3)))
    assert '<input type="checkbox" name="mean"' in html
    assert "Over seeds" in Reader(html).texts


def test_nothing_is_loaded_from_anywhere(tmp_path):
    html = html_of(make_run(tmp_path / "a", samples=[(1, "see https://example.com")]))
    read = Reader(html)
    names = {name for name, _ in read.attributes}
    assert not names & {"src", "href", "srcset", "style", "action"}
    assert not [name for name in names if name.startswith("on")]
    policies = [v for name, v in read.attributes if name == "content" and "default-src" in v]
    assert policies[0].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policies[0]
    assert not re.search(r"(url\((?!#)|@import|fetch\(|XMLHttpRequest|import\()", html)


@pytest.mark.parametrize(
    "place", ["samples", "manifest", "prompt", "hook", "hyperparameter", "name"]
)
def test_no_text_of_a_run_becomes_anything_but_text(tmp_path, place):
    name = "a"
    facts = {}
    if place == "samples":
        facts["samples"] = [(1, ATTACK)]
    elif place == "manifest":
        facts["manifest"] = {"platform": ATTACK, "outcome": ATTACK, "reason": ATTACK}
    elif place == "prompt":
        facts |= {"sampling_prompt": ATTACK}
    elif place == "hook":
        facts["columns"] = {ATTACK: [1.0, 2.0, 3.0]}
    elif place == "hyperparameter":
        facts["corpus"] = ATTACK
    else:
        name = ATTACK.replace("/", "")
    usual = html_of(make_run(tmp_path / "usual", samples=[(1, "x")], columns={"h": [1.0] * 3}))
    html = html_of(make_run(tmp_path / name, **facts))
    read = Reader(html)
    assert "img" not in read.names
    # Data and program, and nothing of what the text would have.
    assert read.names.count("script") == Reader(usual).names.count("script") == 2
    data_in(html)


def test_a_run_without_a_step_has_a_page_that_says_so(tmp_path):
    html = html_of(make_run(tmp_path / "a", losses=(), evaluations={}))
    assert "There are no metrics to draw." in html
