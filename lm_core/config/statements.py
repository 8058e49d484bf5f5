"""What configuration sources come down to: statements, each with the place it stands."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lm_core.config.files import display_name, read_text
from lm_core.errors import InputError

# Aliases and macros repeat what they stand for: nested ones can make terabytes of a page. No
# configuration that a person wrote comes near this many values.
MOST_VALUES = 10_000
# The same for the characters of all texts in a value.
MOST_CHARACTERS = 1_000_000
# Nesting of lists and mappings: a table of hooks is four levels deep.
DEEPEST = 50
# Files that include each other twice over can make a billion readings of thirty files.
MOST_FILES = 100


class Source(NamedTuple):
    """Where a value was set.

    Attributes:
        place: A file as a person would name it, a flag such as ``--gin_bindings``, or a word
            such as ``default`` or ``drawn``.
        line: Line in the file, counted from 1; None where there are no lines.
        macros: The macros that the value is made of, and where they were set, in words.
    """

    place: str
    line: int | None = None
    macros: str = ""

    def __str__(self) -> str:
        place = self.place if self.line is None else f"{self.place}:{self.line}"
        return f"{place} ({self.macros})" if self.macros else place


class Statement(NamedTuple):
    """One hyperparameter set to one value at one place.

    Attributes:
        key: Key of the table.
        name: The name as it was written, for messages.
        value: The value as it was written; from gin it may hold macros until they are resolved.
        source: Where it stands.
        lines: For a nested value, the line of each path inside it (``hooks.forward[0].name``).
    """

    key: str
    name: str
    value: Any
    source: Source
    lines: dict[str, int]


class Finding(NamedTuple):
    """Something wrong, in words.

    Attributes:
        source: Where it stands; None where it has no place.
        text: The whole sentence, with its place.
    """

    source: Source | None
    text: str


@dataclass
class Reading:
    """What reading sources gave: good statements in their order, and everything found wrong.

    Attributes:
        statements: The good ones.
        findings: What is wrong.
        unread: Keys that a source sets to what cannot be read: nobody knows what they are.
        is_complete: Whether nothing else can be set by what cannot be read.
        n_files: Files that have been opened.
        folders: The folders below which the files lie that others may include or extend.
        takes_study: Whether the keys of a study have a meaning here.
        study: The statements about the study, which are about no hyperparameter.
    """

    statements: list[Statement] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    is_complete: bool = True
    n_files: int = 0
    folders: set[Path] = field(default_factory=set)
    takes_study: bool = False
    study: list[Statement] = field(default_factory=list)

    def take_from(self, folder: Path) -> None:
        """Allows the files below a folder to be included and extended."""
        self.folders.add(folder.resolve())

    def require_own(self, path: Path, name: str, who: str) -> None:
        """Refuses a file that another one names, unless it lies below one of the folders.

        Args:
            path: The file.
            name: Its name as it was written.
            who: What names it, for the message.

        Raises:
            InputError: It lies elsewhere.
        """
        resolved = path.resolve()
        if not any(resolved.is_relative_to(folder) for folder in self.folders):
            flag = shlex.quote(f"--gin_search_paths={display_name(resolved.parent)}")
            message = f"{name!r} lies outside the folders of this configuration"
            raise InputError(f"{who}: {message}; {flag} allows its folder")

    def open(self, path: Path) -> str:
        """The text of a configuration file, which counts as one of the files of this reading.

        Raises:
            InputError: It cannot be read, or is one file too many.
        """
        self.n_files += 1
        if self.n_files > MOST_FILES:
            message = f"more than {MOST_FILES} files are read for this configuration"
            raise InputError(f"{display_name(path)}: {message}")
        return read_text(path)

    def problem(self, source: Source, message: str) -> None:
        """Notes something wrong at a place."""
        self.findings.append(Finding(source, f"{source}: {message}"))

    def failure(self, error: InputError, source: Source | None = None) -> None:
        """Notes that a file cannot be read at all, and the place that asked for it."""
        self.is_complete = False
        self.findings.append(Finding(source, error.message))

    def add(self, statement: Statement, seen: dict[str, Source]) -> None:
        """Takes a statement, unless the same file has already set the same key.

        Args:
            statement: The statement.
            seen: The keys that this file has set so far, and where; the caller starts a new one
                for each file.
        """
        if statement.key in seen and statement.source.line is not None:
            message = f"set twice in this file, first in line {seen[statement.key].line}"
            self.problem(statement.source, f"{statement.name}: {message}")
            self.unread.add(statement.key)  # Which of the two is meant, nobody knows.
        else:
            seen[statement.key] = statement.source
            self.statements.append(statement)
