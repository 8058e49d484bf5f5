"""The curves of runs as figures for papers: PNG and SVG, drawn by matplotlib."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lm_core.analysis.comparison import Comparison, Group, compare_runs
from lm_core.analysis.records import RunRecord
from lm_core.analysis.statistics import FEWEST_PAIRS, student_factor
from lm_core.errors import InputError
from lm_core.extras import needed
from lm_core.json_lines import cannot_write
from lm_core.report.curves import EXACT, NAMES, Chart, charts, members, planned
from lm_core.report.series import SMOOTHED_SHARE, smoothed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg")
# Dots per inch of a PNG: sharp in print at the width of a column.
_RESOLUTION = 200
# Inches: the width and height of a figure that fits a column of text.
_SIZE = (6.4, 4.0)
# Colours that people tell apart whatever they see of colours, in the order of the page (Okabe and
# Ito 2008, "Color Universal Design", https://jfly.uni-koeln.de/color).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4a4f57")
# With so many lines of one colour each has a dash of its own.
_DASHES = ("-", (0, (6, 3)), (0, (2, 2)), (0, (7, 2, 2, 2)))
# More names than these hide what they name.
_MOST_NAMES = 12
# Widths of lines in points: of results, of points before smoothing, and around bands.
_LINE, _RAW, _NO_LINE = 1.5, 0.7, 0.0
# How much of what lies below lines shows: of points before smoothing, and of bands.
_RAW_SHOWS, _BAND_SHOWS = 0.3, 0.18
# The colour of what was planned, which is nobody's result.
_GREY = "#5b6470"


class Line(NamedTuple):
    """What is drawn of a metric.

    Attributes:
        label: Its name.
        tone: The number of its colour and dash.
        steps: The step of each point.
        values: The points.
        raw: The same before smoothing; None where nothing is smoothed.
        low: The lower end of a band; None: there is none.
        high: The upper end.
    """

    label: str
    tone: int
    steps: np.ndarray
    values: np.ndarray
    raw: np.ndarray | None
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def draw_figures(runs: Sequence[RunRecord], folder: Path) -> Iterator[Path]:
    """Draws each chart of some runs, and gives the files one by one.

    Args:
        runs: The runs.
        folder: Where to; it is made where it is missing.

    Raises:
        InputError: matplotlib is not installed, or the folder cannot be made.
        MachineError: A file cannot be written.
    """
    matplotlib = needed("matplotlib", "figures", "--figures")
    figure_module = needed("matplotlib", "figures", "--figures", "matplotlib.figure")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--figures={folder} cannot be made: {error.strerror}") from error
    comparison = compare_runs(runs)
    # Letters stay letters in an SVG, and the same runs give the same file.
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "lm_core",
        "axes.grid": True,
        "grid.color": "#e8ebef",
    }
    for chart in charts(runs):
        with matplotlib.rc_context(settings):
            figure = figure_module.Figure(figsize=_SIZE, layout="constrained")
            _draw(figure.subplots(), chart, comparison)
            for form in FORMATS:
                path = folder / f"{chart.name}.{form}"
                metadata = {"Date": None} if form == "svg" else {}
                try:
                    figure.savefig(path, dpi=_RESOLUTION, metadata=metadata)
                except OSError as error:
                    raise cannot_write(path, error) from error
                yield path


def _draw(axes: "Axes", chart: Chart, comparison: Comparison) -> None:
    drawn = list(lines(chart, comparison))
    for line in drawn:
        colour = _COLOURS[line.tone % len(_COLOURS)]
        dash = _DASHES[line.tone // len(_COLOURS) % len(_DASHES)]
        if line.low is not None and line.high is not None:
            axes.fill_between(
                line.steps, line.low, line.high, color=colour, alpha=_BAND_SHOWS, lw=_NO_LINE
            )
        if line.raw is not None:
            axes.plot(line.steps, line.raw, color=colour, alpha=_RAW_SHOWS, lw=_RAW)
        label = _plain(line.label)
        axes.plot(line.steps, line.values, color=colour, ls=dash, lw=_LINE, label=label)
    if chart.name == "learning-rate" and len(comparison.runs) == 1:
        _draw_planned(axes, comparison.runs[0].record)
    if chart.is_log:
        axes.set_yscale("log", nonpositive="mask")
    elif chart.is_from_zero:
        axes.set_ylim(bottom=0)
    axes.set(xlabel="steps", ylabel=_plain(f"{chart.title}, {chart.unit}"))
    names = [line for line in drawn if line.label]
    if 1 < len(names) <= _MOST_NAMES:
        axes.legend(frameon=False, fontsize="small")


def _plain(text: str) -> str:
    """A text in which no dollar begins a formula."""
    return text.replace("$", r"\$")


def _draw_planned(axes: "Axes", run: RunRecord) -> None:
    """The learning rate that a run was to have, over all of its steps."""
    for curve in planned(run).values():
        axes.plot(curve.steps, curve.values, color=_GREY, ls=":", lw=_RAW, zorder=0)


def lines(chart: Chart, comparison: Comparison) -> Iterator[Line]:
    """What a chart draws: a line for each metric of one run, or for each of several runs.

    Runs that differ in the seed alone are drawn as their mean; of three or more, with the band
    that holds the mean of all seeds with 95 % (Student's). Those that did not come to their end are
    drawn for themselves.
    """
    alone = len(comparison.runs) == 1
    for index, column in enumerate(chart.columns):
        for place, group in enumerate(comparison.groups):
            tone = index if alone else place
            label = NAMES.get(column, chart.title) if alone else _label(group, comparison)
            together, apart = members(comparison, group)
            found = [_line(comparison.runs[number].record, column) for number in together]
            parts = [part for part in found if part is not None]
            if parts:
                line = _mean(parts) if len(parts) > 1 else parts[0]
                yield line._replace(label=label, tone=tone)
            for number in apart:
                rest = _line(comparison.runs[number].record, column)
                if rest is not None:
                    yield rest._replace(label=comparison.runs[number].label, tone=tone, raw=None)


def _label(group: Group, comparison: Comparison) -> str:
    return group.label if comparison.has_seeds else comparison.runs[group.runs[0]].label


def _line(run: RunRecord, column: str) -> Line | None:
    is_finite = np.isfinite(run.column(column))
    if not is_finite.any():
        return None
    steps, values = run.steps[is_finite], run.column(column)[is_finite]
    if column in EXACT:
        return Line("", 0, steps, values, None)
    window = SMOOTHED_SHARE * float(run.steps[-1])
    return Line("", 0, steps, smoothed(steps, values, window), values)


def _mean(parts: Sequence[Line]) -> Line:
    """The mean of several lines where all of them have points."""
    steps = parts[0].steps
    for part in parts[1:]:
        steps = np.intersect1d(steps, part.steps)
    values = np.stack([part.values[np.isin(part.steps, steps)] for part in parts])
    mean = values.mean(axis=0)
    if len(parts) < FEWEST_PAIRS:
        return Line("", 0, steps, mean, None)
    half = student_factor(len(parts) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(parts))
    return Line("", 0, steps, mean, None, mean - half, mean + half)
