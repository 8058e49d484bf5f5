"""The configuration in a run's record: written, read, and gone on from."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lm_core.config.files import display_name
from lm_core.config.hyperparameters import KEYS
from lm_core.config.rendering import canonical, config_hash, yaml_text
from lm_core.config.resolution import CheckFit, CheckHooks, ConfigSources, ResolvedConfig, resolve
from lm_core.config.statements import Source
from lm_core.config.training_config import TrainingConfig
from lm_core.data.bpe import BpeTokenizer, sha256_of, text_of_file
from lm_core.data.corpus import Corpus
from lm_core.data.tokenizer import Tokenizer, depends_on_documents
from lm_core.errors import InputError, shown
from lm_core.output import warn
from lm_core.record import RunDirectory

# So many digits tell two texts apart at sight.
_SHOWN_DIGITS = 12
# What a run that is gone on with may change: none of it alters a step, but through hooks that keep
# state in evaluations. The corpus may lie elsewhere: it is compared by its text.
_CHANGEABLE = {
    "max_steps",
    "checkpoint_cadence",
    "keep_checkpoints",
    "eval_cadence",
    "early_stopping_evaluations",
    # A batch that is left out now would have ended the run before.
    "max_skipped_batches",
    "corpus",
    # A run that goes on has weights of its own: what it began with stays in the record.
    "init_from",
    # Likewise compared by its content.
    "tokenizer_file",
    # Another device gives other bits, as another machine does, which is worth a warning.
    "device",
    # So does another number of processes, and what each keeps.
    "parallelism",
    *(key for key in KEYS if key.startswith("sampling_")),
}
# What was so before there was a hyperparameter for it whose default is another.
_FORMER_VALUES = {"precision": "float32"}


class Recorded(NamedTuple):
    """The configuration in a run's record, and the hash that names it."""

    values: TrainingConfig
    config_hash: str


def record_yaml(config: ResolvedConfig, path: Path) -> str:
    """The text of the ``config.yaml`` of the run at a path."""
    flag = shlex.quote(f"--config={path / 'config.yaml'}")
    return yaml_text(config, f"python run.py {flag} runs this again")


def record_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a manifest says of a tokenizer."""
    sha256 = tokenizer.sha256 if isinstance(tokenizer, BpeTokenizer) else None
    return {"kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size, "sha256": sha256}


def tokenizer_sha256(manifest: Mapping[str, Any]) -> str | None:
    """The SHA-256 of a run's ``tokenizer.json``; None where it has none."""
    told = manifest.get("tokenizer")
    found = told.get("sha256") if isinstance(told, Mapping) else None
    return found if isinstance(found, str) else None


def recorded_tokenizer(run: RunDirectory) -> Tokenizer | None:
    """The tokenizer that stands in a run's record; None where it has no file of its own there.

    Raises:
        InputError: The file is not what the run was trained with, or cannot be read.
    """
    needed = tokenizer_sha256(run.manifest)
    if needed is None:
        return None
    try:
        text = text_of_file(run.tokenizer, str(run.tokenizer))
    except InputError as error:
        raise InputError(f"{error.message}; the run cannot go on without it") from error
    if sha256_of(text) != needed:
        message = f"{run.tokenizer} has been changed: it is not the tokenizer that the run was"
        raise InputError(f"{message} trained with, by the sha256 in its manifest.json")
    return BpeTokenizer(text)


def record_sources(config: ResolvedConfig) -> dict[str, str]:
    """Where each value was set, as a manifest keeps it."""
    return {key: str(source) for key, source in config.sources.items()}


def read_record(run: RunDirectory) -> Recorded:
    """The configuration in a run's record.

    Raises:
        InputError: It is not the one the run was trained with, by the hash in its manifest.
    """
    path = run.path / "config.yaml"
    config = resolve(ConfigSources(base=path))
    # The record states every value there was when it was written; later ones have their default.
    table = {
        key: value
        for key, value in config.values.to_dict().items()
        if config.sources[key].place != "default"
    }
    manifest = run.manifest
    digests = tokenizer_sha256(manifest), weights_sha256(manifest)
    found = config_hash(table, manifest["corpus"]["sha256"], *digests)
    if found not in (manifest.get("config_hash"), manifest.get("previous_config_hash")):
        message = f"{path} has been changed: it is not the configuration that the run was"
        raise InputError(f"{message} trained with, by the config_hash in its manifest.json")
    return Recorded(_with_former_values(config).values, found)


def weights_sha256(manifest: Mapping[str, Any]) -> str | None:
    """The SHA-256 of the weights that a run began with; None: they were random."""
    record = manifest.get("init_from")
    return record.get("sha256") if isinstance(record, Mapping) else None


def resolve_upon(
    run: RunDirectory,
    sources: ConfigSources,
    check_hooks: CheckHooks | None = None,
    check_fit: CheckFit | None = None,
) -> ResolvedConfig:
    """The configuration of a run with what sources change in it.

    Raises:
        InputError: Anything is wrong, as ``resolve`` has it.
    """
    base = replace(sources, base=run.path / "config.yaml")
    return _with_former_values(resolve(base, check_hooks, check_fit))


def as_begun(config: ResolvedConfig, recorded: str | None) -> ResolvedConfig:
    """The configuration of a run that goes on, whose beginning is what it was.

    Args:
        config: From now on.
        recorded: Where its weights were from; None: they were random.
    """
    given = config.values.init_from
    if given == recorded:
        return config
    if given is None or resolved_path(given) != recorded:
        began = f"began with {recorded}" if recorded else "began with random weights"
        warn(f"init_from ({config.sources['init_from']}) changes nothing in a run that {began}")
    return config.with_value("init_from", recorded, Source("the start of the run"))


def resolved_path(path: str) -> str:
    """The path at which weights are found from any working directory, wherever links lead then."""
    return str(Path(path).expanduser().resolve())


def _with_former_values(config: ResolvedConfig) -> ResolvedConfig:
    """A configuration upon a record, where what an older lab did not record is as it was then."""
    for key, value in _FORMER_VALUES.items():
        if config.sources[key].place == "default":
            config = config.with_value(key, value, Source("an older lab"))
    return config


def require_same_experiment(
    run: RunDirectory, recorded: Recorded, config: ResolvedConfig, corpus: Corpus | None = None
) -> None:
    """Refuses to go on with a run under a configuration that is another experiment.

    Args:
        run: The run.
        recorded: Its configuration so far.
        config: The configuration from now on.
        corpus: The text from now on; None: the same as before.

    Raises:
        InputError: Something differs that would alter the steps to come, or more steps than are to
            be done are done already; tells everything that does.
    """
    before, now = recorded.values.model_dump(), config.values.model_dump()
    differences = [
        f"{key}: {shown(before[key])} in the run, {shown(now[key])} now ({config.sources[key]})"
        for key in KEYS
        if canonical(before[key]) != canonical(now[key]) and key not in _CHANGEABLE
    ]
    differences += _another_tokenizer(run, recorded, config, goes_on=corpus is not None)
    differences += _too_few_steps(run, recorded, config)
    if corpus is not None:
        differences += _another_text(run.manifest["corpus"], config, corpus)
    if differences:
        lines = "\n  ".join(differences)
        raise InputError(f"{run.path} cannot go on with another configuration:\n  {lines}")


def _another_tokenizer(
    run: RunDirectory, recorded: Recorded, config: ResolvedConfig, goes_on: bool
) -> list[str]:
    """A line where the file of the tokenizer says something else than it did."""
    before, now = recorded.values.tokenizer_file, config.values.tokenizer_file
    place = f"({config.sources['tokenizer_file']})"
    if (before is None) != (now is None):
        return [f"tokenizer_file: {shown(before)} in the run, {shown(now)} now {place}"]
    if now is None or (before == now and not goes_on):
        return []
    then, found = tokenizer_sha256(run.manifest) or "", sha256_of(text_of_file(now))
    if then == found:
        return []
    digests = f"SHA-256 {then[:_SHOWN_DIGITS]}... then, {found[:_SHOWN_DIGITS]}... now"
    return [f"tokenizer_file: {now} is another tokenizer than before ({digests}) {place}"]


def _another_text(record: Mapping[str, Any], config: ResolvedConfig, corpus: Corpus) -> list[str]:
    with_documents = depends_on_documents(config.values.tokenizer, config.values.split_by)
    if corpus.is_recorded_in(record, with_documents):
        return []
    then, now = record["sha256"], corpus.sha256
    if then == now:
        return [f"the text of {corpus.description} is in other documents than before"]
    digests = f"SHA-256 {then[:_SHOWN_DIGITS]}... then, {now[:_SHOWN_DIGITS]}... now"
    return [f"the text of {corpus.description} is another one than before ({digests})"]


def _too_few_steps(run: RunDirectory, recorded: Recorded, config: ResolvedConfig) -> list[str]:
    n_steps = config.values.max_steps
    if n_steps >= recorded.values.max_steps:
        return []
    # What is looked at without a checkpoint needs no PyTorch.
    from lm_core.training.checkpoint_folder import list_checkpoints

    saved = [step for step, _ in list_checkpoints(run.checkpoints) if step > n_steps]
    if not saved:
        return []
    source = config.sources["max_steps"]
    return [f"max_steps: {n_steps} ({source}), and {max(saved)} are done and saved already"]


def with_first_sources(config: ResolvedConfig, run: RunDirectory) -> ResolvedConfig:
    """A configuration upon a run's, where what the record states has the source it first had.

    Args:
        config: From ``resolve_upon``.
        run: The run whose manifest knows the sources.
    """
    place = display_name(run.path / "config.yaml")
    recorded = run.manifest.get("sources")
    recorded = recorded if isinstance(recorded, Mapping) else {}
    first = {
        key: Source(str(recorded[key]))
        for key, source in config.sources.items()
        if source.place == place and key in recorded
    }
    # The lines inside the hooks are those of the record, not of where they were first set.
    lines = {} if "hooks" in first else config.lines
    return replace(config, sources=config.sources | first, lines=lines)
