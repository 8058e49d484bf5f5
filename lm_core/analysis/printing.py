"""``--mode=compare``: runs side by side, printed."""

import csv
import json
import sys
from collections.abc import Iterator
from typing import Any

from lm_core.analysis.comparison import Compared, Comparison, Group, compare_runs
from lm_core.analysis.selection import select_runs
from lm_core.analysis.statistics import CONFIDENCE, FEWEST_PAIRS, Difference
from lm_core.analysis.summary import Evaluated, RunSummary
from lm_core.output import print_table
from lm_core.progress import duration
from lm_core.request import Request

# What stands where nothing is known.
_UNKNOWN = "-"
_NOT_COMPARED = "evaluated on different texts, so that their losses do not compare"


def compare(request: Request) -> None:
    """Prints what differs among runs, what came of them, and what of that is more than noise.

    Raises:
        InputError: Some are no runs, or cannot be read.
    """
    comparison = compare_runs(select_runs(request.compared, "--mode=compare"))
    if request.format == "json":
        print(json.dumps(document(comparison), indent=2))
    elif request.format == "csv":
        _print_csv(comparison)
    else:
        _print_tables(comparison)


def document(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain data, for programs; losses are in nats per token."""
    return {
        "differing": comparison.keys,
        "runs": [_plain_run(run) for run in comparison.runs],
        "groups": [
            {
                "group": group.letter,
                "label": group.label,
                "runs": [str(comparison.runs[place].record.path) for place in group.runs],
                "results": {str(seed): loss for seed, loss in group.results.items()},
                "summary": group.summary._asdict() if group.summary else None,
            }
            for group in comparison.groups
        ],
        "differences": [
            {
                "group": comparison.groups[place].letter,
                "reference": comparison.groups[comparison.reference or 0].letter,
                "confidence": comparison.confidence,
                "unit": unit,
                **(difference._asdict() if difference else {}),
            }
            for place, difference, unit in comparison.differences
        ],
    }


def _plain_run(run: Compared) -> dict[str, Any]:
    summary = run.summary._asdict()
    for name in ("final", "best", "result"):
        evaluated = summary[name]
        summary[name] = evaluated._asdict() if evaluated else None
    values = run.record.values.to_dict()
    return {
        "run": str(run.record.path),
        "label": run.label,
        "differing": {key: values[key] for key in run.differing},
        **summary,
    }


def _print_csv(comparison: Comparison) -> None:
    """One line a run; what is not known is empty."""
    rows = [_flat(run) for run in comparison.runs]
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _flat(run: Compared) -> dict[str, Any]:
    summary = run.summary._asdict()
    columns: dict[str, Any] = {"run": run.record.path, **run.differing}
    columns["seed"] = summary.pop("seed")
    for name, value in summary.items():
        if name in ("final", "best", "result"):
            parts = value or Evaluated(*(None,) * len(Evaluated._fields))
            columns |= {f"{name}_{part}": fact for part, fact in parts._asdict().items()}
        else:
            columns[name] = value
    return columns


def _print_tables(comparison: Comparison) -> None:
    print_table(run_rows(comparison))
    if comparison.has_seeds:
        print()
        print_table(group_rows(comparison))
    sentences = list(difference_sentences(comparison))
    if sentences:
        print()
        print("\n".join(sentences))


def run_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The table of runs, its heading first: what differs, and what came of it."""
    keys = [key for key in comparison.keys if key != "seed"]
    # Where all have one seed, the column would say nothing that the title of each run does not.
    seeds = ["seed"] if "seed" in comparison.keys else []
    letters = (
        {place: [group.letter] for group in comparison.groups for place in group.runs}
        if comparison.has_seeds
        else {}
    )
    heading = (*([""] if letters else []), "run", *keys, *seeds, *_RESULTS)
    rows = [
        (
            *letters.get(place, []),
            str(run.record.path),
            *(run.differing[key] for key in (*keys, *seeds)),
            *_results(run.summary),
        )
        for place, run in enumerate(comparison.runs)
    ]
    return [heading, *rows]


# What came of a run, and how many columns that is.
_RESULTS = ("steps", "final nats", "best nats", "bits/byte", "tokens/s", "wall time", "outcome")
N_RESULTS = len(_RESULTS)


def _results(summary: RunSummary) -> tuple[str, ...]:
    steps = f"{summary.n_steps:,}"
    if summary.n_steps != summary.max_steps:
        steps += f" of {summary.max_steps:,}"
    speed, wall = summary.tokens_per_second, summary.wall_seconds
    return (
        steps,
        _loss(summary.final, summary.n_steps),
        _loss(summary.best, summary.final.step if summary.final else 0),
        f"{summary.result.bits_per_byte:.4f}" if summary.result else _UNKNOWN,
        f"{speed:,.0f}" if speed is not None else _UNKNOWN,
        wall_time(wall, summary.is_wall_complete),
        summary.outcome,
    )


def wall_time(seconds: float | None, is_complete: bool) -> str:
    """A time for people, with a plus where a part of it is not on record."""
    if seconds is None:
        return _UNKNOWN
    return duration(seconds) + ("" if is_complete else "+")


def _loss(evaluated: Evaluated | None, usual_step: int) -> str:
    """A validation loss, with its step where that is another than the usual one."""
    if evaluated is None:
        return _UNKNOWN
    place = "" if evaluated.step == usual_step else f" at {evaluated.step:,}"
    return f"{evaluated.loss:.4f}{place}"


def group_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The table of groups of runs that differ in the seed alone, its heading first."""
    heading = ("", "over seeds", "runs", "mean nats", "sd", f"{percent(CONFIDENCE)} interval")
    return [heading, *(_group_row(group) for group in comparison.groups)]


def _group_row(group: Group) -> tuple[str, ...]:
    summary, n_runs = group.summary, len(group.runs)
    if summary is None:
        return (group.letter, group.label, f"0 of {n_runs}", _UNKNOWN, _UNKNOWN, _UNKNOWN)
    runs = f"{summary.n}" if summary.n == n_runs else f"{summary.n} of {n_runs}"
    interval, sd = _UNKNOWN, _UNKNOWN
    if summary.sd is not None:
        interval, sd = f"{summary.low:.4f} to {summary.high:.4f}", f"{summary.sd:.4f}"
    return (group.letter, group.label, runs, f"{summary.mean:.4f}", sd, interval)


def difference_sentences(comparison: Comparison) -> Iterator[str]:
    """What the differences between groups show, or why they show nothing, a sentence each."""
    if len(comparison.groups) < 2:
        return
    if not comparison.has_seeds:
        yield (
            "one seed each: what is more than noise only several seeds can tell "
            f"({FEWEST_PAIRS} or more)"
        )
        return
    for place, found, unit in comparison.differences:
        reference = comparison.groups[comparison.reference or 0].letter
        group = comparison.groups[place].letter
        told = _NOT_COMPARED if found is None else verdict(found, comparison.confidence, unit)
        yield f"{group} against {reference}: {told}"


def percent(share: float) -> str:
    """A share in percent, with no more digits than it takes: ``95%``, ``97.5%``."""
    return f"{share:.1%}".replace(".0%", "%")


def verdict(found: Difference, confidence: float, unit: str = "nats") -> str:
    """A difference in words: how large, how sure, and whether it is more than noise."""
    what = f"{found.mean:+.4f} {unit}"
    seeds = "seed" if found.n == 1 else "seeds"
    pairs = f"{found.n} common {seeds}" if found.is_paired else f"{found.n} {seeds}, unpaired"
    if found.exceeds_noise is None:
        return f"{what} ({pairs}); too few to tell it from noise, {FEWEST_PAIRS} are needed"
    interval = f"{percent(confidence)} interval {found.low:+.4f} to {found.high:+.4f}"
    judged = "more than noise" if found.exceeds_noise else "no more than noise"
    return f"{what} ({pairs}, {interval}): {judged}"
