"""Going on with a run: what its record says, what may change, and back to its newest checkpoint."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from lm_core.config.rendering import canonical, gin_text
from lm_core.config.resolution import ResolvedConfig
from lm_core.errors import InputError, MachineError, shown
from lm_core.output import warn
from lm_core.parallel.group import Group
from lm_core.record import RunDirectory
from lm_core.recorded_config import (
    Recorded,
    record_sources,
    record_yaml,
)
from lm_core.training.checkpoint import Checkpoint, name_of
from lm_core.training.checkpoint_folder import (
    clean_up,
    list_checkpoints,
    newest_sound_checkpoint,
)
from lm_core.training.shared_checkpoint import shared_checkpoint
from lm_core.training.trainer import Trainer

# How a run "ended" that has not: it goes on, or was killed.
_RUNNING = "running"
# The history has the newest resumes, so that a run that is restarted every minute stays readable.
_LONGEST_HISTORY = 1000
# Together they are no larger than this, so that a manifest stays far below what is still read.
_LARGEST_HISTORY_BYTES = 2 * 2**20


def take_up(
    run: RunDirectory, trainer: Trainer, manifest: dict[str, Any], group: Group
) -> dict[str, Any]:
    """Puts a trainer where the newest sound checkpoint of a run left it, or to its start.

    Nothing changes on the disk, but that what an interrupted save left behind goes.

    Args:
        run: The run.
        trainer: Built for the same experiment; takes the checkpoint.
        manifest: What a new run would have as its manifest; becomes the newest in the history.
        group: The processes of the run; the others take up what this one reads (``follow``).

    Returns:
        The fields of the manifest that say that the run goes on, to be set when it does.

    Raises:
        InputError: The checkpoint is of another experiment.
        MachineError: No checkpoint is sound, or all are lost.
    """
    _warn_of_another_world(run, manifest)
    clean_up(run.checkpoints, warn)
    checkpoint = shared_checkpoint(group, newest_sound_checkpoint(run.checkpoints, warn))
    if checkpoint is not None:
        trainer.restore(checkpoint)
    _require_none_lost(run, checkpoint)
    history = [*run.manifest.get("resumed", []), _taken_up(run.manifest, trainer.step, manifest)]
    return {
        "resumed": _newest(history),
        "outcome": _RUNNING,
        "reason": None,
        "end": None,
        "last_step": trainer.step,
        "saved_step": trainer.saved_step,
    }


def follow(trainer: Trainer, group: Group) -> None:
    """Puts a trainer where ``take_up`` puts that of the first process.

    Raises:
        LabError: As ``take_up`` has it.
    """
    checkpoint = shared_checkpoint(group, None)
    if checkpoint is not None:
        trainer.restore(checkpoint)


def _require_none_lost(run: RunDirectory, newest: Checkpoint | None) -> None:
    """Warns of a newer checkpoint that is gone, and refuses to begin anew where there were some.

    Raises:
        MachineError: There were checkpoints, and there are none any more.
    """
    saved = run.manifest.get("saved_step")
    if type(saved) is not int or not saved:
        return
    if newest is None:
        message = f"{run.checkpoints} has lost its checkpoints, that of step {saved} among them"
        raise MachineError(f"{message}: put them back, or begin anew in another --run_dir")
    there = [step for step, _ in list_checkpoints(run.checkpoints)]
    if newest.step < saved and saved not in there:
        warn(f"{run.checkpoints / name_of(saved)} is gone: the run goes on from an older one")


@contextlib.contextmanager
def failures_told(trainer: Trainer) -> Iterator[None]:
    """Says with what ends a run before its time how it goes on.

    Raises:
        InputError: One came, from a hook, and says it now.
        MachineError: Likewise.
    """
    try:
        yield
    except (InputError, MachineError) as error:
        saved = trainer.saved_step
        goes_on = f"goes on after step {saved}" if saved else "starts again from the first step"
        raise type(error)(f"{error.message}; when that is mended, --resume {goes_on}") from error


def go_on(
    run: RunDirectory,
    recorded: Recorded,
    config: ResolvedConfig,
    trainer: Trainer,
    manifest: dict[str, Any],
) -> None:
    """Makes the record that of a run which goes on after the trainer's step.

    Args:
        run: The run.
        recorded: Its configuration so far.
        config: The configuration from now on, of the same experiment.
        trainer: Has taken the run up.
        manifest: What a new run would have as its manifest.

    Raises:
        MachineError: It cannot be written.
    """
    n_missing = trainer.rewind(run)
    if n_missing:
        warn(f"{run.metrics}: the lines of {n_missing:,} earlier steps are lost")
    if not _equal(recorded, config) or _may_be_half_written(run):
        # Both hashes stand there before the configuration changes: a kill in between does no harm.
        run.update_manifest(
            config_hash=manifest["config_hash"],
            previous_config_hash=recorded.config_hash,
            sources=record_sources(config),
        )
        run.write_config(record_yaml(config, run.path), gin_text(config))


def _newest(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest entries of a history, as many as it may have."""
    newest = list(reversed(history[-_LONGEST_HISTORY:]))
    sizes = itertools.accumulate(len(json.dumps(entry)) for entry in newest)
    fitting = [
        entry for entry, size in zip(newest, sizes, strict=True) if size <= _LARGEST_HISTORY_BYTES
    ]
    return list(reversed(fitting))


def _equal(recorded: Recorded, config: ResolvedConfig) -> bool:
    return canonical(recorded.values.model_dump()) == canonical(config.values.model_dump())


def _may_be_half_written(run: RunDirectory) -> bool:
    """Whether the last resume changed the configuration: a kill may have parted its two files."""
    manifest = run.manifest
    newest = manifest.get("config_hash")
    return manifest.get("previous_config_hash", newest) != newest or not run.has_both_configs


def _taken_up(before: Mapping[str, Any], step: int, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of the history about this resume: how the run had ended, and what goes on.

    How it ends this time stands at the top of the manifest, as for every run.
    """
    ended = {name: before.get(name) for name in ("outcome", "reason", "end", "last_step")}
    if ended["outcome"] == _RUNNING:
        # Nobody holds the run, so its process ended without a word.
        ended["outcome"] = "killed"
        ended["reason"] = "its end is not on record: it was killed, or could not write any more"
    goes_on = {name: value for name, value in manifest.items() if name not in ended}
    return {"step": step, "before": ended, **goes_on}


def _warn_of_another_world(run: RunDirectory, manifest: Mapping[str, Any]) -> None:
    """Warns of what is neither configuration nor text and decides about the steps all the same."""
    last = [run.manifest, *run.manifest.get("resumed", [])][-1]
    changes = _changes(last.get("numerics"), manifest["numerics"])
    if changes:
        message = f"{'; '.join(changes)}: the run goes on, but not bit for bit as it would have"
        warn(f"another machine or setting than {run.path} had: {message}")
    git = manifest["git"]
    # Whether there are other changes is no news: a new configuration is one.
    changes = _changes(last.get("git"), {"commit": git["commit"]} if git else {})
    if changes:
        who = f"another commit of the lab than {run.path} had"
        warn(f"{who}: {'; '.join(changes)}: the run goes on, with steps that may be others")
    before, now = last.get("modules"), manifest["modules"]
    if not isinstance(before, dict):
        return
    changes = _changes(dict.fromkeys(now) | before, dict.fromkeys(before) | now)
    if changes:
        who = f"other code in modules than {run.path} had, by SHA-256"
        warn(f"{who}: {'; '.join(changes)}: the run goes on, with hooks that may be others")


def _changes(then: Any, now: Mapping[str, Any]) -> list[str]:
    # What a run of an older lab does not tell is no difference.
    then = then if isinstance(then, Mapping) else {}
    return [
        f"{name} {shown(then[name])} then, {shown(value)} now"
        for name, value in now.items()
        if name in then and then[name] != value
    ]
