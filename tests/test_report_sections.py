"""The parts of a page, but for the curves."""

import pytest

from lm_core.analysis.comparison import compare_runs
from lm_core.analysis.records import read_run
from lm_core.report import sections
from tests.made_run import make_run
from tests.test_report_elements import Reader


def compared(*paths):
    return compare_runs([read_run(path) for path in paths])


def texts(html):
    return " ".join(text.strip() for text in Reader(html).texts if text.strip())


def test_a_run_in_a_few_numbers_has_their_units(tmp_path):
    path = make_run(tmp_path / "a", losses=[3.0] * 4, evaluations={2: 1.5, 4: 2.0}, max_steps=8)
    found = texts(sections.run_tiles(compared(path).runs[0]))
    assert "validation loss 2.0000 nats per token, after step 4" in found
    assert "lowest validation loss 1.5000 nats per token, after step 2" in found
    assert "steps 4 of 8, 16,384 tokens" in found
    assert "speed 1,000 tokens per second, the median" in found
    assert "time 1:00" in found
    assert "parameters 1,234" in found


def test_a_run_that_was_never_evaluated_says_so(tmp_path):
    path = make_run(tmp_path / "a", evaluations={})
    assert "validation loss - never evaluated" in texts(sections.run_tiles(compared(path).runs[0]))


def test_values_that_differ_from_the_default_stand_with_their_sources(tmp_path):
    html = sections.hyperparameters(compared(make_run(tmp_path / "a", n_layers=9)))
    before, everything = html.split("<details>")
    assert "<td>n_layers</td>" in before
    assert '<td class="value wrap">9</td>' in before
    assert '<td class="wrap">made</td>' in before
    assert "<td>dropout</td>" not in before
    assert "<td>dropout</td>" in everything


def test_what_several_runs_share_is_set_apart_from_what_differs(tmp_path):
    a = make_run(tmp_path / "a", n_layers=9, dropout=0.0)
    b = make_run(tmp_path / "b", n_layers=9, dropout=0.3)
    shared, *folded = sections.hyperparameters(compared(a, b)).split("<details>")
    assert "<td>n_layers</td>" in shared
    assert "<td>dropout</td>" not in shared
    assert len(folded) == 3
    assert all("<td>dropout</td>" in part for part in folded[1:])


def test_samples_stand_in_their_order_with_what_made_them(tmp_path):
    path = make_run(tmp_path / "a", samples=[(1, "one"), (3, "<b>three</b>")])
    read = Reader(sections.samples(compared(path).runs))
    assert "b" not in read.names
    steps = [value for name, value in read.attributes if name == "data-step"]
    assert steps == ["1", "3"]
    assert "<b>three</b>" in read.texts
    assert "step 3, prompt 'The', temperature 1.0, seed 42" in read.texts


def test_of_too_many_samples_some_stay_and_the_last_among_them(tmp_path):
    written = [(step, f"{step:04d}" * 2500) for step in range(1, 101)]
    path = make_run(tmp_path / "a", losses=[1.0] * 100, samples=written)
    html = sections.samples(compared(path).runs)
    steps = [int(v) for name, v in Reader(html).attributes if name == "data-step"]
    assert 20 <= len(steps) <= 50
    assert steps[-1] == 100
    assert "samples in between are left out" in html
    assert len(html) < 500_000


def test_runs_without_samples_have_no_such_part(tmp_path):
    assert sections.samples(compared(make_run(tmp_path / "a")).runs) == ""


def test_the_manifest_is_told_fact_by_fact(tmp_path):
    path = make_run(tmp_path / "a", manifest={"platform": "<Linux>", "resumed": [{}, {}]})
    read = Reader(sections.manifests(compared(path).runs))
    facts = dict(zip(read.texts[1::2], read.texts[2::2], strict=True))
    assert facts["platform"] == "<Linux>"
    assert facts["git.commit"] == "c0ffee"
    assert facts["numerics.threads"] == "2"
    assert facts["resumed"] == "2 times"
    assert not [name for name in facts if name.startswith("sources")]


@pytest.mark.parametrize(
    ("cell", "key"),
    [
        ("1.9418", "1.9418"),
        ("1,234", "1234"),
        ("500 of 750", "500"),
        ("1.7983 at 250", "1.7983"),
        ("0:09", "9"),
        ("1:02:03", "3723"),
        ("0:13+", "13"),
        ("-", ""),
    ],
)
def test_cells_sort_by_their_numbers(cell, key):
    assert sections.sort_key(cell) == key


def test_what_names_a_run_sorts_as_it_is_written(tmp_path):
    paths = [make_run(tmp_path / name, sampling_prompt=name) for name in ("1:2", "12 apes")]
    html = sections.results(compared(*paths))
    assert "<td>12 apes</td>" in html
    assert f"<td>{tmp_path}/1:2</td>" in html


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [("completed", "badge good"), ("diverged", "badge bad"), ("stopped by SIGTERM", "badge")],
)
def test_how_a_run_ended_is_seen_at_once(outcome, kind):
    assert Reader(sections.badge(outcome)).attributes == [("class", kind)]
