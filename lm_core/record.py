"""The run directory: everything that is known about a run, on disk.

```
runs/NAME/
  config.yaml      every resolved value; --config=runs/NAME/config.yaml runs it again
  config.gin       the same as gin bindings, each with a comment saying where it was set
  tokenizer.json   the tokenizer, of runs with tokenizer bpe
  manifest.json    versions, git commit, numerics, corpus, command line, start, outcome, resumes
  metrics.jsonl    one line a step
  samples.jsonl    one line a sample
  report.html      curves, samples, configuration: one file, opens anywhere
  checkpoints/     one folder a checkpoint
  tensorboard/     events for TensorBoard, where --tensorboard asks for them
  .lock            held by the process that writes here
```
"""

import contextlib
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from lm_core.atomic_files import replace_file, write_synced
from lm_core.errors import InputError, MachineError
from lm_core.followers import Follower
from lm_core.json_lines import append_rows, cannot_write, rewind
from lm_core.new_folders import new_folder, unfinished_path
from lm_core.run_lock import RunLock, is_held

# What the lab itself says of a step, in ``metrics.jsonl``; hooks report under other names.
COLUMNS = (
    "step",
    "train_loss",
    "learning_rate",
    "muon_learning_rate",
    "grad_norm",
    "tokens_per_second",
    "skipped_batches",
    "val_loss",
    "bits_per_byte",
)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
# File systems take names of 255 bytes; the time and a number follow.
_LONGEST_NAME = 60
LATEST = "latest"
# The outcome of an imported run, in its manifest.
IMPORTED = "imported"
_CONFIG = "config.yaml"
# The example of a name in a folder that cannot be the run directory itself.
_INSIDE = "run"
_MANIFEST = "manifest.json"
# Where ``atomic_files.temporary_name`` has a file written before it takes its name.
_LEFTOVER = re.compile(r"\.[a-z]+\.[a-z]+\.[0-9]+\.tmp", re.ASCII)
# A manifest has some thousand bytes for each resume; what is larger than this is something else.
_LARGEST_MANIFEST = 16 * 2**20


class RunDirectory:
    """A run on disk; made by ``create`` or ``open``.

    Attributes:
        path: The folder.
        lock: Held by who writes; None: nothing is looked after.
        follower: Is told of metrics and samples once they are written.
    """

    def __init__(self, path: Path, lock: RunLock | None = None) -> None:
        self.path = path
        self.lock = lock
        self.follower = Follower()

    def require_own(self) -> None:
        """Refuses to write where another run may be by now.

        Raises:
            MachineError: What has the run's name is no longer what this process has locked.
        """
        if self.lock is not None and not self.lock.is_of(self.path):
            message = f"{self.path} is no longer the run directory that this process writes to"
            raise MachineError(f"{message}: it was moved or replaced, or its .lock was removed")

    @property
    def is_held(self) -> bool | None:
        """Whether a process writes here now; None where the system does not tell."""
        return is_held(self.path)

    @property
    def is_imported(self) -> bool:
        """Whether it was imported: it has a model, and neither a text nor steps."""
        try:
            return self.manifest.get("outcome") == IMPORTED
        except InputError:
            return False

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.path / "checkpoints"

    @property
    def has_both_configs(self) -> bool:
        """Whether both forms of the configuration are there."""
        return all((self.path / name).is_file() for name in (_CONFIG, "config.gin"))

    @property
    def tokenizer(self) -> Path:
        """The tokenizer of a run with byte-level BPE, as the package ``tokenizers`` has it."""
        return self.path / "tokenizer.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line, one line a step."""
        return self.path / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """One JSON object a line, one line a sample."""
        return self.path / "samples.jsonl"

    @property
    def manifest(self) -> dict[str, Any]:
        """What is known about the run as a whole.

        Raises:
            InputError: It cannot be read, or is no manifest.
        """
        path = self.path / _MANIFEST
        try:
            with path.open("rb") as stream:
                # What is cut off here is no JSON.
                manifest = json.loads(stream.read(_LARGEST_MANIFEST))
            is_manifest = isinstance(manifest["corpus"]["sha256"], str)
            starts = [manifest, *manifest.get("resumed", [])]
            is_manifest &= all(isinstance(start.get("numerics", {}), dict) for start in starts)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} is no manifest of a run") from error
        if not is_manifest:
            raise InputError(f"{path} is no manifest of a run")
        return manifest

    @classmethod
    def create(
        cls,
        path: Path,
        config_yaml: str,
        config_gin: str,
        manifest: Mapping[str, Any],
        lock: RunLock | None = None,
        tokenizer_json: str | None = None,
    ) -> "RunDirectory":
        """Makes the directory of a new run. Where that fails, nothing of it stays.

        Args:
            path: Where.
            config_yaml: Its configuration in YAML.
            config_gin: The same in gin.
            manifest: What is known about it.
            lock: Keeps other writers away, from before anybody can see the directory.
            tokenizer_json: The content of its ``tokenizer.json``; None: it has none.

        Raises:
            InputError: There is something already, or the folder cannot be made there.
            MachineError: The disk is full or fails.
        """
        refuse_occupied(path)
        # A rename takes the place of an empty folder, but not of a link to one.
        path = path.resolve() if path.name in ("", "..") or path.is_symlink() else path
        with new_folder(path, "run directory", "--run_dir", refuse_occupied) as folder:
            if lock is not None:
                _take(lock, folder, path)
            run = cls(folder)
            run.checkpoints.mkdir()
            write_synced(folder / _CONFIG, config_yaml.encode())
            write_synced(folder / "config.gin", config_gin.encode())
            if tokenizer_json is not None:
                write_synced(run.tokenizer, tokenizer_json.encode())
            write_synced(run.metrics, b"")
            write_synced(run.samples, b"")
            write_synced(folder / _MANIFEST, _json(manifest))
        return cls(path, lock)

    @classmethod
    def is_at(cls, path: Path) -> bool:
        """Whether a run is in a directory, whole or not: something has its manifest's name.

        Raises:
            InputError: The system does not let anybody look.
        """
        try:
            return path.is_dir() and _MANIFEST in {entry.name for entry in path.iterdir()}
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """The run in a directory.

        Raises:
            InputError: There is none.
        """
        if not os.path.isdir(path):  # noqa: PTH112 -- where the system forbids to look, false
            raise InputError(f"{path} is no run directory: there is no such folder")
        try:
            for name in (_CONFIG, _MANIFEST):
                file = path / name
                if file.is_symlink() and not file.exists():
                    raise InputError(f"{file} is a link that leads nowhere; put the file there")
                if not file.is_file():
                    raise InputError(f"{path} is no run directory: it has no {name}")
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        # The link `latest` may point elsewhere before the command is done.
        run = cls(path.parent / path.readlink() if path.is_symlink() else path)
        _ = run.manifest
        return run

    def write_config(self, config_yaml: str, config_gin: str) -> None:
        """Puts another configuration in the place of the one there is, in both its forms.

        Raises:
            MachineError: It cannot be written; the old one stands, or one form of it.
        """
        self._replace(_CONFIG, config_yaml.encode())
        self._replace("config.gin", config_gin.encode())

    def update_manifest(self, **fields: Any) -> None:
        """Sets fields of the manifest.

        Raises:
            MachineError: It cannot be written; the old one stands.
        """
        self._replace(_MANIFEST, _json(self.manifest | fields))

    def _replace(self, name: str, data: bytes) -> None:
        self.require_own()
        try:
            replace_file(self.path / name, data)
        except OSError as error:
            raise cannot_write(self.path / name, error) from error

    def append_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds lines to ``metrics.jsonl``; what JSON has no number for becomes null.

        Raises:
            MachineError: They cannot be written.
        """
        self.require_own()
        rows = list(rows)
        append_rows(self.metrics, rows)
        self.follower.metrics(rows)

    def append_samples(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds lines to ``samples.jsonl``, all of them or none.

        Raises:
            MachineError: They cannot be written.
        """
        self.require_own()
        rows = list(rows)
        append_rows(self.samples, rows)
        self.follower.samples(rows)

    def sync(self) -> None:
        """Waits until the disk has all metrics and samples.

        Raises:
            MachineError: It cannot take them.
        """
        for path in (self.metrics, self.samples):
            try:
                with path.open("ab") as stream:
                    os.fsync(stream.fileno())
            except OSError as error:
                raise cannot_write(path, error) from error

    def rewind(
        self,
        step: int,
        sampled_step: int | None = None,
        row: Mapping[str, Any] | None = None,
    ) -> int:
        """Forgets metrics and samples after a step, and a last line that is only half there.

        What an interrupted writer left of other files goes too.

        Args:
            step: The step.
            sampled_step: The last step whose samples stay; None: the same.
            row: The metrics of the step, to be put there where they are lost.

        Returns:
            How many steps up to this one have no line of metrics.

        Raises:
            MachineError: The files cannot be written, or are no files.
        """
        _remove_leftovers(self.path)
        left = rewind(self.metrics, step)
        n_missing = step - left.n
        if row is not None and left.last_step < step:
            append_rows(self.metrics, [row])
            n_missing -= 1
        rewind(self.samples, step if sampled_step is None else sampled_step)
        return n_missing

    def link_latest(self) -> None:
        """Points the link ``latest`` beside this directory at it, where links can be made."""
        link = self.path.parent / LATEST
        if link.exists() and not link.is_symlink():
            return
        temporary = unfinished_path(link)
        try:
            temporary.symlink_to(self.path.name, target_is_directory=True)
            temporary.replace(link)
        except BaseException as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            if not isinstance(error, OSError):
                raise


def default_run_path(name: str, root: Path = Path("runs"), now: datetime | None = None) -> Path:
    """A path for a new run: ``runs/NAME-20261123-091500``, with a number where that is taken."""
    safe = _UNSAFE.sub("-", name).strip("-.")[:_LONGEST_NAME] or "run"
    stem = f"{safe}-{now or datetime.now():%Y%m%d-%H%M%S}"
    path, number = root / stem, 1
    while path.exists():
        number += 1
        path = root / f"{stem}-{number}"
    return path


def refuse_occupied(path: Path) -> None:
    """Refuses a place for a new run where there is something already; an empty folder is nothing.

    Raises:
        InputError: There is, or the system does not let anybody look.
    """
    try:
        if not path.exists() and not path.is_symlink():
            return
        if not path.is_dir():
            place = "a link that leads nowhere" if path.is_symlink() else "a file"
            raise InputError(f"the run directory {path} cannot be made: {place} is in its place")
        names = {entry.name for entry in path.iterdir()}
        if not names and path.samefile(Path.cwd()):
            # Another folder would be put in its place, under the feet of the shell.
            message = f"the run directory {path} is where this command stands"
            raise InputError(f"{message}; name one in it, such as {_INSIDE}")
    except OSError as error:
        raise InputError(f"the run directory {path} cannot be made: {error.strerror}") from error
    if _MANIFEST in names and RunDirectory(path).is_imported:
        message = f"{path} already holds an imported model"
        raise InputError(f"{message}: another --run_dir holds the run that begins with it")
    if _MANIFEST in names:
        message = f"{path} already holds a run: --resume goes on with it"
        raise InputError(f"{message}, another --run_dir starts a new one")
    if {_CONFIG, "checkpoints"} <= names:
        message = f"{path} holds a run without its {_MANIFEST}, which cannot be gone on with"
        again = f"--config={shlex.quote(str(path / _CONFIG))} runs it again, in another --run_dir"
        raise InputError(f"{message}: put the file back, or {again}")
    if names:
        raise InputError(f"{path} is not empty, and holds no run: --run_dir names another one")


def _take(lock: RunLock, folder: Path, path: Path) -> None:
    """Takes the lock of a run that is being made; what fails is told by the name it will have."""
    try:
        lock.take(folder)
    except MachineError as error:
        words = error.message.replace(str(folder), str(path))
        raise MachineError(f"{words}; --run_dir names another place") from error


def _remove_leftovers(folder: Path) -> None:
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
