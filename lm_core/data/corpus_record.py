"""What was found when a large corpus was last read, so that it need not be read again.

A record holds for files that have the same paths, sizes, times and inodes as when they were read.
It lies in the cache folder, under a name made of the paths, and is one small file however many
files the corpus has.
"""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lm_core.atomic_files import replace_file
from lm_core.data.documents import Documents
from lm_core.data.text_files import TextFile, is_compressed, is_json_lines

# The version of what a record says, and of what was checked: UTF-8, without zero bytes.
_FORMAT = 2
# 128 bits in hexadecimal: no two corpora share a name.
_NAME_LENGTH = 32
# Most characters that Unicode can have take less than this, written as JSON.
_LONGEST_RECORD = 16 * 2**20
# File systems note times in steps of up to 10 ms, the ticks of the kernel, where they note
# fractions of a second; this allows for slow ones.
_STEP_NS = 100 * 10**6
# File systems that note whole seconds only: those of memory cards note every second one.
_COARSE_STEP_NS = 2 * 10**9
# Nanoseconds of a second.
_SECOND_NS = 10**9


class Findings(NamedTuple):
    """What reading a corpus from end to end finds out.

    Attributes:
        sha256: SHA-256 of the text, as ``Corpus`` has it.
        n_bytes: Bytes of all documents.
        characters: The characters that occur, sorted by code point.
        documents: What was found about the documents.
    """

    sha256: str
    n_bytes: int
    characters: str
    documents: Documents


def recorded_findings(
    folder: Path, files: Sequence[TextFile], text_key: str | None = None
) -> Findings | None:
    """What was found when these files were last read; None where they are to be read.

    Args:
        folder: The cache folder.
        files: The files as they are now.
        text_key: What the text is called in JSON lines; None where none of the files is such.
    """
    try:
        with findings_path(folder, files, text_key).open("rb") as stream:
            record = json.loads(stream.read(_LONGEST_RECORD))
        told = record.pop("checksum")
        documents = Documents(*(record["documents"][name] for name in Documents._fields))
        findings = Findings(*(record[name] for name in Findings._fields[:-1]), documents)
        is_sound = told == _checksum(record) and record["format"] == _FORMAT
        is_of_these = record["files"] == _stamp(files, text_key)
        is_sound &= _is_possible(findings, files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return findings if is_sound and is_of_these else None


def _is_possible(findings: Findings, files: Sequence[TextFile]) -> bool:
    documents = findings.documents
    is_possible = isinstance(findings.sha256, str) and isinstance(findings.characters, str)
    is_possible &= isinstance(documents.lengths, str)
    numbers = (findings.n_bytes, *documents[:1], *documents[2:])
    is_possible &= all(type(number) is int and number >= 0 for number in numbers)
    if not any(is_compressed(file.path) or is_json_lines(file.path) for file in files):
        is_possible &= findings.n_bytes == sum(file.size for file in files)
    return is_possible


def keep_findings(
    folder: Path,
    files: Sequence[TextFile],
    findings: Findings,
    started_ns: int,
    text_key: str | None = None,
) -> None:
    """Records what was found in files, where they can be told from what they may become.

    A file that was changed within the step of its file system's clock in which it was read may be
    changed once more without a trace. Nothing is recorded then, nor where the folder takes nothing:
    the files are read again the next time.

    Args:
        folder: The cache folder.
        files: The files as they were before they were read, and still are.
        findings: What was found in them.
        started_ns: The time just before they were looked at, in nanoseconds since 1970.
        text_key: What the text is called in JSON lines; None where none of the files is such.
    """
    if not all(_is_settled(file, started_ns) for file in files):
        return
    found = {**findings._asdict(), "documents": findings.documents._asdict()}
    record = {"format": _FORMAT, "files": _stamp(files, text_key), **found}
    text = json.dumps({**record, "checksum": _checksum(record)})
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(findings_path(folder, files, text_key), text.encode())


def findings_path(folder: Path, files: Sequence[TextFile], text_key: str | None = None) -> Path:
    """Where what is found in files is recorded; arguments as of ``recorded_findings``."""
    digest = hashlib.sha256(_line([text_key]) if text_key is not None else b"")
    for file in files:
        digest.update(_line([str(file.path.absolute())]))
    return folder / f"{digest.hexdigest()[:_NAME_LENGTH]}.corpus.json"


def _stamp(files: Sequence[TextFile], text_key: str | None) -> str:
    """All that tells these files from others, in one digest."""
    digest = hashlib.sha256(_line([text_key]) if text_key is not None else b"")
    for file in files:
        digest.update(_line([str(file.path.absolute()), *file[1:]]))
    return digest.hexdigest()


def _line(values: list[Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _checksum(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _is_settled(file: TextFile, started_ns: int) -> bool:
    """Whether a change from now on would give the file another time."""
    return all(
        time_ns + (_STEP_NS if time_ns % _SECOND_NS else _COARSE_STEP_NS) < started_ns
        for time_ns in (file.modified_ns, file.changed_ns)
    )
