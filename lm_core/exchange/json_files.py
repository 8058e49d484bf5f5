"""JSON that somebody else wrote, read with bounds, and its fields, each with its type."""

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from lm_core.errors import InputError, shown


def read_json(path: Path, largest: int) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: The file.
        largest: The most bytes that such a file has.

    Raises:
        InputError: It is no such file, larger than that, or holds something else.
    """
    text = read_bounded(path, largest)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "is nested too deep" if isinstance(error, RecursionError) else "holds no JSON"
        raise InputError(f"{path} {reason}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object")
    return found


def read_bounded(path: Path, largest: int) -> bytes:
    """The content of a regular file, or of one that a link leads to.

    Raises:
        InputError: It is none, or larger than it may be.
    """
    try:
        status = path.stat()
        # To open a pipe would wait for ever.
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is no file")
        if status.st_size > largest:
            message = f"{path} has {status.st_size:,} bytes"
            raise InputError(f"{message}, which is more than such a file has ({largest:,})")
        with path.open("rb") as stream:
            return stream.read(largest)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


class Fields:
    """The fields of a JSON object, whose types are looked at.

    Args:
        table: The object.
        place: What to call it in a message.
    """

    def __init__(self, table: Mapping[str, Any], place: str) -> None:
        self._table = table
        self.place = place

    def __contains__(self, name: str) -> bool:
        return name in self._table

    def get(self, name: str, default: Any = None) -> Any:
        """A field of any type; null counts as not there."""
        value = self._table.get(name)
        return default if value is None else value

    def integer(self, name: str, default: int | None = None) -> int:
        """A whole number of at least 1.

        Raises:
            InputError: It is none, or not there and has no default.
        """
        value = self.get(name, default)
        if type(value) is not int or value < 1:
            self.refuse(name, "is no whole number of at least 1")
        return value

    def number(self, name: str, default: float) -> float:
        """A number.

        Raises:
            InputError: It is none.
        """
        value = self.get(name, default)
        if type(value) not in (int, float):
            self.refuse(name, "is no number")
        return float(value)

    def truth(self, name: str, default: bool) -> bool:
        """True or false.

        Raises:
            InputError: It is neither.
        """
        value = self.get(name, default)
        if type(value) is not bool:
            self.refuse(name, "is neither true nor false")
        return value

    def require(self, name: str, needed: Any, why: str) -> None:
        """Refuses any other value than one, which also stands for a field that is not there.

        Raises:
            InputError: It is another one.
        """
        value = self.get(name, needed)
        if value != needed or isinstance(value, bool) != isinstance(needed, bool):
            self.refuse(name, f"is not {shown(needed)}: {why}")

    def refuse(self, name: str, what: str) -> NoReturn:
        """Says what is wrong with a field.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{self.place}: {name} {shown(self._table.get(name))} {what}")
