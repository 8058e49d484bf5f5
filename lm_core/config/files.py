"""The files of a configuration: found by name, read as text, named as a person would."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from lm_core.errors import InputError, nearest

# The kinds of configuration files, by their suffix, each with the flag that takes it.
FLAGS = {".yaml": "--config", ".yml": "--config", ".gin": "--gin_file"}
# A configuration is a page or two of text; what is far longer, in bytes, is not one.
LARGEST_FILE = 200_000


def is_yaml(path: Path) -> bool:
    """Whether a file is one of YAML, by its name."""
    return FLAGS.get(path.suffix) == "--config"


def display_name(path: Path) -> str:
    """A path as a person at this working directory would write it."""
    relative = os.path.relpath(path)
    return os.path.abspath(path) if relative.startswith("..") else relative  # noqa: PTH100


def find_config(
    name: str,
    folders: Iterable[Path],
    who: str,
    elsewhere: Callable[[], list[str]] = list,
    where: str = "",
) -> Path:
    """The configuration file that a name on the command line or in a file means.

    Args:
        name: A path, relative to one of the folders.
        folders: Where to look, in order.
        who: Who asks, for the message.
        elsewhere: Finds what may be meant when there is no such file.
        where: What to call the folders; empty: by their names.

    Raises:
        InputError: No such file anywhere; says where it was looked for and what is near.
    """
    folders = list(folders)
    try:
        for folder in folders:
            candidate = folder / Path(name).expanduser()
            if candidate.is_file():
                return candidate
            if candidate.exists():
                raise InputError(f"{who}: {name!r} is not a regular file")
        meant = [*elsewhere(), *_like(name, folders)]
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{who}: {name!r} cannot be opened: {error}") from error
    hint = f"; did you mean {meant[0]}?" if meant else ""
    where = where or ", ".join(dict.fromkeys(map(_folder_name, folders)))
    raise InputError(f"{who}: {name!r}: unknown file{hint} (looked in {where})")


def _like(name: str, folders: Iterable[Path]) -> list[str]:
    """The file in some folders whose name is most like another, if any is."""
    # Of the same kind, where the suffix tells one; and compared without it, since it makes names
    # look alike that are not.
    suffixes = [s for s in FLAGS if FLAGS[s] == FLAGS.get(Path(name).suffix)] or [*FLAGS]
    files = [file for folder in folders for file in sorted(folder.glob("*"))]
    names = {file.stem: file.name for file in reversed(files) if file.suffix in suffixes}
    near = nearest(Path(name).stem, names)
    return [names[near]] if near else []


def _folder_name(folder: Path) -> str:
    name = display_name(folder)
    return "the working directory" if name == "." else name


def chain(files: Iterable[Path]) -> str:
    """Files that lead from one to the next, for the message about a circle of them."""
    return " -> ".join(display_name(path) for path in files)


def read_text(path: Path) -> str:
    """The text of a configuration file.

    Raises:
        InputError: It cannot be read, is far too large, or is not UTF-8.
    """
    shown = display_name(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"{shown}: cannot be read: {error.strerror}") from error
    if len(data) > LARGEST_FILE:
        raise InputError(f"{shown}: is larger than {LARGEST_FILE:,} bytes, so no configuration")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{shown}:{line}: is not UTF-8 text") from error
