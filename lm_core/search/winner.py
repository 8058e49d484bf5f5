"""The best trial of a study: its configuration, ready to be trained, and what to mind about it."""

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lm_core.config.checks import check_value
from lm_core.config.rendering import canonical, yaml_value
from lm_core.config.table import default, keys_by_section
from lm_core.errors import one_line
from lm_core.search.progress_table import counted, value_told
from lm_core.search.space import Range, Space
from lm_core.search.study import Study
from lm_core.search.study_folder import StudyFolder
from lm_core.search.trial_records import COMPLETED, FreshResult, TrialRecord

# The best value lies at an end of its range if no more than this share of the range lies beyond.
_EDGE = 0.05
# How little a value is moved to see whether the hyperparameter itself ends there.
_NEXT = 1e-9


def edge_warnings(space: Space, values: Mapping[str, Any]) -> list[str]:
    """Sentences about values that lie at an end of what was searched.

    The end of what the hyperparameter itself can be, such as 0 of dropout, is no such end.

    Args:
        space: What was searched.
        values: The best values.
    """
    sentences = []
    for key, one in space.items():
        if not isinstance(one, Range):
            continue
        end = _end_of(key, one, values[key])
        if end:
            range_told = f"{value_told(one.low)} to {value_told(one.high)}"
            sentences.append(
                f"the best {key}, {value_told(values[key])}, lies at the {end} end of what was "
                f"searched, {range_told}: a wider range may hold a better one"
            )
    return sentences


def _end_of(key: str, one: Range, value: float) -> str:
    """``low`` or ``high``; empty where a value lies at neither end, or at the end of all values."""
    if one.is_integer:
        is_low, is_high = value == one.low, value == one.high
        below, above = int(one.low) - 1, int(one.high) + 1
    else:
        share = one.share(value)
        is_low, is_high = share <= _EDGE, share >= 1 - _EDGE
        below, above = (
            one.low - _NEXT * max(abs(one.low), _NEXT),
            one.high + _NEXT * max(abs(one.high), _NEXT),
        )
    if is_low and not check_value(key, below):
        return "low"
    if is_high and not check_value(key, above):
        return "high"
    return ""


def mean_and_deviation(results: Sequence[FreshResult]) -> tuple[float, float] | None:
    """Mean and sample standard deviation of the losses on fresh seeds; None: there is no loss.

    Of one loss the deviation is not a number.
    """
    losses = [one.loss for one in results if one.outcome == COMPLETED and one.loss is not None]
    if not losses:
        return None
    deviation = statistics.stdev(losses) if len(losses) > 1 else math.nan
    return statistics.fmean(losses), deviation


def fresh_told(results: Sequence[FreshResult]) -> str:
    """The winner's result on fresh seeds in words; empty where there are none."""
    if not results:
        return ""
    found = mean_and_deviation(results)
    n_good = sum(one.outcome == COMPLETED for one in results)
    seeds = counted(n_good, "fresh seed")
    told = f"on {counted(len(results), 'fresh seed')} none was completed"
    if found is not None:
        spread = "" if math.isnan(found[1]) else f" ± {found[1]:.4f}"
        told = f"{found[0]:.4f}{spread} nats on {seeds}"
    others = [f"{one.outcome} on seed {one.seed}" for one in results if one.outcome != COMPLETED]
    return "; ".join([told, *others])


def command(folder: StudyFolder) -> str:
    """The command that trains the winner."""
    return f"python run.py {shlex.quote(f'--config={folder.best}')}"


def best_text(
    study: Study,
    folder: StudyFolder,
    best: TrialRecord,
    results: Sequence[FreshResult],
    n_trials: int,
) -> str:
    """The winner's configuration as a file: what differs from the defaults.

    Args:
        study: The study.
        folder: Its folder.
        best: The winner.
        results: How it did on fresh seeds.
        n_trials: How many trials there were.
    """
    values = study.values_of(best.values).to_dict()
    # The file may be used from anywhere.
    values["corpus"] = study.base.values.corpus
    fresh = fresh_told(results)
    head = [
        f"The best of {counted(n_trials, 'trial')} of {folder.path}, trial {best.number}:",
        f"validation loss {best.loss:.4f} nats per token with the seed of the study"
        + (f"; {fresh}." if fresh else "."),
        "",
        f"  {command(folder)}",
        "",
        "What is not stated here has its default.",
    ]
    lines = [f"# {one_line(line)}".rstrip() for line in head]
    for section, keys in keys_by_section().items():
        stated = [
            key
            for key in keys
            if key in best.values or canonical(values[key]) != canonical(default(key))
        ]
        if stated:
            lines += ["", f"# {section}"]
        for key in stated:
            one = study.settings.space.get(key)
            told = f"  # searched: {yaml_value(one.plain())}" if one else ""
            lines.append(f"{key}: {yaml_value(values[key])}{told}")
    return "\n".join(lines) + "\n"
