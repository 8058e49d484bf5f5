"""The report, opened by a real browser: what is drawn is what is on record."""

import json

import numpy as np
import pytest

from lm_core.analysis.comparison import compare_runs
from lm_core.analysis.records import read_run
from lm_core.report import figures
from lm_core.report.curves import charts
from lm_core.report.page import page
from tests.chromium import needs_chromium
from tests.made_run import make_run

pytestmark = needs_chromium
ATTACK = '</script><script>document.title = "taken"</script><img src=x onerror=alert(1)>'


def losses(n, seed=0):
    noise = np.random.default_rng(seed).normal(0, 0.1, size=n)
    return (2 + 3 / np.sqrt(np.arange(1, n + 1)) + noise).tolist()


@pytest.fixture(scope="module")
def one(tmp_path_factory, browser):
    """A run of everything that can be drawn, and its page."""
    folder = tmp_path_factory.mktemp("one")
    path = make_run(
        folder / "run",
        losses=losses(700),
        evaluations={step: 2 + 1 / step for step in range(100, 701, 100)},
        samples=[(step, f"text after {step} {ATTACK}") for step in (100, 400, 700)],
        columns={
            "norm/blocks.0": [1 + step / 700 for step in range(700)],
            "skipped_batches": [None] * 650 + [1] * 50,
            "tokens_per_second": [1000.0 + step for step in range(700)],
        },
        max_steps=1000,
        warmup_steps=50,
        learning_rate_schedule="cosine",
        manifest={"outcome": "stopped by SIGTERM", "reason": ATTACK},
    )
    file = folder / "report.html"
    file.write_text(page([read_run(path)]))
    return path, file


@pytest.fixture(scope="module")
def several(tmp_path_factory, browser):
    """Runs of two configurations with three seeds each, and their page."""
    folder = tmp_path_factory.mktemp("several")
    paths = [
        make_run(
            folder / f"d{dropout}-s{seed}",
            losses=losses(300, seed),
            evaluations={s: 2 + dropout + seed / 10 + 1 / s for s in range(50, 301, 50)},
            samples=[(300, f"seed {seed}")],
            seed=seed,
            dropout=dropout,
        )
        for dropout in (0.0, 0.2)
        for seed in (1, 2, 3)
    ]
    file = folder / "report.html"
    file.write_text(page([read_run(path) for path in paths]))
    return paths, file


def points(browser):
    """For each chart and metric that is drawn, how many points its lines stand for."""
    return browser.run("""
      const found = {};
      document.querySelectorAll("figure").forEach((figure) => {
        figure.querySelectorAll("path.line[data-points]").forEach((path) => {
          const name = `${figure.dataset.chart}/${path.dataset.column}`;
          (found[name] ||= []).push(Number(path.dataset.points));
        });
      });
      return found;
    """)


def drawn(browser, chart):
    """The lines of a chart as they were computed in the page."""
    return browser.run(
        """
        const plain = (numbers) => numbers ? [...numbers] : null;
        return document.querySelector(`figure[data-chart="${arguments[0]}"]`).view.drawn.map(
          ({ label, xs, ys, band }) => ({
            label, xs: plain(xs), ys: plain(ys), low: plain(band?.low), high: plain(band?.high) }));
        """,
        chart,
    )


def click(browser, selector):
    browser.run("document.querySelectorAll(arguments[0]).forEach((node) => node.click())", selector)


def test_every_curve_has_as_many_points_as_the_record(browser, one):
    browser.show(1200)
    browser.open(one[1])
    assert points(browser) == {
        "loss/train_loss": [700],
        "loss/val_loss": [7],
        "learning-rate/learning_rate": [700],
        "gradient-norm/grad_norm": [700],
        "speed/tokens_per_second": [700],
        "skipped/skipped_batches": [50],
        "hook-0/norm/blocks.0": [700],
    }
    assert browser.complaints() == []


def test_no_text_of_a_run_does_anything_in_the_page(browser, one):
    browser.open(one[1])
    assert browser.run("return document.title") == "run"
    assert browser.run("return document.images.length") == 0
    texts = browser.run("return [...document.querySelectorAll('pre')].map((p) => p.textContent)")
    assert texts[0] == f"text after 100 {ATTACK}"


def test_the_page_smooths_as_the_figures_do(browser, one):
    browser.open(one[1])
    record = read_run(one[0])
    comparison = compare_runs([record])
    for chart in charts([record]):
        lines = list(figures.lines(chart, comparison))
        in_page = drawn(browser, chart.name)
        assert [line["label"] for line in in_page] == [line.label for line in lines]
        for mine, theirs in zip(lines, in_page, strict=True):
            assert theirs["xs"] == mine.steps.tolist()
            assert theirs["ys"] == pytest.approx(mine.values.tolist(), rel=1e-5)


def test_curves_may_be_drawn_against_tokens_and_time(browser, one):
    browser.open(one[1])
    click(browser, 'input[name="x"][value="tokens"]')
    n_tokens = read_run(one[0]).n_tokens_a_step
    assert drawn(browser, "loss")[1]["xs"] == [n_tokens * step for step in range(100, 701, 100)]
    click(browser, 'input[name="x"][value="time"]')
    speeds = 1000.0 + np.arange(700)
    seconds = np.cumsum(n_tokens / speeds)[99::100]
    assert drawn(browser, "loss")[1]["xs"] == pytest.approx(seconds.tolist(), rel=1e-3)
    axis = browser.run("return document.querySelector('figure svg').textContent")
    assert "time of training" in axis
    assert browser.complaints() == []


def test_the_planned_schedule_is_drawn_to_its_end(browser, one):
    browser.open(one[1])
    last = browser.run("""
      const path = document.querySelector('figure[data-chart="learning-rate"] path.planned');
      const box = path.getBBox(), view = path.closest("figure").view;
      return [box.x + box.width, view.margin.left + view.inner.width, view.right];
    """)
    assert last[0] == pytest.approx(last[1], abs=1)
    assert last[2] == 1000


def test_everything_that_can_be_changed_changes_without_complaint(browser, several):
    browser.show(1200)
    browser.open(several[1])
    before = browser.run("return document.querySelector('figure svg').outerHTML")
    for selector in (
        'input[name="mean"]',
        'input[name="whole"]',
        "input[data-log]",
        'input[name="x"][value="time"]',
        "[data-theme-switch]",
        "th button",
        ".legend button:first-child",
    ):
        click(browser, selector)
    browser.run("""
      const slider = document.querySelector('input[name="smoothing"]');
      for (const value of [0, 100, 30]) {
        slider.value = value;
        slider.dispatchEvent(new Event("input"));
      }
    """)
    assert browser.run("return document.querySelector('figure svg').outerHTML") != before
    assert browser.complaints() == []


def test_seeds_are_drawn_as_their_mean_with_a_band_as_in_the_figures(browser, several):
    browser.open(several[1])
    records = [read_run(path) for path in several[0]]
    comparison = compare_runs(records)
    for chart in charts(records)[:2]:
        lines = list(figures.lines(chart, comparison))
        in_page = drawn(browser, chart.name)
        assert [line["label"] for line in in_page] == ["dropout 0.0", "dropout 0.2"]
        for mine, theirs in zip(lines, in_page, strict=True):
            assert theirs["ys"] == pytest.approx(mine.values.tolist(), rel=1e-5)
            assert theirs["low"] == pytest.approx(mine.low.tolist(), rel=1e-4, abs=1e-5)
            assert theirs["high"] == pytest.approx(mine.high.tolist(), rel=1e-4, abs=1e-5)
    click(browser, 'input[name="mean"]')
    assert points(browser)["validation-loss/val_loss"] == [6] * 6


def test_a_click_on_a_name_hides_its_curves(browser, several):
    browser.open(several[1])
    click(browser, ".legend button:first-child")
    assert [line["label"] for line in drawn(browser, "validation-loss")] == ["dropout 0.2"]
    click(browser, ".legend button:first-child")
    assert len(drawn(browser, "validation-loss")) == 2


def test_the_table_is_sorted_by_a_click_on_a_column(browser, several):
    browser.open(several[1])
    column = """
      const table = document.querySelector("table.sortable");
      const heads = [...table.tHead.rows[0].cells];
      const place = heads.findIndex((cell) => cell.textContent === "final nats");
      heads[place].querySelector("button").click();
      return [...table.tBodies[0].rows].map((row) => Number(row.cells[place].textContent));
    """
    rising = browser.run(column)
    assert rising == sorted(rising)
    assert rising != browser.run(column)
    assert browser.run(column) == rising


def test_samples_are_looked_at_one_step_after_the_other(browser, one):
    browser.open(one[1])
    shown = """
      return [...document.querySelectorAll("article")]
        .filter((article) => article.checkVisibility()).map((article) => article.dataset.step)
    """
    assert browser.run(shown) == ["700"]
    browser.run("""
      const slider = document.querySelector(".samples input");
      slider.value = 0;
      slider.dispatchEvent(new Event("input"));
    """)
    assert browser.run(shown) == ["100"]


def test_whoever_points_at_a_chart_sees_its_numbers(browser, one):
    browser.show(1200)
    browser.open(one[1])
    browser.run("""
      const svg = document.querySelector("figure svg"), box = svg.getBoundingClientRect();
      const place = { clientX: box.left + box.width / 2, clientY: box.top + 50, bubbles: true };
      svg.dispatchEvent(new PointerEvent("pointermove", place));
    """)
    told = browser.run("return document.querySelector('.tip').textContent")
    assert "steps" in told
    assert "training" in told
    assert "validation" in told


def test_a_part_of_the_steps_can_be_looked_at_closer_and_left_again(browser, one):
    browser.show(1200)
    browser.open(one[1])
    browser.run("""
      const svg = document.querySelector("figure svg"), box = svg.getBoundingClientRect();
      const send = (kind, share) => svg.isConnected && svg.dispatchEvent(new PointerEvent(kind, {
        clientX: box.left + share * box.width, clientY: box.top + 50, pointerType: "mouse",
        bubbles: true }));
      send("pointerdown", 0.3); send("pointermove", 0.5); send("pointerup", 0.6);
    """)
    left, right = browser.run("""
      const { left, right } = document.querySelector("figure").view;
      return [left, right];
    """)
    assert 180 < left < 220 < 400 < right < 440
    click(browser, "[data-zoomed]")
    assert browser.run("return document.querySelector('figure').view.right") == 700
    assert browser.complaints() == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1200])
@pytest.mark.parametrize("name", ["one", "several"])
def test_the_page_fits_its_window_and_can_be_read_in_any_light(
    browser, request, name, width, theme
):
    browser.show(width, theme=theme)
    browser.open(request.getfixturevalue(name)[1])
    assert browser.run("return document.documentElement.scrollWidth") <= width
    seen = json.loads(
        browser.run("""
          const style = (selector, property) =>
            getComputedStyle(document.querySelector(selector))[property];
          return JSON.stringify({
            ground: style("body", "backgroundColor"), text: style("body", "color"),
            faint: style(".faint", "color"), axis: style("svg text", "fill"),
            lines: [0, 1, 2, 3, 4, 5, 6].map((tone) => {
              const line = document.querySelector("path.line");
              line.setAttribute("class", `line c${tone}`);
              return getComputedStyle(line).stroke;
            }),
          });
        """)
    )
    ground = luminance(seen["ground"])
    assert (ground > 0.9) == (theme == "light")
    # WCAG 2.2, https://www.w3.org/TR/WCAG22: 4.5 for texts (1.4.3), 3 for graphics (1.4.11).
    for text in ("text", "faint", "axis"):
        assert contrast(ground, luminance(seen[text])) >= 4.5
    for line in seen["lines"]:
        assert contrast(ground, luminance(line)) >= 3
    browser.show(1200)


def luminance(colour):
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one, other):
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)
