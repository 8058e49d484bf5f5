"""What a person reads at the end of a study."""

import re
from collections import Counter
from collections.abc import Sequence

from lm_core.errors import DivergenceError, InputError, LabError, MachineError, one_line
from lm_core.output import print_table, say, warn
from lm_core.search.progress_table import best_of, counted, value_told
from lm_core.search.study import Study
from lm_core.search.study_folder import StudyFolder
from lm_core.search.trial_records import (
    COMPLETED,
    DIVERGED,
    FAILED,
    PRUNED,
    FreshResult,
    TrialRecord,
)
from lm_core.search.winner import command, edge_warnings, fresh_told

# So many of the best trials are shown, which shows whether the best stands alone.
_SHOWN_TRIALS = 5


def tell(
    study: Study,
    folder: StudyFolder,
    records: Sequence[TrialRecord],
    best: TrialRecord,
    results: Sequence[FreshResult],
) -> None:
    """Prints what came of a study, and warns of a best value at the end of its range.

    Args:
        study: The study.
        folder: Its folder.
        records: All its trials.
        best: The winner.
        results: How the winner did on fresh seeds.
    """
    ranked = sorted(
        (record for record in records if record.outcome == COMPLETED),
        key=lambda record: (record.loss, record.number),
    )
    keys = list(study.settings.space)
    rows = [("trial", "validation loss", *keys)]
    for record in ranked[:_SHOWN_TRIALS]:
        cells = (value_told(record.values[key]) for key in keys)
        rows.append((str(record.number), f"{record.loss:.4f}", *cells))
    say("")
    print_table(rows)
    say("")
    say(counts_told(records))
    say(steps_told(records, study.values.max_steps))
    say(f"best: trial {best.number}, {best.loss:.4f} nats in the search")
    fresh = fresh_told(results)
    if fresh:
        say(f"again: {fresh}")
    for sentence in edge_warnings(study.settings.space, best.values):
        warn(sentence)
    say(f"train it: {command(folder)}")


def counts_told(records: Sequence[TrialRecord]) -> str:
    """How many trials ended how."""
    counts = Counter(record.outcome for record in records)
    parts = [f"{counts[name]} {name}" for name in (COMPLETED, PRUNED, DIVERGED, FAILED)]
    return f"{counted(len(records), 'trial')}: {', '.join(parts)}"


def steps_told(records: Sequence[TrialRecord], max_steps: int) -> str:
    """How many steps were done of those that would have been without pruning."""
    n_done = sum(record.steps for record in records)
    n_all = n_done + sum(max_steps - one.steps for one in records if one.outcome == PRUNED)
    share = 1 - n_done / n_all if n_all else 0.0
    return f"{n_done:,} of {n_all:,} steps were done, which saves {share:.0%}"


def require_winner(records: Sequence[TrialRecord]) -> TrialRecord:
    """The best trial.

    Raises:
        LabError: No trial was completed; says what the commonest reason is, with its exit code.
    """
    best = best_of(records)
    if best is not None:
        return best
    ((outcome, _), *_) = Counter(record.outcome for record in records).most_common(1)
    reasons = [record.reason for record in records if record.outcome == outcome]
    # The same thing is often said with other numbers: steps, sizes, trials.
    ((kind_of_reason, n_times), *_) = Counter(map(_without_numbers, reasons)).most_common(1)
    reason = next(one for one in reasons if _without_numbers(one) == kind_of_reason)
    kind: type[LabError] = MachineError
    if outcome == DIVERGED:
        kind = DivergenceError
    elif reason.startswith("refused"):
        kind = InputError
    message = f"none of the {counted(len(records), 'trial')} was completed"
    told = f"{outcome}: {reason}" if reason else outcome
    raise kind(one_line(f"{message}; {n_times} of them {told}"))


def _without_numbers(reason: str) -> str:
    return re.sub(r"\d[\d.,]*(e[+-]?\d+)?", "#", reason)
