"""The parts of a page, but for the curves: results, samples, hyperparameters, manifests."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lm_core.analysis.comparison import Compared, Comparison
from lm_core.analysis.printing import (
    N_RESULTS,
    difference_sentences,
    group_rows,
    run_rows,
    wall_time,
)
from lm_core.analysis.records import RunRecord
from lm_core.analysis.summary import Evaluated, RunSummary
from lm_core.config.hyperparameters import KEYS
from lm_core.config.rendering import canonical, yaml_value
from lm_core.config.table import default
from lm_core.progress import duration
from lm_core.report.curves import Chart
from lm_core.report.elements import Html, details, element, facts, join, table

# Samples of all runs of a page together, in characters: as much as a book, far less than curves.
_MOST_CHARACTERS = 400_000
# How a run ends that went as it was meant to, and such that did not.
_GOOD, _BAD = ("completed",), ("diverged", "failed", "killed")
_UNKNOWN = "unknown"


def badge(outcome: str) -> Html:
    """How a run ended, as a mark."""
    return element("span", outcome, class_=f"badge {_kind(outcome)}".strip())


def _kind(outcome: str) -> str:
    return "good" if outcome in _GOOD else "bad" if outcome in _BAD else ""


def run_tiles(run: Compared) -> Html:
    """One run in a few numbers."""
    summary, record = run.summary, run.record
    n_tokens = summary.n_steps * record.n_tokens_a_step
    return tiles(
        [
            ("validation loss", *_loss(summary.result, "nats per token")),
            ("bits per byte", *_bits(summary.result)),
            ("lowest validation loss", *_loss(summary.best, "nats per token")),
            ("steps", f"{summary.n_steps:,}", f"of {summary.max_steps:,}, {n_tokens:,} tokens"),
            ("speed", *_speed(summary)),
            (
                "time",
                wall_time(summary.wall_seconds, summary.is_wall_complete),
                f"of training {duration(summary.training_seconds)}",
            ),
            ("parameters", f"{summary.n_parameters:,}" if summary.n_parameters else "-", ""),
            ("seed", str(summary.seed), ""),
        ]
    )


def tiles(entries: Sequence[tuple[str, str, str]]) -> Html:
    """Numbers that are seen first, each with its name above and its unit below."""
    return element(
        "dl",
        *(
            element("div", element("dt", name), element("dd", value, element("small", unit)))
            for name, value, unit in entries
        ),
        class_="tiles",
    )


def _loss(evaluated: Evaluated | None, unit: str) -> tuple[str, str]:
    if evaluated is None:
        return "-", "never evaluated"
    return f"{evaluated.loss:.4f}", f"{unit}, after step {evaluated.step:,}"


def _bits(evaluated: Evaluated | None) -> tuple[str, str]:
    return (f"{evaluated.bits_per_byte:.4f}", "of the same") if evaluated else ("-", "")


def _speed(summary: RunSummary) -> tuple[str, str]:
    if summary.tokens_per_second is None:
        return "-", ""
    return f"{summary.tokens_per_second:,.0f}", "tokens per second, the median"


def results(comparison: Comparison) -> Html:
    """Several runs in a table, and what their differences show."""
    heading, *rows = run_rows(comparison)
    n_named = len(heading) - N_RESULTS
    parts = [table(heading, [_coloured(row, n_named) for row in rows], is_sortable=True)]
    if comparison.has_seeds:
        parts.append(element("h2", "Over seeds"))
        heading, *rows = group_rows(comparison)
        parts.append(table(heading, rows))
    parts += [element("p", sentence) for sentence in difference_sentences(comparison)]
    return join(parts)


def _coloured(row: Sequence[str], n_named: int) -> list[Html]:
    """A row of runs: cells that sort by their number, and an outcome that is seen at once.

    Args:
        row: The cells.
        n_named: How many of them name the run, before its results.
    """
    *cells, outcome = row
    return [
        *(element("td", cell) for cell in cells[:n_named]),
        *(element("td", cell, data_value=sort_key(cell)) for cell in cells[n_named:]),
        element("td", outcome, class_=_kind(outcome)),
    ]


def sort_key(cell: str) -> str:
    """The number of a result without what is written around it; empty where there is none."""
    if cell == "-":
        return ""
    number = cell.split(" ")[0].replace(",", "").rstrip("+")
    if ":" in number:  # A time: its parts count sixty each.
        seconds = 0
        for part in number.split(":"):
            seconds = seconds * _SIXTY + int(part) if part.isdecimal() else seconds
        return str(seconds)
    return number


# Seconds in a minute, and minutes in an hour.
_SIXTY = 60


def figures(charts: Sequence[Chart]) -> Html:
    """The places of the charts; what draws them finds them by their names."""
    drawn = [_figure(chart) for chart in charts if not chart.is_of_hook]
    of_hooks = [_figure(chart) for chart in charts if chart.is_of_hook]
    # The first one has a row of its own.
    columns = "thirds" if len(drawn) % 3 == 1 else "halves"
    parts = [element("div", *drawn, class_=f"charts {columns}")]
    if of_hooks:
        heading = element("h2", "What hooks report")
        parts += [heading, element("div", *of_hooks, class_="charts")]
    return join(parts)


def _figure(chart: Chart) -> Html:
    # An input has no end.
    box = Html(f'<input type="checkbox" data-log="{chart.name}"{" checked" * chart.is_log}>')
    caption = element(
        "figcaption",
        element("h3", chart.title),
        element("span", chart.unit, class_="faint"),
        element("label", box, " logarithmic", class_="push"),
    )
    return element("figure", caption, data_chart=chart.name)


def samples(runs: Sequence[Compared]) -> Html:
    """What the runs wrote as training went on."""
    share = _MOST_CHARACTERS // max(1, len(runs))
    blocks = [_samples(run, share, is_alone=len(runs) == 1) for run in runs if run.record.samples]
    return join([element("h2", "Samples"), *blocks]) if blocks else Html("")


def _samples(run: Compared, most_characters: int, is_alone: bool) -> Html:
    texts = run.record.samples
    kept, n_left_out = _spread(texts, most_characters)
    parts = [_sample(sample) for sample in kept]
    if n_left_out:
        note = f"{n_left_out:,} samples in between are left out; samples.jsonl has them all"
        parts.append(element("p", note, class_="faint"))
    block = element("div", *parts, class_="samples")
    return block if is_alone else details(run.label, block)


def _spread(
    texts: Sequence[Mapping[str, Any]], most_characters: int
) -> tuple[list[Mapping[str, Any]], int]:
    """As many samples as there is room for, spread over the run, the last among them."""
    length = sum(len(str(sample.get("text"))) for sample in texts)
    stride = max(1, -(-length // most_characters))
    kept = list(texts[::-1][::stride])[::-1]
    return kept, len(texts) - len(kept)


def _sample(sample: Mapping[str, Any]) -> Html:
    settings = [
        f"{name} {sample[name]}"
        for name in ("temperature", "top_k", "top_p", "seed")
        if sample.get(name) is not None
    ]
    heading = f"step {sample['step']:,}, prompt {str(sample.get('prompt'))!r}, "
    text = element("pre", str(sample.get("text")))
    about = element("p", heading + ", ".join(settings), class_="faint")
    return element("article", about, text, data_step=str(sample["step"]))


def hyperparameters(comparison: Comparison) -> Html:
    """What differs from the default, with its source; and everything, folded away."""
    first = comparison.runs[0].record
    shared = [key for key in KEYS if key not in comparison.keys]
    changed = [key for key in shared if _is_changed(first, key)]
    several = len(comparison.runs) > 1
    heading = "Hyperparameters that all runs share" if several else "Hyperparameters"
    parts = [element("h2", heading)]
    if changed:
        note = f"{len(changed)} of {len(KEYS)} differ from the default."
        parts += [element("p", note, class_="faint"), _values(first, changed)]
    else:
        parts.append(element("p", "None differs from the default."))
    parts.append(details(f"All {len(shared)}", _values(first, shared)))
    if several:
        parts += [
            details(f"{run.label}: where it was set", _values(run.record, comparison.keys))
            for run in comparison.runs
            if comparison.keys
        ]
    return join(parts)


def _values(run: RunRecord, keys: Sequence[str]) -> Html:
    rows = [
        (
            key,
            element("td", yaml_value(getattr(run.values, key)), class_="value wrap"),
            element("td", yaml_value(default(key)), class_="value"),
            element("td", run.sources.get(key, _UNKNOWN), class_="wrap"),
        )
        for key in keys
    ]
    return table(("hyperparameter", "value", "default", "set by"), rows)


def _is_changed(run: RunRecord, key: str) -> bool:
    return canonical(getattr(run.values, key)) != canonical(default(key))


def manifests(runs: Sequence[Compared]) -> Html:
    """What is known about each run as a whole."""
    parts: list[Html] = [element("h2", "Manifest" if len(runs) == 1 else "Manifests")]
    for run in runs:
        pairs = list(_facts(run.record.manifest))
        parts.append(
            facts(pairs) if len(runs) == 1 else details(str(run.record.path), facts(pairs))
        )
    return join(parts)


def _facts(manifest: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, fact in manifest.items():
        path = f"{prefix}{name}"
        # The sources stand beside the values.
        if path == "sources":
            continue
        if isinstance(fact, Mapping):
            yield from _facts(fact, f"{path}.")
        elif path == "resumed" and isinstance(fact, list):
            yield path, f"{len(fact)} times" if fact else "never"
        elif fact is not None:
            yield path, fact if isinstance(fact, str) else json.dumps(fact)
