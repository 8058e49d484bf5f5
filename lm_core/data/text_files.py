"""The files of a corpus: found, looked at, read in blocks, and checked to be text."""

import bisect
import glob
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lm_core.data.compression import COMPRESSED, opened_text
from lm_core.errors import InputError

# What is made of a block stays in the second cache of most processors, and in memory that malloc
# keeps: blocks of a megabyte were given back to the system and faulted in again, each time.
_BLOCK_BYTES = 2**18
# UTF-8 spells a character in at most four bytes, the first of which is no continuation byte.
LONGEST_CHARACTER = 4
# A byte of UTF-8 below the first of these is a whole character, and one from the second, third and
# fourth on is the first of two, three and four bytes (RFC 3629, section 3).
_FIRST_BYTES = (0b1000_0000, 0b1100_0000, 0b1110_0000, 0b1111_0000)
# How the names of files end whose lines are JSON objects, when nothing is compressed: C4 and Dolma
# have the second, and others the first.
_JSON_LINES = (".jsonl", ".json")
# What is looked for in a folder. A plain .json is often a description of the data beside it.
_IN_FOLDERS = (
    *(".txt", ".jsonl"),
    *(f"{ending}{packed}" for ending in (".txt", *_JSON_LINES) for packed in COMPRESSED),
)

# So begins a name that is hidden on Unix.
_HIDDEN = "."


class Block(NamedTuple):
    """A piece of the text that splits no character.

    Attributes:
        data: UTF-8.
        place: The file it is from, or the built-in corpus, for messages.
        offset: Bytes of its document before this block.
        ends_document: Whether a document ends with it. The blocks of a document follow each other.
        line: Which line of a file of JSON lines the document is, from 1; 0 where a document is a
            whole file.
    """

    data: bytes
    place: str
    offset: int
    ends_document: bool = False
    line: int = 0

    @property
    def where(self) -> str:
        """The document, as a message names it."""
        return f"{self.place}: line {self.line:,}" if self.line else self.place


class TextFile(NamedTuple):
    """A file of the corpus as it was when it was looked at.

    Attributes:
        path: Where it lies.
        size: Its bytes.
        modified_ns: When its content was changed, in nanoseconds since 1970.
        changed_ns: When anything about it was changed; no program can set this one back.
        inode: The number that its file system has for it.
    """

    path: Path
    size: int
    modified_ns: int
    changed_ns: int
    inode: int

    def is_as_it_was(self) -> bool:
        """Whether size and modification time are still the same.

        Raises:
            InputError: It cannot be looked at.
        """
        now = described(self.path)
        return (now.size, now.modified_ns) == (self.size, self.modified_ns)


def find_files(path: str) -> list[Path]:
    """The files that a path, a folder or a glob stands for, in the order they are joined.

    Raises:
        InputError: There is none.
        OSError: A folder cannot be read.
    """
    if not path:
        raise InputError("the path of the corpus is empty")
    given = Path(path).expanduser()
    if given.is_dir():
        files = sorted(
            Path(name) for name in _files_below(given) if name.lower().endswith(_IN_FOLDERS)
        )
        if not files:
            message = f"corpus: {path!r} is a folder without a *.txt file at any depth"
            endings = " and ".join(COMPRESSED)
            raise InputError(f"{message}, nor one of *.jsonl, nor of those with {endings}")
        return files
    if not is_glob(str(given)):
        return [given]
    files = sorted(match for match in _matches(given) if match.is_file())
    if not files:
        raise InputError(f"corpus: {path!r} is a glob that matches no file")
    return files


def is_compressed(path: Path) -> bool:
    """Whether the name of a file says that it is compressed."""
    return path.suffix.lower() in COMPRESSED


def is_json_lines(path: Path) -> bool:
    """Whether the name of a file says that each of its lines is a JSON object."""
    return (path.with_suffix("") if is_compressed(path) else path).suffix.lower() in _JSON_LINES


def is_glob(path: str) -> bool:
    """Whether a path is a pattern, and not the name of something that exists."""
    return glob.has_magic(path) and not Path(path).exists()


def _matches(pattern: Path) -> Iterator[Path]:
    """The matches of a glob; ``**`` goes through folders, not through links to them.

    At its end ``**`` is all files below, as in a shell; Python before 3.13 finds folders alone.
    """
    pattern = pattern / "*" if pattern.name == "**" else pattern
    n_plain = next(i for i, part in enumerate(pattern.parts) if glob.has_magic(part))
    return Path(*pattern.parts[:n_plain]).glob(str(Path(*pattern.parts[n_plain:])))


def _files_below(folder: Path) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise error

    # Links to folders are not followed, so that a loop of them ends.
    for root, folders, names in os.walk(folder, onerror=fail):
        # Version control and notebooks keep copies under such names, which no listing shows.
        folders[:] = [name for name in folders if not name.startswith(_HIDDEN)]
        for name in names:
            if not name.startswith(_HIDDEN):
                yield str(Path(root, name))


def described(path: Path) -> TextFile:
    """A file as it is now.

    Raises:
        InputError: There is none, it is no regular file, or it cannot be looked at.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise InputError(f"corpus: {str(path)!r} does not exist") from error
    except OSError as error:
        raise InputError(f"corpus: {str(path)!r} cannot be read: {reason_of(error)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"corpus: {str(path)!r} is not a regular file")
    return TextFile(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def blocks_of(path: Path, tell: Callable[[int], None] = lambda n_bytes: None) -> Iterator[Block]:
    """The bytes of a file of text, cut only between characters where they are UTF-8.

    Args:
        path: The file; a compressed one gives the same blocks as the same text does uncompressed.
        tell: Called with the bytes of the file that were read for each block.

    Raises:
        InputError: It cannot be read, or is damaged.
    """
    offset, rest, place = 0, b"", 0
    last: Block | None = None
    with opened_text(path) as (content, file):
        while data := content.read(max(1, _BLOCK_BYTES - len(rest))):
            data = rest + data if rest else data
            end = end_of_last_character(data)
            rest = data[end:]
            # The last block says that it is the last, so each waits for the next.
            if end and last is not None:
                yield last
            if end:
                last = Block(data[:end], str(path), offset)
            offset += end
            before, place = place, file.tell()
            tell(place - before)
    if rest:  # A character that is cut off.
        if last is not None:
            yield last
        last = Block(rest, str(path), offset)
    if last is not None:
        yield last._replace(ends_document=True)


def end_of_last_character(data: bytes) -> int:
    """Where the last whole character of UTF-8 ends; somewhere where it is none."""
    for back in range(1, min(LONGEST_CHARACTER, len(data)) + 1):
        byte = data[-back]
        length = bisect.bisect_right(_FIRST_BYTES, byte)
        if length == 0:
            break
        if length > 1:
            return len(data) - back if back < length else len(data)
    return len(data)


def check_text(block: Block) -> None:
    """Refuses what is no text.

    Raises:
        InputError: A byte that is zero or not UTF-8; names the first.
    """
    bad = block.data.find(b"\0")
    reason = "a zero byte, which no text holds"
    try:
        block.data.decode("utf-8")
    except UnicodeDecodeError as error:
        if bad < 0 or error.start < bad:
            bad, reason = error.start, f"0x{block.data[error.start]:02x}, which is not UTF-8"
    if bad >= 0:
        place = f"byte {block.offset + bad:,} is {reason}"
        raise InputError(f"{block.where} is not UTF-8 text: {place}")


def reason_of(error: Exception) -> str:
    """What the system says about an error, in its words."""
    return getattr(error, "strerror", None) or str(error)
