"""Compressed texts far larger than what may be held, in processes of their own."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from tests.end_to_end.command_line import PROJECT
from tests.end_to_end.test_large_corpus import MEASURED

# The text has 80 MiB of ASCII: other characters load a compiler, which takes memory of its own.
N_LINES, LINE = 2**15, "A text that is larger than what is held in memory, " * 50
BY_DOCUMENT = MEASURED.replace("split_corpus(corpus)", "split_corpus(corpus, 0.9, 'document')")


def write(path):
    open_packed = {".gz": gzip.open, ".zst": zstandard.open}[path.suffix]
    # Two pieces, as if of two compressors.
    for piece in range(2):
        with open_packed(path, "ab" if piece else "wb") as stream:
            for number in range(N_LINES * piece // 2, N_LINES * (piece + 1) // 2):
                text = f"{number} {LINE}"
                text = json.dumps({"text": text}) if "json" in path.name else text
                stream.write(text.encode() + b"\n")
    assert path.stat().st_size < 2**22
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("a.jsonl.zst", BY_DOCUMENT),
        pytest.param("a.txt.gz", MEASURED, marks=pytest.mark.exhaustive),
    ],
)
def test_a_compressed_text_needs_little_memory_and_is_read_once(tmp_path, name, program):
    path = write(tmp_path / name)
    environment = {**os.environ, "LM_CORE_CACHE": str(tmp_path / "cache")}

    def measured():
        done = subprocess.run(
            [sys.executable, "-c", program, str(path), "byte"],
            **{"cwd": PROJECT, "env": environment, "capture_output": True, "text": True},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return float(done.stdout), done.stderr

    mebibytes, told = measured()
    assert mebibytes < 40
    assert "encoding the corpus: " in told
    again, told = measured()
    assert again < 20
    assert told == ""
    n_parts = 2 if program is BY_DOCUMENT else 1
    assert len(list((tmp_path / "cache").glob("*.tokens"))) == n_parts
