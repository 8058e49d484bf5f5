"""From sources to one resolved, checked and traced configuration."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lm_core.config.checks import check_value
from lm_core.config.files import FLAGS, find_config, is_yaml
from lm_core.config.gin_files import GinReader
from lm_core.config.hyperparameters import KEYS, BrokenRule, broken_rules
from lm_core.config.statements import Finding, Reading, Source, Statement
from lm_core.config.table import gin_parameter
from lm_core.config.training_config import TrainingConfig
from lm_core.config.yaml_files import read_yaml
from lm_core.errors import InputError, Problem, one_line, shown

DEFAULT_GIN_FILE = "base.gin"
# What leaves a value open, so that the start of a run chooses it.
OPEN_VALUES = {"seed": None, "precision": "auto", "decay_steps": None, "init_from": None}
# What decides whether hooks fit the model: its sites, its parameters, and the hooks themselves.
FIT = {key for key in KEYS if gin_parameter(key).startswith("Transformer.")} | {"hooks"}


class FileArgument(NamedTuple):
    """A configuration file named on the command line.

    Attributes:
        flag: ``--config`` for a YAML file, ``--gin_file`` for a gin file.
        name: Its name as given.
        who: What it was given to, for messages; empty: the flag.
    """

    flag: str
    name: str
    who: str = ""


class Binding(NamedTuple):
    """A gin binding from the command line: the flag, and its text."""

    flag: str
    text: str


@dataclass(frozen=True)
class ConfigSources:
    """Where a configuration is to come from; what comes later wins.

    Attributes:
        base: A YAML file below all others, the record of the run that is gone on with.
        files: Gin and YAML files in their order on the command line. Without any, and without a
            base, it is ``gin_configs/base.gin``.
        bindings: Inline gin bindings in their order.
        overrides: Values of flags that set one key, such as ``{"max_steps": 300}``.
        yaml_folders: Where a YAML file is looked for after the working directory.
        gin_folders: The same for gin files.
        allowed_imports: Modules that gin files may import.
    """

    base: Path | None = None
    files: Sequence[FileArgument] = ()
    bindings: Sequence[Binding] = ()
    overrides: Mapping[str, Any] | None = None
    yaml_folders: Sequence[Path] = ()
    gin_folders: Sequence[Path] = ()
    allowed_imports: Collection[str] = ()


@dataclass(frozen=True)
class ResolvedConfig:
    """Every hyperparameter with its value and its source.

    Attributes:
        values: The values.
        sources: For every key, where its value was set.
        names: For every key, its name as it was written there: the key, or the gin parameter.
        lines: For every path inside a nested value, its line in the source.
    """

    values: TrainingConfig
    sources: dict[str, Source]
    names: dict[str, str]
    lines: dict[str, int]

    def with_value(self, key: str, value: Any, source: Source) -> "ResolvedConfig":
        """The same configuration with one value set by the program, such as a drawn seed.

        Args:
            key: A key of the table.
            value: A value that it takes.
            source: Where it comes from, such as ``drawn``.
        """
        values = self.values.model_dump() | {key: value}
        sources = self.sources | {key: source}
        return replace(self, values=TrainingConfig(**values), sources=sources)

    def to_plain(self) -> dict[str, Any]:
        """Plain data that JSON can hold, from which ``from_plain`` makes the same."""
        sources = {key: list(source) for key, source in self.sources.items()}
        plain = {"values": self.values.to_dict(), "sources": sources}
        return {**plain, "names": self.names, "lines": self.lines}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "ResolvedConfig":
        """What ``to_plain`` described."""
        sources = {key: Source(*source) for key, source in plain["sources"].items()}
        values = TrainingConfig(**plain["values"])
        return cls(values, sources, dict(plain["names"]), dict(plain["lines"]))

    def sentence(self, problem: Problem) -> str:
        """A problem with a value in words: where it was set, as what, and what is wrong."""
        key = problem.path.replace("[", ".").split(".")[0]
        lines = self.lines if key == "hooks" else {}
        statement = Statement(key, self.names[key], None, self.sources[key], lines)
        return _finding(statement, problem).text

    def with_places(self, message: str) -> str:
        """A message with the source in front of each line that begins with a hyperparameter."""
        return "\n".join(self._with_place(line) for line in message.splitlines())

    def _with_place(self, line: str) -> str:
        path, _, sentence = line.partition(": ")
        if path.replace("[", ".").split(".")[0] not in KEYS:
            return line
        return self.sentence(Problem(path, sentence))


class StudyReader(Protocol):
    """Reads what a configuration says of a study; ``lm_core/search`` has one."""

    def read(self, reading: Reading) -> None:
        """Reads ``reading.study``.

        What is wrong goes into the reading, and so does a statement for each key that is searched,
        so that the rules between values are checked with one of its values.
        """

    def misfits(
        self, values: Mapping[str, Any], origins: Mapping[str, Source], unknown: Collection[str]
    ) -> list[Finding]:
        """What of the study does not fit the values beside it.

        Args:
            values: Every key with its value.
            origins: Every key with its source.
            unknown: Keys of which nobody knows what they were meant to be.
        """


CheckHooks = Callable[[Mapping[str, Any]], list[Problem]]
CheckFit = Callable[[TrainingConfig], list[Problem]]


def resolve(
    sources: ConfigSources,
    check_hooks: CheckHooks | None = None,
    check_fit: CheckFit | None = None,
    study: StudyReader | None = None,
) -> ResolvedConfig:
    """Reads all sources, checks every statement and then the whole.

    Args:
        sources: Where to read from.
        check_hooks: Further checks of the value of ``hooks``, by those who know the hooks.
        check_fit: Further checks of whether the hooks fit the model, of a sound configuration.
        study: Reads what is said of a study; None: nothing may be.

    Returns:
        The configuration, with every value as it was written: the check never edits one.

    Raises:
        InputError: Anything at all is wrong; the message has one line for each problem.
    """
    reading = _read(sources, takes_study=study is not None)
    if study is not None:
        study.read(reading)
    findings = list(reading.findings)
    winners: dict[str, Statement] = {}
    # What these were meant to be is unknown, and so is whether it fits the others.
    unknown = set(reading.unread) if reading.is_complete else set(KEYS)
    for statement in reading.statements:
        wrong = _check(statement, check_hooks)
        findings += [_finding(statement, problem) for problem in wrong]
        if wrong:
            unknown.add(statement.key)
        else:
            if reading.is_complete and statement.key not in reading.unread:
                unknown.discard(statement.key)
            winners[statement.key] = statement
    values = TrainingConfig().model_dump() | {key: s.value for key, s in winners.items()}
    origins = {key: winners[key].source if key in winners else Source("default") for key in KEYS}
    names = {key: winners[key].name if key in winners else key for key in KEYS}
    lines = winners["hooks"].lines if "hooks" in winners else {}
    broken = [rule for rule in broken_rules(values) if not unknown & {rule.key, rule.other_key}]
    findings += [_broken(rule, values, origins) for rule in broken]
    if study is not None:
        findings += study.misfits(values, origins, unknown)
    unfit = {key for rule in broken for key in (rule.key, rule.other_key)}
    if check_fit and "hooks" in winners and not (unknown | unfit) & FIT:
        sound = TrainingConfig(**{key: values[key] for key in FIT})
        findings += [_finding(winners["hooks"], problem) for problem in check_fit(sound)]
    if findings:
        # A name from a file may hold what ends a line or moves a cursor.
        told = [one_line(finding.text) for finding in _in_order(findings)]
        raise InputError("\n".join(dict.fromkeys(told)))
    return ResolvedConfig(TrainingConfig(**values), origins, names, lines)


def _check(statement: Statement, check_hooks: CheckHooks | None) -> list[Problem]:
    """What is wrong with a statement, whatever the others are."""
    wrong = check_value(statement.key, statement.value)
    if statement.key == "hooks" and check_hooks and isinstance(statement.value, dict):
        told = [problem.path for problem in wrong]
        wrong += [p for p in check_hooks(statement.value) if not _is_about(told, p.path)]
    return wrong


def _is_about(told: Sequence[str], path: str) -> bool:
    """Whether something has been told of what stands at a path, or inside of it."""
    return any(place == path or place.startswith((f"{path}.", f"{path}[")) for place in told)


def _broken(rule: BrokenRule, values: Mapping[str, Any], origins: Mapping[str, Source]) -> Finding:
    key, relation, other = rule
    mine, theirs = f"{key} {shown(values[key])}", f"{other} {shown(values[other])}"
    return Finding(None, f"{mine} ({origins[key]}) {relation} {theirs} ({origins[other]})")


def _read(sources: ConfigSources, takes_study: bool = False) -> Reading:
    reading = Reading(takes_study=takes_study)
    if sources.base is not None:
        read_yaml(sources.base, reading)
    n_recorded = len(reading.statements)
    folders = [*sources.gin_folders, *sources.yaml_folders]
    for folder in folders:
        if not folder.is_dir():
            reading.failure(InputError(f"--gin_search_paths: {str(folder)!r} is no folder"))
    gin_reader = GinReader(reading, folders, sources.allowed_imports)
    if not sources.files and sources.base is None:
        # Not one of that name in the working directory, which nobody asked for.
        path = find_config(DEFAULT_GIN_FILE, sources.gin_folders, "the default file")
        gin_reader.read_file(path)
    for file in sources.files:
        try:
            _read_file(file, sources, reading, gin_reader)
        except InputError as error:
            reading.failure(error)
    for binding in sources.bindings:
        gin_reader.read_binding(binding.text, binding.flag)
    gin_reader.resolve_macros()
    for key, value in (sources.overrides or {}).items():
        flag = f"--{key}"
        reading.statements.append(Statement(key, key, value, Source(flag), {}))
    if sources.base is not None:
        for key, value in OPEN_VALUES.items():
            given = reading.statements[n_recorded:]
            reading.statements[n_recorded:] = _without_open(key, value, given)
    return reading


def _without_open(key: str, open_value: Any, statements: list[Statement]) -> list[Statement]:
    """What is to change in a run, which is not a value that is left open at last.

    What the configuration left open was chosen and recorded; to leave it open still means that.
    """
    given = [statement.value for statement in statements if statement.key == key]
    if not given or given[-1] != open_value:
        return statements
    # What is overridden is still checked, so only a good value leaves.
    return [s for s in statements if s.key != key or check_value(s.key, s.value)]


def _read_file(
    file: FileArgument, sources: ConfigSources, reading: Reading, gin_reader: GinReader
) -> None:
    wanted = FLAGS.get(Path(file.name).suffix, file.flag)
    if wanted != file.flag:
        kind = "YAML" if is_yaml(Path(file.name)) else "gin"
        raise InputError(f"{file.flag}: {file.name!r} is a {kind} file; give it to {wanted}")
    is_gin = file.flag == FLAGS[".gin"]
    folders = sources.gin_folders if is_gin else sources.yaml_folders
    path = find_config(file.name, [Path(), *folders], file.who or file.flag)
    if is_gin:
        gin_reader.read_file(path)
    else:
        reading.take_from(path.parent)
        reading.take_from(path.resolve().parent)
        read_yaml(path, reading)


def _in_order(findings: Sequence[Finding]) -> list[Finding]:
    """The findings about a file together, by line, where the first of them was; others stay."""
    first_of: dict[str, int] = {}
    places = []
    for index, (source, _) in enumerate(findings):
        if source is None or source.line is None:
            places.append((index, 0))
        else:
            places.append((first_of.setdefault(source.place, index), source.line))
    return [findings[index] for index in sorted(range(len(findings)), key=places.__getitem__)]


def _finding(statement: Statement, problem: Problem) -> Finding:
    line = _line(statement.lines, problem.path, statement.source.line)
    source = statement.source._replace(line=line)
    # The name as the person wrote it: the gin parameter in gin, the key in YAML.
    name = problem.path.replace(statement.key, statement.name, 1)
    place = str(source) if source.place == f"--{name}" else f"{source}: {name}"
    return Finding(source, f"{place}: {problem.message}")


def _line(lines: Mapping[str, int], path: str, default: int | None) -> int | None:
    """The line of a path, or of the innermost thing around it that has one."""
    while path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return lines.get(path, default)
