"""Figures for papers."""

import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from lm_core.analysis.comparison import compare_runs
from lm_core.analysis.records import read_run
from lm_core.errors import InputError, MachineError
from lm_core.report.curves import charts
from lm_core.report.figures import draw_figures, lines
from tests.made_run import make_run


def drawn(*paths):
    """The lines of each chart, by its name."""
    comparison = compare_runs([read_run(path) for path in paths])
    found = charts([run.record for run in comparison.runs])
    return {chart.name: list(lines(chart, comparison)) for chart in found}


def test_each_chart_is_a_png_and_an_svg(tmp_path):
    path = make_run(tmp_path / "a", losses=[3.0, 2.5, 2.0, 1.5])
    files = list(draw_figures([read_run(path)], tmp_path / "new" / "figures"))
    assert [file.name for file in files[:2]] == ["loss.png", "loss.svg"]
    assert len(files) == 8
    assert files[0].read_bytes().startswith(b"\x89PNG")
    texts = [node.text for node in ET.parse(files[1]).iter() if node.tag.endswith("text")]
    assert {"steps", "Loss, nats per token", "training", "validation"} <= set(texts)


def test_the_same_runs_give_the_same_svg(tmp_path):
    run = read_run(make_run(tmp_path / "a"))
    contents = []
    for name in ("one", "other"):
        files = list(draw_figures([run], tmp_path / name))
        contents.append([file.read_bytes() for file in files if file.suffix == ".svg"])
    assert contents[0] == contents[1]


def test_one_run_has_a_line_for_each_metric(tmp_path):
    path = make_run(tmp_path / "a", losses=[3.0, 2.0, 1.0], evaluations={2: 2.5, 3: 2.4})
    training, validation = drawn(path)["loss"]
    assert (training.label, validation.label) == ("training", "validation")
    assert training.raw.tolist() == [3.0, 2.0, 1.0]
    assert (validation.steps.tolist(), validation.values.tolist()) == ([2, 3], [2.5, 2.4])
    assert validation.raw is None
    assert training.tone != validation.tone


def test_seeds_are_drawn_as_their_mean_with_a_band(tmp_path):
    paths = [
        make_run(tmp_path / f"{seed}", seed=seed, evaluations={2: 2.0 + seed, 3: 1.0 + seed})
        for seed in (1, 2, 3)
    ]
    (line,) = drawn(*paths)["validation-loss"]
    assert line.values.tolist() == [4.0, 3.0]
    half = 4.30265 / np.sqrt(3)
    assert line.low.tolist() == pytest.approx([4 - half, 3 - half], abs=1e-4)
    assert line.high.tolist() == pytest.approx([4 + half, 3 + half], abs=1e-4)


def test_two_seeds_have_a_mean_and_no_band(tmp_path):
    paths = [make_run(tmp_path / f"{seed}", seed=seed) for seed in (1, 2)]
    (line,) = drawn(*paths)["training-loss"]
    assert line.low is None


def test_a_mean_is_drawn_where_all_seeds_have_points(tmp_path):
    long = make_run(tmp_path / "a", losses=[3.0] * 5, seed=1, max_steps=5)
    short = make_run(tmp_path / "b", losses=[1.0] * 2, seed=2, max_steps=5)
    (line,) = drawn(long, short)["training-loss"]
    assert (line.steps.tolist(), line.values.tolist()) == ([1, 2], [2.0, 2.0])


def test_without_matplotlib_what_installs_it_is_told(tmp_path, monkeypatch):
    run = read_run(make_run(tmp_path / "a"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"--figures needs the package matplotlib.*\[figures\]"):
        list(draw_figures([run], tmp_path / "figures"))
    assert not (tmp_path / "figures").exists()


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path):
    run = read_run(make_run(tmp_path / "a"))
    (tmp_path / "figures").write_text("")
    with pytest.raises(InputError, match=r"--figures=.*figures cannot be made"):
        list(draw_figures([run], tmp_path / "figures"))


def test_a_figure_that_cannot_be_written_is_told(tmp_path):
    run = read_run(make_run(tmp_path / "a"))
    (tmp_path / "figures" / "loss.png").mkdir(parents=True)
    with pytest.raises(MachineError, match=r"loss.png cannot be written"):
        list(draw_figures([run], tmp_path / "figures"))


def test_a_dollar_in_a_name_begins_no_formula(tmp_path):
    columns = {"a$\\frac{$/b": [1.0, 2.0, 3.0]}
    paths = [make_run(tmp_path / f"$x{n}$", columns=columns, n_layers=n) for n in (1, 2)]
    files = list(draw_figures([read_run(path) for path in paths], tmp_path / "figures"))
    texts = [node.text for node in ET.parse(files[-1]).iter() if node.tag.endswith("text")]
    assert "a$\\frac{$/b, reported by a hook" in texts


def test_a_seed_that_diverged_does_not_cut_the_mean_off(tmp_path):
    paths = [make_run(tmp_path / f"{s}", losses=[3.0] * 5, seed=s) for s in (1, 2, 3)]
    ended = {"outcome": "diverged"}
    short = {"losses": [1.0] * 2, "evaluations": {}, "max_steps": 5, "manifest": ended}
    paths.append(make_run(tmp_path / "4", seed=4, **short))
    mean, alone = drawn(*paths)["training-loss"]
    assert mean.steps.tolist() == [1, 2, 3, 4, 5]
    assert alone.steps.tolist() == [1, 2]
    assert mean.tone == alone.tone
    # Only the three have evaluations.
    assert len(drawn(*paths)["validation-loss"]) == 1
