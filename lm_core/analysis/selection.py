"""Which runs are meant by words on the command line."""

import glob
from collections.abc import Sequence
from pathlib import Path

from lm_core.analysis.records import RunRecord, read_run
from lm_core.command_line import path_given
from lm_core.errors import InputError, nearest, shown
from lm_core.record import RunDirectory

# What the folder of a study holds, and a run does not.
_STUDY = "study.yaml"


def select_runs(words: Sequence[str], who: str) -> list[RunRecord]:
    """The runs that words name: directories, or patterns of their names such as ``runs/a*``.

    A run that several words name, also by a link such as ``runs/latest``, is there once. Of what a
    pattern finds, what is no run is passed over; by its own name, it is refused.

    Args:
        words: The words.
        who: The flag that they belong to, for messages.

    Raises:
        InputError: A word names no run, or one that cannot be read; tells all such.
    """
    wrong: list[str] = []
    found: dict[Path, Path] = {}
    for word in words:
        try:
            for path in _paths(word, who):
                # A link never takes the place of the run that it points at.
                place = path.resolve()
                if place not in found or (found[place].is_symlink() and not path.is_symlink()):
                    found[place] = path
        except InputError as error:
            wrong.append(error.message)
    runs = []
    for path in found.values():
        try:
            runs.append(read_run(path))
        except InputError as error:
            wrong.append(f"{who}: {error.message}")
    if wrong:
        raise InputError("\n".join(dict.fromkeys(wrong)))
    return runs


def _paths(word: str, who: str) -> list[Path]:
    path = path_given(who, word)
    if path.exists() or not glob.has_magic(word):
        if (path / _STUDY).is_file() and not RunDirectory.is_at(path):
            message = f"{who}: {shown(word)} is a study, whose runs lie in its folder trials"
            raise InputError(f"{message}: '{path / 'trials' / '*'}'")
        if path.exists():
            return [path]
        near = nearest(path.name, [p.name for p in path.parent.glob("*") if p.is_dir()])
        hint = f"; did you mean {path.parent / near}?" if near else ""
        raise InputError(f"{who}: {shown(word)}: there is no such run directory{hint}")
    matches = sorted(glob.glob(str(path)))  # noqa: PTH207 -- pathlib takes no absolute patterns
    runs = [Path(match) for match in matches if RunDirectory.is_at(Path(match))]
    if not runs:
        what = "nothing" if not matches else "no run directory"
        raise InputError(f"{who}: {shown(word)} matches {what}")
    return runs
