"""Runs set side by side: what differs, which differ in the seed alone, and what that shows."""

import itertools
import statistics
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lm_core.analysis.records import RunRecord
from lm_core.analysis.statistics import (
    CONFIDENCE,
    Difference,
    Summary,
    difference,
    summarise,
)
from lm_core.analysis.summary import RunSummary, summarise_run
from lm_core.config.hyperparameters import KEYS
from lm_core.config.rendering import canonical, yaml_value
from lm_core.recorded_config import tokenizer_sha256

# What runs of one experiment may differ in.
SEED = "seed"
# What decides which text is evaluated.
_TEXT = ("corpus", "train_ratio", "split_by")


class Compared(NamedTuple):
    """A run among others.

    Attributes:
        record: What its directory says.
        summary: The same in a few numbers.
        differing: Of the hyperparameters that differ among the runs, its values as YAML has them.
        label: A name made of these.
    """

    record: RunRecord
    summary: RunSummary
    differing: dict[str, str]
    label: str


class Group(NamedTuple):
    """Runs of one configuration, but for the seed.

    Attributes:
        letter: A short name: A, B, and so on.
        label: A name made of what sets the group apart from the others.
        runs: The runs, by their place among all.
        results: For each seed with a run that was completed, its result: a validation loss in nats
            per token; of equal seeds the mean.
        bits_per_byte: The same in bits per byte of text.
        summary: What is known about the mean of the results; None: there is none.
    """

    letter: str
    label: str
    runs: list[int]
    results: dict[int, float]
    bits_per_byte: dict[int, float]
    summary: Summary | None


class GroupDifference(NamedTuple):
    """How a group differs from the first one.

    Attributes:
        group: The place of the group.
        difference: Negative where the loss is lower than the first group's; None: the two do not
            compare, since they were evaluated on different texts.
        unit: ``nats``, per token, or ``bits per byte`` where the tokens differ.
    """

    group: int
    difference: Difference | None
    unit: str


@dataclass(frozen=True)
class Comparison:
    """Runs set side by side.

    Attributes:
        runs: The runs.
        keys: The hyperparameters that differ among them.
        groups: Those that differ in the seed alone together, in the order of the runs.
        differences: Each other group with results against the first one with results.
        reference: The place of that first group; None: there is none.
        confidence: Of each of the intervals of differences: with several, each is wider, so that
            all of them together hold with ``CONFIDENCE`` (Bonferroni).
    """

    runs: list[Compared]
    keys: list[str]
    groups: list[Group]
    differences: list[GroupDifference]
    reference: int | None
    confidence: float

    @property
    def has_seeds(self) -> bool:
        """Whether any group has more than one run."""
        return any(len(group.runs) > 1 for group in self.groups)


def compare_runs(records: Sequence[RunRecord]) -> Comparison:
    """Sets runs side by side."""
    tables = [_table(record) for record in records]
    keys = [key for key in KEYS if len({canonical(table[key]) for table in tables}) > 1]
    summaries = [summarise_run(record) for record in records]
    compared = []
    for record, table, summary in zip(records, tables, summaries, strict=True):
        differing = {key: _value(record, table, key) for key in keys}
        compared.append(Compared(record, summary, differing, label(differing) or record.name))
    groups = _groups(compared, tables)
    with_results = [place for place, group in enumerate(groups) if group.results]
    reference = with_results[0] if with_results else None
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(with_results) - 1)
    differences = [
        _difference(compared, groups[with_results[0]], place, groups[place], confidence)
        for place in with_results[1:]
    ]
    return Comparison(compared, keys, groups, differences, reference, confidence)


def _difference(
    compared: Sequence[Compared], reference: Group, place: int, group: Group, confidence: float
) -> GroupDifference:
    """How a group differs from the reference, in what the two have in common."""
    mine, theirs = (compared[one.runs[0]].record for one in (group, reference))
    if any(_table(mine)[key] != _table(theirs)[key] for key in _TEXT):
        return GroupDifference(place, None, "nats")
    if _tokens(mine) == _tokens(theirs):
        found = difference(reference.results, group.results, confidence)
        return GroupDifference(place, found, "nats")
    found = difference(reference.bits_per_byte, group.bits_per_byte, confidence)
    return GroupDifference(place, found, "bits per byte")


def label(differing: dict[str, str]) -> str:
    """A name made of hyperparameters and their values, such as ``n_layers 6, dropout 0.0``."""
    return ", ".join(f"{key} {value}" for key, value in differing.items())


def _tokens(record: RunRecord) -> tuple[str, str | None]:
    """What tells the tokens of a run from those of others that were trained on the same text."""
    return record.values.tokenizer, tokenizer_sha256(record.manifest)


def _table(record: RunRecord) -> dict[str, Any]:
    """The hyperparameters of a run, with its files by what they say, not by where they lie."""
    table = {**record.values.to_dict(), "corpus": record.manifest["corpus"]["sha256"]}
    if table["tokenizer_file"] is not None:
        table["tokenizer_file"] = tokenizer_sha256(record.manifest)
    return table


def _value(record: RunRecord, table: dict[str, Any], key: str) -> str:
    value = getattr(record.values, key) if key in ("corpus", "tokenizer_file") else table[key]
    return value if isinstance(value, str) else yaml_value(value)


def _groups(compared: Sequence[Compared], tables: Sequence[dict[str, Any]]) -> list[Group]:
    members: dict[str, list[int]] = {}
    for place, table in enumerate(tables):
        members.setdefault(canonical({**table, SEED: None}), []).append(place)
    return [
        _group(compared, letter, places)
        for letter, places in zip(_letters(), members.values(), strict=False)
    ]


def _letters() -> Iterator[str]:
    """A to Z, then AA, AB, and so on."""
    for n_letters in itertools.count(1):
        for letters in itertools.product(string.ascii_uppercase, repeat=n_letters):
            yield "".join(letters)


def _group(compared: Sequence[Compared], letter: str, places: list[int]) -> Group:
    first = compared[places[0]]
    apart = {key: value for key, value in first.differing.items() if key != SEED}
    name = label(apart) or (first.label if len(places) == 1 else "all runs")
    completed = [
        (summary.seed or 0, summary.result)
        for summary in (compared[place].summary for place in places)
        if summary.result is not None and summary.outcome == "completed"
    ]
    results = _by_seed([(seed, result.loss) for seed, result in completed])
    bits = _by_seed([(seed, result.bits_per_byte) for seed, result in completed])
    summary = summarise([*results.values()]) if results else None
    return Group(letter, name, places, results, bits, summary)


def _by_seed(pairs: Sequence[tuple[int, float]]) -> dict[int, float]:
    """The mean result of each seed: a run that was made twice tells nothing new."""
    by_seed = itertools.groupby(sorted(pairs), key=lambda pair: pair[0])
    return {seed: statistics.fmean(value for _, value in same) for seed, same in by_seed}
