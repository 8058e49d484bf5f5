"""Checkpoints: folders that are there whole or not at all, verified before they are parsed.

```
step-00001000/
  model.safetensors      the weights
  optimizer.safetensors  the optimizer's state
  hooks.safetensors      what hooks keep; only where some do
  state.json             step, seed, how to build model and tokenizer again
  checksums.json         size and SHA-256 of each file above, and of this list itself
```
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from lm_core.atomic_files import sync_folder, write_synced
from lm_core.errors import InputError, MachineError, shown
from lm_core.machine import most_memory
from lm_core.training.tensor_files import write_tensors

_CHECKSUMS = "checksums.json"
_STATE = "state.json"
_TENSOR_FILES = ("model.safetensors", "optimizer.safetensors", "hooks.safetensors")
_NEEDED = {_STATE, "model.safetensors", "optimizer.safetensors"}
# The list of checksums has one short line a file; what is larger is something else.
_LARGEST_CHECKSUMS = 10_000
# Characters of what a library has to say about a file.
_LONGEST_REASON = 200
# The number of this way to write a checkpoint; another way gets another number.
_FORMAT = 3
# Those that can be read: 1 knew no step that is not done with, 2 no other row than that of one.
_READABLE_FORMATS = {1, 2, _FORMAT}


# What the system says when a file is gone, or something else is in its place.
_SIGNS_OF_DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


class CheckpointDamagedError(MachineError):
    """A checkpoint is not what was saved; the message names the file and what is wrong."""


@dataclass
class Checkpoint:
    """Everything that training needs to go on.

    Attributes:
        step: Steps done.
        model: The weights by name.
        optimizer: The optimizer's state by parameter and kind.
        hooks: What hooks keep.
        state: Everything that is no tensor, as JSON.
        path: Where it was read; None: nowhere.
    """

    step: int
    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    hooks: dict[str, torch.Tensor] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint under a temporary name, and gives it its own when it is complete.

    Args:
        folder: The folder of all checkpoints of a run; made if it is missing.
        checkpoint: What to save. A checkpoint of the same step is replaced.

    Returns:
        Its path.

    Raises:
        MachineError: It cannot be written. Earlier checkpoints are untouched.
    """
    path = folder / name_of(checkpoint.step)
    temporary = folder / f".{path.name}.writing"
    require_folder(folder)
    try:
        if not folder.exists():
            folder.mkdir()
            sync_folder(folder.parent)
        remove(temporary)
        temporary.mkdir()
        _write_files(temporary, checkpoint)
        sync_folder(temporary)
        _put_in_place(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            remove(temporary)
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or error
        message = f"the checkpoint of step {checkpoint.step} cannot be saved in {folder}: {reason}"
        raise MachineError(f"{message}; earlier checkpoints are untouched") from error
    # What cannot go now goes at the next save of this step, or when the run goes on.
    with contextlib.suppress(OSError):
        remove(_aside(path))
    return path


def name_of(step: int) -> str:
    """The name of the folder of the checkpoint of a step."""
    return f"step-{step:08d}"


def require_folder(folder: Path) -> None:
    """Refuses to take for the folder of checkpoints what is none, or leads elsewhere.

    Raises:
        MachineError: It is a link, a file, or something else.
    """
    if folder.is_symlink():
        raise MachineError(f"{folder} is a link, which could lead anywhere: put a folder there")
    if folder.exists() and not folder.is_dir():
        raise MachineError(f"{folder} is no folder")


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    groups = (checkpoint.model, checkpoint.optimizer, checkpoint.hooks)
    files: dict[str, dict[str, Any]] = {}
    for name, group in zip(_TENSOR_FILES, groups, strict=True):
        if group or name in _NEEDED:
            n_bytes, sha256 = write_tensors(folder / name, group)
            files[name] = {"bytes": n_bytes, "sha256": sha256}
    state = _json({**checkpoint.state, "step": checkpoint.step, "format": _FORMAT})
    files[_STATE] = {"bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}
    write_synced(folder / _STATE, state)
    write_synced(folder / _CHECKSUMS, _json({"files": files, "sha256": _digest_of_list(files)}))


def _put_in_place(temporary: Path, path: Path) -> None:
    """Renames a complete folder; one of the same step steps aside first and goes afterwards."""
    replaced = _aside(path)
    remove(replaced)
    if os.path.lexists(path):
        path.rename(replaced)
    try:
        temporary.rename(path)
    except BaseException:
        if os.path.lexists(replaced) and not os.path.lexists(path):
            replaced.rename(path)
        raise
    # The new one is safe before the old one goes.
    sync_folder(path.parent)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint after making sure that it is, byte for byte, what was saved.

    Raises:
        CheckpointDamagedError: It is not.
        MachineError: It cannot be read, for a reason that may pass.
        InputError: Another version of the lab wrote it in another way.
    """
    try:
        contents = _verified_contents(path)
        # One file after the other, so that no more than one of them is in memory twice.
        model, optimizer, hooks = (
            _tensors(contents.pop(name)) if name in contents else {} for name in _TENSOR_FILES
        )
        state = json.loads(contents[_STATE])
        step, written_as = state["step"], state.pop("format")
        if type(step) is not int or type(written_as) is not int:
            raise ValueError("its step or its format is no integer")
    except OSError as error:
        message = f"{error.filename or path} cannot be read: {error.strerror}"
        if error.errno in _SIGNS_OF_DAMAGE:
            raise CheckpointDamagedError(message) from error
        # It may be sound: to pass over it would be to lose it.
        raise MachineError(f"{message}; mend that, or move {path} away to do without it") from error
    except MemoryError as error:
        raise MachineError(f"{path} does not fit into memory") from error
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        # PyTorch adds where in its own code it was.
        words = str(error).partition("\n")[0][:_LONGEST_REASON]
        raise CheckpointDamagedError(f"{path} holds no checkpoint: {words}") from error
    if written_as not in _READABLE_FORMATS:
        message = f"{path} is of format {shown(written_as)}, this version of the lab reads"
        raise InputError(f"{message} up to format {_FORMAT}; use the version that wrote it")
    return Checkpoint(step, model, optimizer, hooks, state, path)


def _tensors(data: bytes) -> dict[str, torch.Tensor]:
    """The tensors in the content of a file, in memory of their own.

    Raises:
        SafetensorError: It is no such content.
        MemoryError: There is too little memory.
    """
    # The library copies it. Where there is no memory for that, the library ends in a page about its
    # own inside: better to ask before.
    bytes(len(data))
    return load(data)


def _verified_contents(path: Path) -> dict[str, bytes]:
    if path.is_symlink():
        raise CheckpointDamagedError(f"{path} is a link")
    files = _read_checksums(path)
    there = {entry.name for entry in os.scandir(path)} - {_CHECKSUMS}
    for name in sorted(there ^ set(files)):
        problem = "is missing" if name in files else "does not belong there"
        raise CheckpointDamagedError(f"{path / name} {problem}")
    for name, entry in files.items():
        if (size := (path / name).lstat().st_size) != entry["bytes"]:
            message = f"{path / name} has {size:,} bytes instead of {shown(entry['bytes'])}"
            raise CheckpointDamagedError(message)
    sizes = [entry["bytes"] for entry in files.values()]
    # All of them, and one twice, while tensors are taken from it.
    _require_memory(path, sum(sizes) + max(sizes))
    return {name: _verified_file(path / name, entry) for name, entry in files.items()}


def _require_memory(path: Path, n_bytes: int) -> None:
    """Refuses to read what cannot fit: files may look larger than what was ever written to them."""
    most = most_memory()
    if most is not None and n_bytes > most:
        message = f"{path} needs {n_bytes:,} bytes of memory, this machine has {most:,}"
        raise MachineError(f"{message}; move it away to do without it")


def _read_checksums(path: Path) -> dict[str, dict[str, Any]]:
    source = path / _CHECKSUMS
    data = _read_regular(source, _LARGEST_CHECKSUMS)
    try:
        listed = json.loads(data)
        files = listed["files"]
        is_sound = data == _json({"files": files, "sha256": _digest_of_list(files)})
        names = set(files)
        sizes = [entry["bytes"] for entry in files.values()]
        is_sound &= all(type(entry["sha256"]) is str for entry in files.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointDamagedError(f"{source} is damaged") from error
    if not is_sound or not names >= _NEEDED or not names <= {_STATE, *_TENSOR_FILES}:
        raise CheckpointDamagedError(f"{source} is damaged")
    if any(type(size) is not int or size < 0 for size in sizes):
        raise CheckpointDamagedError(f"{source} is damaged")
    return files


def _verified_file(path: Path, entry: dict[str, Any]) -> bytes:
    data = _read_regular(path, entry["bytes"])
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise CheckpointDamagedError(f"{path} does not have the SHA-256 it was saved with")
    return data


def _read_regular(path: Path, most: int) -> bytes:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise CheckpointDamagedError(f"{path} is not a regular file")
    with open(path, "rb", opener=_not_through_links) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise CheckpointDamagedError(f"{path} is larger than it may be")
    return data


def _not_through_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def remove(path: Path) -> None:
    """Removes what has a name, whatever it is; nothing where nothing has it."""
    if not os.path.lexists(path):
        return
    # Only a real folder is opened: to look into a pipe would wait for ever.
    if stat.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(path)
    else:
        path.unlink()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _digest_of_list(files: Any) -> str:
    return hashlib.sha256(_json(files)).hexdigest()
