"""What a configuration says of a study: read, checked, and told with its lines."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from lm_core.config.checks import check_value
from lm_core.config.hyperparameters import KEYS
from lm_core.config.names import unknown_key
from lm_core.config.rendering import canonical
from lm_core.config.statements import Finding, Reading, Source, Statement
from lm_core.config.table import value_types
from lm_core.config.training_config import TrainingConfig
from lm_core.errors import shown, unknown
from lm_core.search.fitting import fitting_values
from lm_core.search.space import (
    CHOICE,
    KINDS,
    RANGES,
    Choice,
    Distribution,
    Range,
    Space,
    n_combinations,
)

SAMPLERS = ("tpe", "random", "grid", "cmaes")
PRUNERS = ("hyperband", "median", "none")
# Enough for two or three hyperparameters, and done in an hour where a trial takes minutes.
_DEFAULT_TRIALS = 20
# The fewest runs whose spread says something.
_DEFAULT_SEEDS = 3
# Far more than anybody waits for; the names of their folders stay short.
_MOST_TRIALS = 100_000
# A winner is run so often at most.
_MOST_SEEDS = 1000
# CMA-ES turns an ellipse, and a line has nothing to turn.
_FEWEST_OF_CMAES = 2
_LOOKS = "it changes when a run is looked at, not what it learns"
_OTHER_LOSS = "the losses of two trials would not compare"
# Hyperparameters that make no sense in a search, and why.
NOT_SEARCHED = {
    "seed": "all trials share it, so that they compare; seeds_for_best runs the winner on others",
    "max_steps": "all trials have the same steps, so that they compare",
    "hooks": "it is no plain value",
    "corpus": _OTHER_LOSS,
    "text_key": _OTHER_LOSS,
    "tokenizer": _OTHER_LOSS,
    "vocab_size": _OTHER_LOSS,
    "tokenizer_file": _OTHER_LOSS,
    "train_ratio": _OTHER_LOSS,
    "split_by": _OTHER_LOSS,
    "eval_cadence": _LOOKS,
    "early_stopping_evaluations": _LOOKS,
    "checkpoint_cadence": _LOOKS,
    "keep_checkpoints": _LOOKS,
    "device": _LOOKS,
    "compile": _LOOKS,
    **{key: _LOOKS for key in KEYS if key.startswith("sampling_")},
}


@dataclass(frozen=True)
class StudySettings:
    """What a study says beside its hyperparameters.

    Attributes:
        space: What is searched.
        trials: How many runs.
        sampler: How their values are chosen, one of ``SAMPLERS``.
        pruner: How unpromising runs are ended, one of ``PRUNERS``.
        seeds_for_best: On how many fresh seeds the winner is run again.
    """

    space: Space
    trials: int
    sampler: str
    pruner: str
    seeds_for_best: int


class StudyFile:
    """Reads the keys of a study; ``resolve`` takes it.

    Attributes:
        sources: Where each key of the study was set.
    """

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}
        self._space: dict[str, Distribution] = {}
        self._plain: dict[str, Any] = {}
        # Where each hyperparameter is searched.
        self._places: dict[str, Source] = {}

    @property
    def settings(self) -> StudySettings:
        """What it says; only of a configuration in which nothing was wrong."""
        sampler = self._plain.get("sampler", "tpe")
        n_all = n_combinations(self._space)
        usual = _DEFAULT_TRIALS if n_all is None else min(n_all, _DEFAULT_TRIALS)
        return StudySettings(
            space=dict(self._space),
            trials=self._plain.get("trials", n_all if sampler == "grid" else usual),
            sampler=sampler,
            pruner=self._plain.get("pruner", "none"),
            seeds_for_best=self._plain.get("seeds_for_best", _DEFAULT_SEEDS),
        )

    def read(self, reading: Reading) -> None:
        """Reads what a reading holds of a study; what is wrong goes into it."""
        last = {statement.key: statement for statement in reading.study}
        self.sources = {key: statement.source for key, statement in last.items()}
        for key, statement in last.items():
            if key == "search":
                self._read_search(statement, reading)
            else:
                self._read_plain(statement, reading)
        if not last.get("search") and reading.is_complete and "search" not in reading.unread:
            sentence = "nothing to search: --mode=search needs a study, a file with the key search"
            reading.findings.append(Finding(None, sentence))

    def _read_plain(self, statement: Statement, reading: Reading) -> None:
        key, value = statement.key, statement.value
        words = {"sampler": SAMPLERS, "pruner": PRUNERS}.get(key)
        if words is not None:
            # `null` and `off` are what people write for none, but only one word is in the record.
            if value not in words:
                sentence = f"{shown(value)} is an {unknown(str(value), words, key)}"
                reading.problem(
                    statement.source, f"{key}: {sentence} (allowed: {', '.join(words)})"
                )
                return
        else:
            low, high = {"trials": (1, _MOST_TRIALS)}.get(key, (0, _MOST_SEEDS))
            if type(value) is not int or not low <= value <= high:
                sentence = f"{shown(value)} is not an integer from {low} to {high}"
                reading.problem(statement.source, f"{key}: {sentence}")
                return
        self._plain[key] = value

    def _read_search(self, statement: Statement, reading: Reading) -> None:
        if not isinstance(statement.value, dict) or not statement.value:
            message = f"search: {shown(statement.value)} is no mapping of hyperparameters to ranges"
            example = "write a line such as `learning_rate: {log_uniform: [1e-4, 1e-2]}` below it"
            reading.problem(statement.source, f"{message}; {example}")
            return
        # What a file says that this one extends is overridden; what else is meant is not clear.
        rivals = {
            other.key: other
            for other in reading.statements
            if other.source.place.startswith("--") or other.source.place == statement.source.place
        }
        for key, description in statement.value.items():
            path = f"search.{key}"
            source = statement.source._replace(line=statement.lines.get(path))
            if key not in KEYS:
                reading.problem(source, f"{path}: {unknown_key(key)}")
                continue
            reading.unread.discard(key)
            wrong, found = _distribution(key, description, path)
            if key in NOT_SEARCHED:
                wrong, found = [(path, f"cannot be searched: {NOT_SEARCHED[key]}")], None
            for place, message in wrong:
                line = _line(statement.lines, place, source.line)
                reading.problem(source._replace(line=line), f"{place}: {message}")
            if key in rivals:
                rival = rivals[key]
                message = f"is searched ({source}); leave out one of the two"
                reading.problem(rival.source, f"{rival.name}: {message}")
            if found is None:
                reading.unread.add(key)
                continue
            self._space[key] = found
            self._places[key] = source
        chosen = fitting_values(self._space, _values(reading), reading.unread)
        for key, source in self._places.items():
            if key not in rivals:
                reading.statements.append(Statement(key, key, chosen[key], source, {}))

    def misfits(
        self, values: Mapping[str, Any], origins: Mapping[str, Source], unknown: Collection[str]
    ) -> list[Finding]:
        """What of the study does not fit the values beside it, or itself."""
        findings = []
        pruner = self._plain.get("pruner", "none")
        if pruner != "none" and values["eval_cadence"] is None and "eval_cadence" not in unknown:
            theirs = f"eval_cadence null ({origins['eval_cadence']})"
            message = f"pruner {pruner} ({self.sources['pruner']}) ends runs at evaluations"
            findings.append(Finding(None, f"{message}, and there are none with {theirs}"))
        if self._space and "search" not in unknown and not set(self._space) & set(unknown):
            findings += self._misfits_of_sampler()
        return findings

    def _misfits_of_sampler(self) -> list[Finding]:
        sampler, source = self._plain.get("sampler", "tpe"), self.sources["search"]
        n_all = n_combinations(self._space)
        findings = []
        for key, distribution in self._space.items():
            is_range = isinstance(distribution, Range)
            if sampler == "grid" and distribution.size is None:
                message = f"a grid needs values one by one: write {{{CHOICE}: [...]}}"
            elif sampler == "cmaes" and not is_range:
                message = "cmaes knows ranges of numbers only; sampler tpe takes choices too"
            else:
                continue
            place = self._places.get(key, source)
            text = f"{place}: search.{key}.{distribution.kind}: {message}"
            findings.append(Finding(place, text))
        n_trials = self._plain.get("trials", 0)
        if sampler == "cmaes" and len(self._space) < _FEWEST_OF_CMAES:
            message = "cmaes needs two ranges or more; sampler tpe takes one"
            findings.append(Finding(source, f"{source}: search: {message}"))
        elif sampler == "grid" and n_all is not None and n_all > _MOST_TRIALS:
            message = f"a grid of {n_all:,} combinations is more than {_MOST_TRIALS:,} trials"
            findings.append(Finding(source, f"{source}: search: {message}"))
        elif n_all is not None and n_trials > n_all:
            place = self.sources.get("trials", source)
            message = f"{n_trials} are more than the {n_all} combinations that there are to search"
            findings.append(Finding(place, f"{place}: trials: {message}"))
        return findings


def _values(reading: Reading) -> dict[str, Any]:
    """Every key with its value so far, or its default where that is none that it takes."""
    said = {s.key: s.value for s in reading.statements if not check_value(s.key, s.value)}
    return TrainingConfig().model_dump() | said


def _line(lines: Mapping[str, int], path: str, default: int | None) -> int | None:
    while path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return lines.get(path, default)


def _distribution(
    key: str, description: Any, path: str
) -> tuple[list[tuple[str, str]], Distribution | None]:
    """What a study says of the values of a key, or what is wrong with that, by its place."""
    one = f"write one of {', '.join(KINDS)}, as in `{key}: {{{CHOICE}: [...]}}`"
    if not isinstance(description, dict):
        return [(path, f"{shown(description)} says nothing of what to try; {one}")], None
    wrong = [
        (
            f"{path}.{kind}",
            f"{unknown(kind, KINDS, 'kind of range')} (there are {', '.join(KINDS)})",
        )
        for kind in description
        if kind not in KINDS
    ]
    if wrong:
        return wrong, None
    if len(description) != 1:
        return [(path, f"has {len(description)} kinds of range; {one}")], None
    ((kind, value),) = description.items()
    if not isinstance(value, list):
        return [(f"{path}.{kind}", f"{shown(value)} is no list")], None
    if kind == CHOICE:
        return _choice(key, value, f"{path}.{kind}")
    return _range(key, kind, value, f"{path}.{kind}")


def _choice(key: str, options: list[Any], path: str) -> tuple[list[tuple[str, str]], Choice | None]:
    wrong = []
    if not options:
        return [(path, "is empty: there is nothing to choose from")], None
    seen: dict[str, int] = {}
    for index, option in enumerate(options):
        place = f"{path}[{index}]"
        problems = check_value(key, option)
        if isinstance(option, (list, dict)):
            wrong.append((place, f"{shown(option)} is no plain value"))
        elif problems:
            wrong += [(place, problem.message) for problem in problems]
        else:
            # To Python, 1 and 1.0 are one number, and so they are to a hyperparameter.
            is_number = type(option) in (int, float)
            name = canonical(float(option) if is_number else option)
            if name in seen:
                wrong.append((place, f"{shown(option)} stands there twice"))
            seen[name] = index
    return wrong, None if wrong else Choice(tuple(options))


def _range(
    key: str, kind: str, ends: list[Any], path: str
) -> tuple[list[tuple[str, str]], Range | None]:
    is_log, is_integer = RANGES[kind]
    if len(ends) != 2:
        return [(path, f"{shown(ends)} is not a low end and a high one")], None
    types = value_types(key)
    if not is_integer and float not in types:
        if int in types:
            message = "a hyperparameter of whole numbers: write int or int_log"
        else:
            message = f"a hyperparameter without numbers: write {CHOICE}"
        return [(path, message)], None
    wrong = []
    for index, end in enumerate(ends):
        place = f"{path}[{index}]"
        if type(end) not in (int, float) or not math.isfinite(end):
            wrong.append((place, f"{shown(end)} is no number"))
        elif is_integer and type(end) is not int:
            wrong.append((place, f"{shown(end)} is no integer"))
        else:
            wrong += [(place, problem.message) for problem in check_value(key, end)]
    if wrong:
        return wrong, None
    low, high = ends
    if low >= high:
        return [(path, f"is empty: {shown(low)} is not below {shown(high)}")], None
    if is_log and low <= 0:
        message = f"{shown(low)} is not greater than 0, as a range in logarithms needs"
        return [(f"{path}[0]", message)], None
    if not is_integer:
        low, high = float(low), float(high)
    return [], Range(low, high, is_log, is_integer)
