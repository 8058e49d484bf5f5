"""Looking at configurations: checked, shown, compared. Nothing is trained or written.

PyTorch takes a second to import, so nothing here needs it, but for the check of hooks where a
configuration has any.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lm_core.command_line import path_given
from lm_core.config.files import FLAGS
from lm_core.config.hyperparameters import KEYS
from lm_core.config.rendering import (
    canonical,
    gin_text,
    json_text,
    rows,
    yaml_text,
    yaml_value,
)
from lm_core.config.resolution import (
    ConfigSources,
    FileArgument,
    ResolvedConfig,
    StudyReader,
    resolve,
)
from lm_core.config.training_config import TrainingConfig
from lm_core.errors import InputError, Problem, nearest, one_line
from lm_core.output import print_table, say
from lm_core.record import RunDirectory
from lm_core.recorded_config import (
    as_begun,
    read_record,
    require_same_experiment,
    resolve_upon,
    with_first_sources,
)
from lm_core.request import Request

# Facts about two runs that explain why equal configurations may give different numbers.
_FACTS = ("corpus.sha256", "git.commit", "git.dirty", "versions", "numerics", "modules")

# Sites and parameters are the same for any size of the vocabulary.
_ANY_VOCABULARY = 128
# A model of more blocks takes seconds to build, even without content.
_MOST_LAYERS = 1000


def check(sources: ConfigSources, study: StudyReader | None = None) -> ResolvedConfig:
    """Checks a configuration as a training run does before anything is built.

    Args:
        sources: Where it comes from.
        study: Reads what it says of a study; None: it may say nothing of one.

    Raises:
        InputError: Anything is wrong; the message has one line for each problem.
    """
    return resolve(sources, _check_hooks, check_fit, study)


def check_fit(values: TrainingConfig) -> list[Problem]:
    """What of the hooks does not fit the model, on one that has shapes and no content.

    Args:
        values: A configuration that is sound in itself. A model that no machine could hold is
            passed over: training tells that.
    """
    if not values.hooks or values.n_layers > _MOST_LAYERS:
        return []
    from lm_core import hooks
    from lm_core.costs import shapes_only

    try:
        model = shapes_only(values, _ANY_VOCABULARY)
    except RuntimeError:  # PyTorch cannot even count the bytes.
        return []
    return hooks.check_fit(values.hooks, model)


def _check_hooks(table: Mapping[str, Any]) -> list[Problem]:
    from lm_core.hooks import check_hooks

    return check_hooks(table)


def show_config(request: Request) -> None:
    """Prints every hyperparameter with its value and its source.

    Raises:
        InputError: The configuration is wrong.
    """
    if request.run_dir is None:
        config = check(request.config)
    else:
        config = _config_of_run(RunDirectory.open(request.run_dir), request.config)
    if request.format == "yaml":
        print(yaml_text(config, "every value, as --mode=config found it"), end="")
    elif request.format == "gin":
        print(gin_text(config), end="")
    elif request.format == "json":
        print(json_text(config), end="")
    else:
        _print_config(config)


def _config_of_run(run: RunDirectory, sources: ConfigSources) -> ResolvedConfig:
    recorded = read_record(run)
    config = resolve_upon(run, sources, _check_hooks, check_fit)
    config = as_begun(config, recorded.values.init_from)
    # What is shown is what the run is, or would be: no mixture that --resume refuses.
    corpus = None
    if config.values.corpus != recorded.values.corpus:
        from lm_core.data.corpus import load_corpus

        corpus = load_corpus(config.values.corpus, text_key=config.values.text_key)
    require_same_experiment(run, recorded, config, corpus)
    return with_first_sources(config, run)


def _print_config(config: ResolvedConfig) -> None:
    lines: list[tuple[str, ...]] = [("", "hyperparameter", "value", "default", "source")]
    for section, table in rows(config).items():
        lines += [("",), ("", section)]
        for row in table:
            mark = "*" if row.differs else ""
            lines.append((mark, f"  {row.key}", row.value, row.default, row.source))
    print_table(lines)
    n_changed = sum(row.differs for table in rows(config).values() for row in table)
    print(f"\n{n_changed} of {len(KEYS)} values differ from the default (*)")


def announce_config(config: ResolvedConfig, name: str, logs_all: bool) -> None:
    """Says under which configuration a run is trained, each value with its source.

    Args:
        config: The configuration.
        name: The hash that names it.
        logs_all: Whether all values are told, not only those that differ from the default.
    """
    table = [row for section in rows(config).values() for row in section]
    n_changed = sum(row.differs for row in table)
    say(f"configuration {name}: {n_changed} of {len(table)} values differ from the default")
    for row in table:
        if row.differs or logs_all:
            say(f"  {row.key}: {row.value} ({row.source})")


class _Side(NamedTuple):
    """One of two runs or files that are compared, and what is known about it."""

    name: str
    config: ResolvedConfig
    manifest: dict[str, Any] | None


def show_difference(request: Request) -> None:
    """Prints how two runs or configuration files differ.

    Raises:
        InputError: One of them is neither, or is wrong.
    """
    left, right = _sides(request)
    hyperparameters = {
        key: tuple(
            {"value": side.config.values.to_dict()[key], "source": str(side.config.sources[key])}
            for side in (left, right)
        )
        for key in KEYS
        if len({canonical(getattr(side.config.values, key)) for side in (left, right)}) > 1
    }
    facts = _different_facts(left.manifest, right.manifest)
    if request.format == "json":
        names = ("left", "right")
        document = {
            "left": left.name,
            "right": right.name,
            "hyperparameters": {
                key: dict(zip(names, both, strict=True)) for key, both in hyperparameters.items()
            },
            "runs": {name: dict(zip(names, both, strict=True)) for name, both in facts.items()},
        }
        print(json.dumps(document, indent=2))
        return
    lines: list[tuple[str, ...]] = [("", left.name, "set by", right.name, "set by")]
    for key, both in hyperparameters.items():
        cells = [(yaml_value(one["value"]), one["source"]) for one in both]
        lines.append((key, *cells[0], *cells[1]))
    lines += [(name, _word(mine), "", _word(theirs)) for name, (mine, theirs) in facts.items()]
    if len(lines) > 1:
        print_table(lines)
    else:
        names = one_line(f"{left.name} and {right.name}")
        print(f"{names} are the same in every hyperparameter")


def _word(fact: Any) -> str:
    return fact if isinstance(fact, str) else json.dumps(fact)


def _sides(request: Request) -> list[_Side]:
    """Both sides; what is wrong with either is told together."""
    sides, wrong = [], []
    for name in request.compared:
        try:
            sides.append(_side(name, request.config))
        except InputError as error:
            wrong.append(error.message)
    if wrong:
        raise InputError("\n".join(dict.fromkeys(wrong)))
    return sides


def _side(name: str, sources: ConfigSources) -> _Side:
    path = path_given("--mode=diff", name)
    if path.is_dir():
        run = RunDirectory.open(path)
        return _Side(name, _config_of_run(run, ConfigSources()), run.manifest)
    if path.suffix not in FLAGS:
        message = f"{name!r} is neither a run directory nor a configuration (*.yaml, *.gin)"
        names = [
            file.name
            for folder in (Path(), *sources.yaml_folders)
            for file in folder.glob("*.yaml")
        ]
        near = nearest(name, names)
        hint = f"; did you mean {near}?" if near else ""
        raise InputError(f"--mode=diff: {message}{hint}")
    file = FileArgument(FLAGS[path.suffix], name, "--mode=diff")
    only = ConfigSources(
        files=[file],
        yaml_folders=sources.yaml_folders,
        gin_folders=sources.gin_folders,
        allowed_imports=sources.allowed_imports,
    )
    return _Side(name, check(only), None)


def _different_facts(
    left: Mapping[str, Any] | None, right: Mapping[str, Any] | None
) -> dict[str, tuple[Any, Any]]:
    """What two manifests say differently about the world their runs ran in, by dotted name."""
    if left is None or right is None:
        return {}
    mine, theirs = dict(_facts(left)), dict(_facts(right))
    return {
        name: (mine.get(name), theirs.get(name))
        for name in dict.fromkeys([*mine, *theirs])
        if mine.get(name) != theirs.get(name)
    }


def _facts(manifest: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for path in _FACTS:
        fact: Any = manifest
        for name in path.split("."):
            fact = fact.get(name) if isinstance(fact, Mapping) else None
        if isinstance(fact, Mapping):
            yield from ((f"{path}.{name}", value) for name, value in fact.items())
        else:
            yield path, fact
