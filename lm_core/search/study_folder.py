"""The folder of a study: everything that is known about it, and the runs that it made.

```
studies/NAME/
  study.yaml       the study: what is searched, and how; --mode=search --config takes it
  base.yaml        every value of the trials, but for what is searched
  study.journal    the trials and their losses, unless a database has them
  trials/0000/     an ordinary run directory for each trial
  logs/0000.txt    what its process said
  best/0007/seed-1/  the winner, trial 7, on a fresh seed
  best.yaml        the winner's configuration
  report.html      what was tried, what mattered, and how the trials went
  damaged/0001-1/  a run that could not be gone on with, or was of another text
  locks/           held by the processes that work here
```
"""

import itertools
import socket
from pathlib import Path

from lm_core.atomic_files import replace_file
from lm_core.config.rendering import yaml_text, yaml_value
from lm_core.errors import InputError, MachineError, one_line
from lm_core.json_lines import cannot_write
from lm_core.search.locks import FileLock
from lm_core.search.study import Study

STUDY, BASE, JOURNAL, BEST = "study.yaml", "base.yaml", "study.journal", "best.yaml"
# What a folder of a study may hold before its first trial, left there by a kill.
_OWN = {STUDY, BASE, JOURNAL, f"{JOURNAL}.lock", "locks", "logs", "trials"}


class StudyFolder:
    """The folder of a study.

    Args:
        path: Where it is.

    Raises:
        InputError: It is no folder, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            names = {entry.name for entry in path.iterdir()} if path.exists() else set()
        except OSError as error:
            message = f"{path} is no folder for a study: {error.strerror}"
            raise InputError(f"{message}; --run_dir names another one") from error
        if "manifest.json" in names:
            raise InputError(f"{path} holds a run, no study; --run_dir names another folder")
        has_study = STUDY in names or JOURNAL in names
        strange = {name for name in names - _OWN if not name.startswith(".")}
        if strange and not has_study:
            some = one_line(", ".join(sorted(strange)[:3]))
            message = f"{path} holds other files ({some}), and no study"
            raise InputError(f"{message}; --run_dir names another folder")

    @property
    def journal(self) -> Path:
        """The file of Optuna's journal."""
        return self.path / JOURNAL

    @property
    def base(self) -> Path:
        """The configuration that all trials share."""
        return self.path / BASE

    @property
    def best(self) -> Path:
        """The winner's configuration."""
        return self.path / BEST

    @property
    def owner(self) -> str:
        """Who runs trials here: this machine, and this folder."""
        return f"{socket.gethostname()}:{self.path.resolve()}"

    @property
    def has_trials(self) -> bool:
        """Whether there are runs of trials."""
        trials = self.path / "trials"
        return trials.is_dir() and any(trials.iterdir())

    def require_journal(self) -> None:
        """Looks whether the trials that are here have a journal.

        Raises:
            InputError: There is none.
        """
        is_there = self.journal.exists() and self.journal.stat().st_size > 0
        if self.has_trials and not is_there:
            message = f"{self.path} holds trials, and its {JOURNAL} is missing: put it back, or "
            message += "name the database that has the study with --storage, or another folder"
            raise InputError(f"{message} with --run_dir")

    def trial(self, name: str) -> Path:
        """The run directory of a trial."""
        return self.path / "trials" / name

    def set_aside(self, run_dir: Path, name: str) -> None:
        """Moves the directory of a run that cannot go on to where nothing looks for it.

        Args:
            run_dir: The directory.
            name: The run's name.

        Raises:
            MachineError: It cannot be moved.
        """
        damaged = self.path / "damaged"
        try:
            damaged.mkdir(exist_ok=True)
            taken = {entry.name for entry in damaged.iterdir()}
            places = (f"{name}-{n}" for n in itertools.count(1))
            run_dir.rename(damaged / next(place for place in places if place not in taken))
        except OSError as error:
            raise MachineError(f"{run_dir} cannot be moved: {error.strerror}") from error

    def log(self, name: str) -> Path:
        """What the process of a trial said."""
        return self.path / "logs" / f"{name}.txt"

    def fresh(self, winner: str, seed: int) -> Path:
        """The run directory of the winner on a fresh seed."""
        return self.path / "best" / winner / f"seed-{seed}"

    def lock(self, name: str) -> FileLock:
        """A lock that processes on this machine agree upon."""
        return FileLock(self.path / "locks" / f"{name}.lock")

    def make(self) -> None:
        """Makes the folder, if there is none.

        Raises:
            InputError: It cannot be made there.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"{self.path} cannot be made: {error.strerror}"
            raise InputError(f"{message}; --run_dir names another folder") from error

    def write_study(self, study: Study) -> None:
        """Writes the study as it is now.

        Raises:
            MachineError: It cannot be written.
        """
        header = "the base of the trials of this study: what is searched has one of its values"
        self.write(BASE, yaml_text(study.base, header))
        self.write(STUDY, study_text(study))

    def write(self, name: str, text: str) -> None:
        """Puts a text in a file, all of it or nothing.

        Raises:
            MachineError: It cannot be written.
        """
        path, data = self.path / name, text.encode()
        try:
            if not path.is_file() or path.read_bytes() != data:
                replace_file(path, data)
        except OSError as error:
            raise cannot_write(path, error) from error


def default_folder(name: str) -> Path:
    """The folder of a study without ``--run_dir``: always the same, so that it is gone on with.

    Args:
        name: The name of its file.
    """
    return Path("studies") / Path(name).stem


def study_text(study: Study) -> str:
    """A study as a file that ``--mode=search --config`` takes."""
    settings, sources = study.settings, study.sources
    lines = [
        "# The study as it was found; behind each line, where it was said.",
        "",
        f"extends: {BASE}",
        "",
        f"search:  # {one_line(str(sources['search']))}",
    ]
    for key, distribution in settings.space.items():
        source = one_line(str(study.config.sources[key]))
        lines.append(f"  {key}: {yaml_value(distribution.plain())}  # {source}")
    for key in ("trials", "sampler", "pruner", "seeds_for_best"):
        source = one_line(str(sources.get(key, "default")))
        lines.append(f"{key}: {yaml_value(getattr(settings, key))}  # {source}")
    return "\n".join(lines) + "\n"
