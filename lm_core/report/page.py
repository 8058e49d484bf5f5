"""A report: runs as one file of HTML that needs nothing else and sends nothing anywhere."""

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from lm_core.analysis.comparison import Comparison, compare_runs
from lm_core.analysis.records import RunRecord
from lm_core.report import sections
from lm_core.report.curves import Chart, charts, page_data
from lm_core.report.elements import Html, element, join

# By this a page is known as one of the lab, which may be written anew.
MARK = "<!-- a report of lm_core -->"
# What draws a page of runs.
_SCRIPTS = ("axes.js", "tables.js", "numbers.js", "drawing.js", "page.js")


def page(runs: Sequence[RunRecord]) -> str:
    """The HTML of a report on some runs, at least one."""
    comparison = compare_runs(runs)
    drawn = charts(runs)
    title, data = _title(comparison), page_data(comparison)
    body = join(
        [
            header(title, *_marks(comparison)),
            *_overview(comparison),
            _controls(comparison, drawn, data["window"]),
            sections.figures(drawn),
            sections.samples(comparison.runs),
            sections.hyperparameters(comparison),
            sections.manifests(comparison.runs),
            footer(),
        ]
    )
    return document(title, body, data, _SCRIPTS)


def document(title: str, body: Html, data: dict[str, Any], scripts: Sequence[str]) -> str:
    """A whole page around its parts.

    Nothing can be loaded by it and no script runs in it but its own, by the policy in its head
    (https://www.w3.org/TR/CSP3).

    Args:
        title: Its title.
        body: What it shows.
        data: What its scripts draw.
        scripts: The names of the scripts, each with what stands in those before it.
    """
    style, script = _own("page.css"), "".join(map(_own, scripts))
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    # No text of a run can end the element that it stands in.
    plain = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return "\n".join(
        [
            "<!doctype html>",
            MARK,
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            element("title", title),
            f"<style>{style}</style>",
            "</head>",
            element("body", body),
            f'<script type="application/json" id="data">{plain}</script>',
            f"<script>{script}</script>",
            "</html>",
            "",
        ]
    )


def _own(name: str) -> str:
    return (resources.files("lm_core.report") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _title(comparison: Comparison) -> str:
    if len(comparison.runs) == 1:
        return _name(comparison.runs[0].record.path)
    return f"{len(comparison.runs)} runs"


def _name(path: Path) -> str:
    return path.name or path.resolve().name


def header(title: str, *marks: str) -> Html:
    """The head of a page: its title, and marks beside it."""
    theme = element("button", "Light or dark", type="button", data_theme_switch=True, class_="push")
    return element("header", element("h1", title), *marks, theme)


def footer() -> Html:
    """The foot of a page: what made it, and when."""
    made = f"Made by lm_core {metadata.version('lm_core')}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    return element("footer", made)


def _marks(comparison: Comparison) -> list[Html]:
    if len(comparison.runs) > 1:
        return []
    return [sections.badge(comparison.runs[0].summary.outcome)]


def _overview(comparison: Comparison) -> list[Html]:
    if len(comparison.runs) > 1:
        what = ", ".join(comparison.keys) or "nothing but their directories"
        return [
            element("p", f"What differs: {what}.", class_="faint"),
            sections.results(comparison),
        ]
    (run,) = comparison.runs
    reason = run.summary.reason
    return [
        *([element("p", reason)] if reason else []),
        sections.run_tiles(run),
    ]


def _controls(comparison: Comparison, drawn: Sequence[Chart], window: int) -> Html:
    """What changes how curves are drawn; hidden where no script draws any.

    Args:
        comparison: The runs.
        drawn: The charts.
        window: Steps over which curves are smoothed at first.
    """
    heading = element("h2", "Curves")
    if not drawn:
        return join([heading, element("p", "There are no metrics to draw.")])
    axis = join(
        element("label", Html(f'<input type="radio" name="x" value="{x}"{checked}>'), f" {x}")
        for x, checked in (("steps", " checked"), ("tokens", ""), ("time", ""))
    )
    smoothing = element(
        "label",
        "smoothing ",
        Html('<input type="range" name="smoothing" min="0" max="100" aria-label="smoothing">'),
        element("output", "1 step" if window == 1 else f"{window:,} steps", data_window=True),
    )
    mean = element("label", Html('<input type="checkbox" name="mean" checked>'), " mean over seeds")
    whole = element("label", Html('<input type="checkbox" name="whole">'), " whole range")
    back = element("button", "Show all steps", type="button", data_zoomed=True, hidden=True)
    parts = [axis, smoothing, whole, *([mean] if comparison.has_seeds else []), back]
    controls = element("div", *parts, class_="controls drawn", hidden=True)
    note = (
        "Bold lines are averages over the smoothing window, pale ones every step; dotted is what "
        "was planned. Drag over a chart to look closer, click twice to see all again."
    )
    return join(
        [
            heading,
            element("noscript", element("p", "The curves are drawn by a script in this file.")),
            controls,
            element("div", class_="legend"),
            element("p", note, class_="faint drawn", hidden=True),
        ]
    )
