"""The errors a person is meant to read, the words they use, and their exit codes."""

import difflib
import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

# A message stays readable when a value in it is no longer than this.
_LONGEST_SHOWN = 60
_ELLIPSIS = "..."
# Among more names than this, to look for the nearest for each of many wrong ones takes seconds.
_MOST_COMPARED = 500
# Shells add the number of the signal to this, see https://pubs.opengroup.org/onlinepubs/9799919799,
# "Exit Status for Commands".
_EXIT_CODE_OF_SIGNAL = 128


class LabError(Exception):
    """An error whose message is written for the person at the terminal.

    ``run.py`` prints ``message`` on standard error, without a traceback, and exits with
    ``exit_code``. Anything else that is raised is a defect of the lab and keeps its traceback.

    Gin appends its own call chain to the text of an exception that passes through a configurable;
    ``message`` stays as it was written.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InputError(LabError, ValueError):
    """What was asked for cannot be done: a wrong value, file, flag or combination of them.

    Library code raises it wherever it would raise a ``ValueError`` for a user's mistake. The
    message names the culprit, where it stands, and what to do instead.
    """

    exit_code = 2


class MachineError(LabError, RuntimeError):
    """The request was right and the machine failed it: no memory, no space, a damaged file."""

    exit_code = 1


class UnheardError(MachineError):
    """A failure that no other process can tell, whichever of several meets it."""


class ToldBefore(LabError):  # noqa: N818 -- it was told as an error, and is none any more
    """What ended processes before these would end them too, and has been told.

    Args:
        exit_code: That of the end before.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


class DivergenceError(LabError, ArithmeticError):
    """Training left the finite numbers."""

    exit_code = 3


class StoppedError(LabError):
    """A signal asked the run to stop, and it stopped after saving.

    Args:
        message: What was saved and how to go on.
        signal_number: The signal that asked; the exit code is 128 plus it, as shells have it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = _EXIT_CODE_OF_SIGNAL + signal_number


class StoppedAtOnce(KeyboardInterrupt):
    """A signal that is acted on wherever the program is, without saving.

    Like ``KeyboardInterrupt``, no handler of errors takes it for one.

    Args:
        signal_number: The signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number
        self.exit_code = _EXIT_CODE_OF_SIGNAL + signal_number


class Problem(NamedTuple):
    """What is wrong with a value.

    Attributes:
        path: The culprit, such as ``dropout`` or ``hooks.forward[0].name``.
        message: The sentence about it.
    """

    path: str
    message: str


def unknown(name: str, known: Iterable[str], what: str) -> str:
    """A sentence about an unknown name, with the nearest known one where one is near."""
    near = nearest(name, known)
    return f"unknown {what}" + (f"; did you mean {near}?" if near else "")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like another, if any is.

    Capital letters make no distance. A name of the same words in another order is the nearest, and
    where no name is near, their order makes no distance either.
    """
    spellings = list(known)
    if len(spellings) > _MOST_COMPARED:
        return None
    same_words = {_words_sorted(spelling): spelling for spelling in spellings}
    if _words_sorted(name) in same_words and name.lower() not in map(str.lower, spellings):
        return same_words[_words_sorted(name)]
    for spelled in (str.lower, _words_sorted):
        names = {spelled(spelling): spelling for spelling in spellings}
        near = difflib.get_close_matches(spelled(name), list(names), 1)
        if near:
            return names[near[0]]
    return None


def _words_sorted(name: str) -> str:
    return "_".join(sorted(name.lower().split("_")))


def shown(value: Any) -> str:
    """A value as a message shows it: like Python writes it, null for nothing, never long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        text = repr(_beginning(value, itertools.count()))
    except ValueError:  # Python refuses to print integers of thousands of digits.
        return "a huge integer"
    if len(text) <= _LONGEST_SHOWN:
        return text
    return text[: _LONGEST_SHOWN - len(_ELLIPSIS)] + _ELLIPSIS


def _beginning(value: Any, counter: "itertools.count[int]") -> Any:
    """So much of a value as can be shown: the whole may take long to be written."""
    if isinstance(value, str):
        return value[: _LONGEST_SHOWN + 1]
    if not isinstance(value, (list, tuple, dict)):
        return value
    # Whatever a list or mapping holds takes a letter at least.
    parts = itertools.takewhile(lambda _: next(counter) <= _LONGEST_SHOWN, value)
    if isinstance(value, dict):
        return {_beginning(k, counter): _beginning(value[k], counter) for k in parts}
    return type(value)([_beginning(part, counter) for part in parts])


def one_line(text: str) -> str:
    """A name from outside, made unable to end the line it stands in, or to move a cursor."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
