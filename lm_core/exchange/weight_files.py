"""Weights in safetensors files that somebody else wrote: looked at before anything is read."""

import contextlib
import errno
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from lm_core.errors import InputError, MachineError, one_line, shown
from lm_core.exchange.json_files import read_json
from lm_core.exchange.parts import Piece

ONE_FILE = "model.safetensors"
# Where there are several files: which tensor is in which.
INDEX = "model.safetensors.index.json"
# Of files that are pickles, which run whatever code somebody has put into them.
_PICKLES = "*.bin"
# An index has some hundred bytes for each tensor.
_LARGEST_INDEX = 64 * 2**20
# A file in the folder itself, by a name that is no path.
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors", re.ASCII)
# What can be taken for float32: all of these are, to the last bit.
_DTYPES = ("F32", "F16", "BF16")
# How PyTorch and the system say that a file cannot be mapped into memory.
_SIGNS_OF_NO_MEMORY = ("unable to mmap", "Cannot allocate memory")
# Characters of what a library has to say about a file.
_LONGEST_REASON = 200


class Entry(NamedTuple):
    """What the head of a file says of a tensor.

    Attributes:
        file: The file it is in.
        name: Its name there.
        shape: Its shape.
        dtype: Its type, as safetensors calls it.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


class WeightFiles:
    """The weights in a folder.

    Args:
        folder: The folder.
        prefix: What begins the names of all weights but the head; it is put where it is left out.
        ignored: Ends of the names of tensors that are no weights.

    Attributes:
        files: The files that they are in.

    Raises:
        InputError: There are none that can be read without running code, or they are damaged.
    """

    def __init__(self, folder: Path, prefix: str, ignored: Iterable[str]) -> None:
        self.files = _files_in(folder)
        self._entries: dict[str, Entry] = {}
        for file in self.files:
            for entry in _entries_of(file):
                if entry.name.endswith(tuple(ignored)):
                    continue
                name = entry.name
                if not name.startswith((prefix, "lm_head.")):
                    name = prefix + name
                if name in self._entries:
                    raise InputError(f"{folder}: there are two tensors {one_line(name)}")
                self._entries[name] = entry

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def require(self, pieces: Iterable[Piece]) -> None:
        """Refuses weights that are not those of some pieces, all of them and no others.

        Nothing but the heads of the files is looked at.

        Raises:
            InputError: One is missing, too many, or of another shape or type.
        """
        pieces = list(pieces)
        expected = {piece.name for piece in pieces if not piece.is_zero}
        for name in sorted(self._entries.keys() - expected):
            what = f"{self._entries[name].file}: the tensor {one_line(name)}"
            raise InputError(f"{what} has no place in such a model")
        for name, shape in ((piece.name, piece.shape) for piece in pieces if not piece.is_zero):
            entry = self._entries.get(name)
            if entry is None:
                raise InputError(f"{self.files[0].parent}: the tensor {one_line(name)} is missing")
            what = f"{entry.file}: the tensor {one_line(name)}"
            if entry.shape != shape:
                message = f"{what} is {shown(entry.shape)}, where config.json means {shape}"
                raise InputError(message)
            if entry.dtype not in _DTYPES:
                known = f"(what can be read: {', '.join(_DTYPES)})"
                raise InputError(f"{what} is of {one_line(entry.dtype)} {known}")

    def read(self, name: str) -> torch.Tensor:
        """A tensor of those that ``require`` has found good.

        Raises:
            InputError: It is damaged, or holds what is no finite number.
            MachineError: The machine has too little memory.
        """
        entry = self._entries[name]
        try:
            with _memory_of(entry.file), safe_open(entry.file, framework="pt") as opened:
                tensor = opened.get_tensor(entry.name)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{entry.file}: {_words(error)}") from error
        # What is not finite is one of these, and nothing as large as the tensor is needed.
        if not all(bound.isfinite() for bound in tensor.aminmax()):
            message = f"{entry.file}: the tensor {one_line(name)} has numbers that are not finite"
            raise InputError(message)
        return tensor

    def digests(self) -> dict[str, dict[str, int | str]]:
        """Size and SHA-256 of each file, by its name."""
        found: dict[str, dict[str, int | str]] = {}
        for file in self.files:
            with file.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            found[file.name] = {"bytes": file.stat().st_size, "sha256": sha256}
        return found


def _files_in(folder: Path) -> list[Path]:
    index = folder / INDEX
    if (folder / ONE_FILE).exists():
        return [folder / ONE_FILE]
    if not index.exists():
        pickles = sorted(folder.glob(_PICKLES))
        if not pickles:
            raise InputError(f"{folder} has no {ONE_FILE}")
        how = "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(another)"
        message = f"{folder} has no {ONE_FILE}, and {one_line(pickles[0].name)} is a pickle"
        raise InputError(
            f"{message}, which runs the code in it when it is read: if you trust it, "
            f"transformers converts it with {how}"
        )
    table = read_json(index, _LARGEST_INDEX).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise InputError(f"{index} has no weight_map")
    names = set()
    for name in table.values():
        if not isinstance(name, str) or not _SAFE_NAME.fullmatch(name):
            raise InputError(f"{index}: {shown(name)} is no name of a safetensors file beside it")
        names.add(name)
    return [folder / name for name in sorted(names)]


def _entries_of(file: Path) -> list[Entry]:
    """What the head of a file says; its library compares that with the size of the file."""
    try:
        if not file.is_file():
            raise InputError(f"{file} is no file")
        with _memory_of(file), safe_open(file, framework="pt") as opened:
            found = []
            for name in opened.keys():  # noqa: SIM118 -- it is no mapping
                part = opened.get_slice(name)
                found.append(Entry(file, name, tuple(part.get_shape()), part.get_dtype()))
            return found
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} holds no weights: {_words(error)}") from error


@contextlib.contextmanager
def _memory_of(file: Path) -> Iterator[None]:
    """Turns a refusal to map a file into memory, which is no fault of the file, into words."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        is_refused = isinstance(error, MemoryError) or getattr(error, "errno", 0) == errno.ENOMEM
        if is_refused or any(sign in str(error) for sign in _SIGNS_OF_NO_MEMORY):
            message = f"{file} cannot be mapped into memory, of which this process may have too"
            raise MachineError(f"{message} little (ulimit -v): {_words(error)}") from error
        raise


def _words(error: Exception) -> str:
    return one_line(str(error).partition("\n")[0][:_LONGEST_REASON])
