"""The checkpoints of a run: which there are, which is the newest sound one, which may go."""

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path

from lm_core.errors import InputError, MachineError, one_line
from lm_core.training.checkpoint import (
    Checkpoint,
    CheckpointDamagedError,
    load_checkpoint,
    name_of,
    remove,
    require_folder,
)
from lm_core.training.run_state import RunState

_NAME = re.compile(r"step-([0-9]{8})", re.ASCII)
_TEMPORARY = re.compile(r"\.(step-[0-9]{8})\.(writing|replaced|removed)", re.ASCII)
# A checkpoint that goes away while it is read belongs to a run that is being trained; a few more
# looks find a newer one.
_LOOKS = 5
_WHY_NO_BEST = (
    "; the best is saved where checkpoint_cadence is a number, and goes when a better one is saved"
)


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The steps and paths of all checkpoints in a folder, oldest first, sound or not.

    Whatever has the name of one counts: a link or a file in its place is damage. One that stepped
    aside for another of its step, which then never came, is among them.

    Raises:
        MachineError: Something else is in the place of the folder, or it cannot be read.
    """
    paths = {path.name: path for path in _entries(folder)}
    found = []
    for name, path in paths.items():
        aside = _TEMPORARY.fullmatch(name)
        if aside and aside[2] == "replaced" and aside[1] not in paths:
            name = aside[1]
        if match := _NAME.fullmatch(name):
            found.append((int(match[1]), path))
    return sorted(found)


def _entries(folder: Path) -> list[Path]:
    try:
        require_folder(folder)
        return sorted(folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise MachineError(f"{folder} cannot be read: {error.strerror}") from error


def newest_sound_checkpoint(folder: Path, report: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is what was saved.

    Args:
        folder: The folder of all checkpoints of a run.
        report: Told about each damaged one that is passed over.

    Returns:
        The checkpoint, or None where there is none at all.

    Raises:
        MachineError: There are some, and all are damaged, or the folder is none.
    """
    told: list[str] = []

    def look(there: list[tuple[int, Path]]) -> Checkpoint | None:
        told.clear()
        for step, path in reversed(there):
            try:
                return load_step(path, step)
            except CheckpointDamagedError as error:
                if not os.path.lexists(path):
                    raise
                told.append(error.message)
        if there:
            message = f"none of the {len(there)} checkpoints in {folder} is sound"
            way_out = "put back sound ones, or begin anew in another run directory"
            raise MachineError("; ".join([message, *told, way_out]))
        return None

    found = _settled(folder, look)
    for message in told:
        report(f"{message}; this checkpoint is passed over")
    return found


def _settled(
    folder: Path, look: Callable[[list[tuple[int, Path]]], Checkpoint | None]
) -> Checkpoint | None:
    """What a look at the checkpoints finds; one more look where they changed in the meantime."""
    looks_left = _LOOKS
    while True:
        there, looks_left = list_checkpoints(folder), looks_left - 1
        try:
            return look(there)
        except (InputError, MachineError):
            if not looks_left or list_checkpoints(folder) == there:
                raise


def chosen_checkpoint(folder: Path, which: str, report: Callable[[str], None]) -> Checkpoint | None:
    """A checkpoint that a person asks for.

    Args:
        folder: The folder of all checkpoints of a run.
        which: ``newest``, ``best`` (by validation loss), or a step.
        report: Told about each damaged one that is passed over for the newest.

    Returns:
        The checkpoint, or None where there is none at all.

    Raises:
        InputError: There is none of this step, or no evaluation has told the best one.
        MachineError: It is damaged.
    """
    if which == "newest":
        return newest_sound_checkpoint(folder, report)

    def look(there: list[tuple[int, Path]]) -> Checkpoint | None:
        by_step = {str(step): (path, step) for step, path in there}
        if not there:
            return None
        wanted = _best_step(folder, report) if which == "best" else which
        if wanted not in by_step:
            step = f"step {wanted}, " if which == "best" else ""
            message = f"--checkpoint={one_line(which)}: {step}there is no such checkpoint"
            names = ", ".join(["newest", *(["best"] if which != "best" else []), *by_step])
            raise InputError(f"{message} (there are {names}){_WHY_NO_BEST if step else ''}")
        return load_step(*by_step[wanted])

    return _settled(folder, look)


def best_checkpoint(folder: Path, report: Callable[[str], None]) -> Checkpoint | None:
    """The checkpoint of the best evaluation; the newest one, if there was none or it is not there.

    Args:
        folder: As of ``chosen_checkpoint``.
        report: As of ``chosen_checkpoint``.

    Returns:
        As of ``chosen_checkpoint``.

    Raises:
        InputError: As of ``chosen_checkpoint``.
        MachineError: As of ``chosen_checkpoint``.
    """
    newest = newest_sound_checkpoint(folder, report)
    if newest is None:
        return None
    best = RunState.from_json(newest.state, newest.step).best_step
    if best is None or best == newest.step:
        return newest
    if best not in (step for step, _ in list_checkpoints(folder)):
        report(f"the best checkpoint, that of step {best}, was not kept; the newest is taken")
        return newest
    return chosen_checkpoint(folder, "best", report)


def _best_step(folder: Path, report: Callable[[str], None]) -> str:
    newest = newest_sound_checkpoint(folder, report)
    best = RunState.from_json(newest.state, newest.step).best_step if newest else None
    if best is None:
        raise InputError("--checkpoint=best: no evaluation was done up to the newest checkpoint")
    return str(best)


def load_step(path: Path, step: int) -> Checkpoint:
    """The checkpoint at a path, which has to be of a step.

    Raises:
        CheckpointDamagedError: It is damaged, or of another step.
        InputError: Another version of the lab wrote it in another way.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.step != step:
        raise CheckpointDamagedError(f"{path} holds step {checkpoint.step}")
    return checkpoint


def remove_superseded(
    folder: Path, keep: int | None, best_step: int | None, passed_over: Collection[int] = ()
) -> None:
    """Removes the checkpoints that the newest, which is safe on the disk, makes superfluous.

    Args:
        folder: The folder of all checkpoints of a run.
        keep: How many of the newest stay, at least 1; None: all.
        best_step: The step of the best one, which stays.
        passed_over: The steps of those that are damaged: they stay, and count for nothing.

    Raises:
        MachineError: One cannot be removed.
    """
    steps = [step for step, _ in list_checkpoints(folder) if step not in passed_over]
    staying = {*(steps if keep is None else steps[-keep:]), best_step}
    remove_checkpoints(folder, set(steps) - staying)


def remove_checkpoints(folder: Path, steps: Collection[int]) -> None:
    """Removes the checkpoints of some steps, where they are there.

    Args:
        folder: The folder of all checkpoints of a run.
        steps: Their steps.

    Raises:
        MachineError: One cannot be removed.
    """
    for step, path in list_checkpoints(folder):
        if step in steps:
            # First out of sight, so that no half of it is ever taken for a damaged one.
            gone = folder / f".{name_of(step)}.removed"
            try:
                remove(gone)
                path.rename(gone)
                remove(gone)
            except OSError as error:
                reason = error.strerror or error
                raise MachineError(f"{path} cannot be removed: {reason}") from error


def clean_up(folder: Path, report: Callable[[str], None]) -> None:
    """Removes what an interrupted save left behind.

    A checkpoint that had stepped aside for another of its step, which then never came, goes back.

    Args:
        folder: The folder of all checkpoints of a run.
        report: Told what cannot be removed; it is in nobody's way but takes space.

    Raises:
        MachineError: The folder cannot be read.
    """
    for path in _entries(folder):
        match = _TEMPORARY.fullmatch(path.name)
        try:
            if match and match[2] == "replaced" and not os.path.lexists(folder / match[1]):
                path.rename(folder / match[1])
            elif match:
                remove(path)
        except OSError as error:
            report(f"{path} is left over and cannot be removed: {error.strerror}")
