"""The report of a study: what it tried, what mattered, and how its trials went, as one page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_core.config.hyperparameters import KEYS
from lm_core.config.rendering import canonical, yaml_value
from lm_core.config.table import default
from lm_core.progress import duration
from lm_core.report.elements import Html, element, join, table
from lm_core.report.page import document, footer, header
from lm_core.report.reporting import REPORT
from lm_core.report.sections import tiles
from lm_core.search.importance import Importance, importance
from lm_core.search.progress_table import value_told
from lm_core.search.space import Choice, Distribution
from lm_core.search.study import Study
from lm_core.search.study_folder import StudyFolder
from lm_core.search.summary import counts_told, steps_told
from lm_core.search.trial_records import (
    COMPLETED,
    FAILED,
    FreshResult,
    TrialRecord,
)
from lm_core.search.winner import edge_warnings, fresh_told, mean_and_deviation

_SCRIPTS = ("axes.js", "tables.js", "study.js")
_UNKNOWN = "-"
_UNFINISHED = "The study has not come to its end: the same command goes on with it."


def study_page(
    study: Study,
    folder: StudyFolder,
    records: Sequence[TrialRecord],
    best: TrialRecord | None,
    results: Sequence[FreshResult],
    is_over: bool = True,
) -> str:
    """The HTML of the report of a study.

    Args:
        study: The study.
        folder: Its folder.
        records: All its trials.
        best: The best so far; None: no trial was completed.
        results: How the winner did on fresh seeds.
        is_over: Whether it has come to its end; before, nothing is said about what mattered, which
            takes seconds to find.
    """
    title = folder.path.resolve().name
    mattered = importance(study.settings.space, records, study.seed) if is_over else None
    body = join(
        [
            header(title, element("span", f"{len(records)} trials", class_="badge")),
            _tiles(study, records, best, results),
            *(element("p", told, class_="bad") for told in _warnings(study, best)),
            *([] if is_over else [element("p", _UNFINISHED)]),
            element("h2", "How it went"),
            *_curves(),
            *(_importance(mattered) if is_over else []),
            *_slices(study),
            *_trials(study, folder, records),
            *_settings(study),
            footer(),
        ]
    )
    return document(title, body, _data(study, records, best, mattered), _SCRIPTS)


def _tiles(
    study: Study,
    records: Sequence[TrialRecord],
    best: TrialRecord | None,
    results: Sequence[FreshResult],
) -> Html:
    fresh = mean_and_deviation(results)
    mean = f"{fresh[0]:.4f}" if fresh else _UNKNOWN
    again = (mean, fresh_told(results).removeprefix(mean).strip())
    n_done = sum(record.steps for record in records)
    seconds = sum(record.seconds or 0.0 for record in records)
    counts = Counter(record.outcome for record in records)
    return tiles(
        [
            ("best in the search", *_best(best)),
            ("the same on fresh seeds", *again),
            ("completed", f"{counts[COMPLETED]}", counts_told(records).partition(": ")[2]),
            ("steps", f"{n_done:,}", steps_told(records, study.values.max_steps)),
            ("time", duration(seconds), "of all trials together"),
        ]
    )


def _best(best: TrialRecord | None) -> tuple[str, str]:
    if best is None:
        return _UNKNOWN, "no trial was completed"
    return f"{best.loss:.4f}", f"nats per token, trial {best.number}"


def _warnings(study: Study, best: TrialRecord | None) -> list[str]:
    if best is None:
        return []
    return [
        f"{told[0].upper()}{told[1:]}." for told in edge_warnings(study.settings.space, best.values)
    ]


def _figure(name: str, title: str, unit: str, is_wide: bool = False) -> Html:
    caption = element("figcaption", element("h3", title), element("span", unit, class_="faint"))
    return element("figure", caption, data_chart=name, class_="wide" if is_wide else "")


def _curves() -> list[Html]:
    note = (
        "Full circles are trials that were completed, pale ones were pruned and stand at the last "
        "loss they had, crosses diverged or failed. What is far worse stands at the upper edge; "
        "the ring is the best. Click a trial to see it in every chart."
    )
    return [
        element("noscript", element("p", "The charts are drawn by a script in this file.")),
        element("p", note, class_="faint drawn", hidden=True),
        element("p", "", data_chosen=True),
        element(
            "div",
            _figure("history", "History", "validation loss, nats per token; the line is the best"),
            _figure("curves", "Curves of the trials", "validation loss; the stronger, the better"),
            _figure(
                "parallel", "All values", "a line a trial; the stronger, the better", is_wide=True
            ),
            class_="charts halves even",
        ),
    ]


def _importance(mattered: Importance | None) -> list[Html]:
    heading = element("h2", "What mattered")
    if mattered is None:
        return [heading, element("p", "Too few trials, or too few hyperparameters, to tell.")]
    note = (
        f"Share of the variance of the loss after step {mattered.step:,}, which "
        f"{mattered.n_trials} trials reached, that each hyperparameter explains alone: functional "
        "ANOVA (Hutter, Hoos and Leyton-Brown 2014). The whiskers hold 90 % of what trials that "
        "are drawn anew give: where they are wide, nobody knows yet. What is missing to 100 % is "
        "in combinations, or more than so few trials can tell."
    )
    bars = element("div", _figure("importance", "Importance", ""), class_="charts")
    return [heading, element("p", note, class_="faint"), bars]


def _slices(study: Study) -> list[Html]:
    figures = [
        _figure(f"slice-{key}", key, "validation loss, nats per token")
        for key in study.settings.space
    ]
    return [element("h2", "Each hyperparameter"), element("div", *figures, class_="charts slices")]


def _trials(study: Study, folder: StudyFolder, records: Sequence[TrialRecord]) -> list[Html]:
    keys = list(study.settings.space)
    heading = ("trial", "outcome", "loss", "last loss", "steps", "time", *keys, "reason")
    rows = [_row(folder, record, keys) for record in records]
    return [element("h2", "Trials"), table(heading, rows, is_sortable=True)]


def _row(folder: StudyFolder, record: TrialRecord, keys: Sequence[str]) -> Html:
    page = Path("trials") / record.name / REPORT
    name: str = str(record.number)
    if (folder.path / page).is_file():
        name = element("a", name, href=page.as_posix())
    seconds, newest = record.seconds, record.newest_loss
    cells = [
        element("td", name, data_value=str(record.number)),
        element("td", record.outcome, class_="bad" if record.outcome == FAILED else ""),
        _number(record.loss),
        _number(newest),
        element("td", f"{record.steps:,}", data_value=str(record.steps)),
        element(
            "td",
            _UNKNOWN if seconds is None else duration(seconds),
            data_value="" if seconds is None else f"{seconds:.3f}",
        ),
        *(_value(record.values.get(key)) for key in keys),
        element("td", record.reason, class_="wrap"),
    ]
    return element("tr", *cells, data_row=str(record.number))


def _number(loss: float | None) -> Html:
    if loss is None:
        return element("td", _UNKNOWN, data_value="")
    return element("td", f"{loss:.4f}", data_value=repr(loss))


def _value(value: Any) -> Html:
    if value is None:
        return element("td", _UNKNOWN, data_value="")
    return element("td", value_told(value), data_value=value_told(value))


def _settings(study: Study) -> list[Html]:
    settings, sources = study.settings, study.sources
    space = [
        (key, one.kind, yaml_value(*one.plain().values()), str(study.config.sources[key]))
        for key, one in settings.space.items()
    ]
    rest = [
        (name, yaml_value(getattr(settings, name)), str(sources.get(name, "default")))
        for name in ("trials", "sampler", "pruner", "seeds_for_best")
    ]
    values = study.values.to_dict()
    changed = [
        key
        for key in KEYS
        if key not in settings.space and canonical(values[key]) != canonical(default(key))
    ]
    shared = [
        (key, yaml_value(values[key]), yaml_value(default(key)), str(study.config.sources[key]))
        for key in changed
    ]
    return [
        element("h2", "The study"),
        table(("searched", "kind", "values", "set by"), space),
        table(("setting", "value", "set by"), rest),
        element("h2", "What all trials share, where it is not the default"),
        table(("hyperparameter", "value", "default", "set by"), shared),
    ]


def _data(
    study: Study,
    records: Sequence[TrialRecord],
    best: TrialRecord | None,
    mattered: Importance | None,
) -> dict[str, Any]:
    space = study.settings.space
    return {
        "keys": [_key(name, one) for name, one in space.items()],
        "best": best and best.number,
        "importance": mattered
        and {
            "shares": [
                {"name": share.key, "mean": share.mean, "low": share.low, "high": share.high}
                for share in mattered.shares
            ]
        },
        "trials": [_trial(space, record) for record in records],
    }


def _key(name: str, one: Distribution) -> dict[str, Any]:
    if isinstance(one, Choice):
        options = [value_told(option) for option in one.options]
        return {"name": name, "options": options, "is_log": False, "low": None, "high": None}
    return {
        "name": name,
        "options": None,
        "is_log": one.is_log,
        "low": one.low,
        "high": one.high,
    }


def _trial(space: Mapping[str, Distribution], record: TrialRecord) -> dict[str, Any]:
    steps = sorted(record.losses)
    return {
        "number": record.number,
        "outcome": record.outcome,
        "loss": record.loss,
        "steps": steps,
        "losses": [record.losses[step] for step in steps],
        "values": {key: _place(space[key], value) for key, value in record.values.items()},
        "told": {key: value_told(value) for key, value in record.values.items()},
    }


def _place(one: Distribution, value: Any) -> float:
    """Where a value is drawn: a number at itself, an option at its place."""
    return one.values.index(value) if isinstance(one, Choice) else value
