import hashlib
import json
import os
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.data import token_file
from lm_core.data.token_file import DamagedFileError, TokenFile, TokenFileWriter

CONTENT = {"text": "ab" * 32, "format": 1}
DTYPES = [np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.uint32)]
TOKENS = np.arange(200, dtype=np.uint8)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_file, "BLOCK_BYTES", 64)
        patch.setattr(token_file, "_SYNCED_BYTES", 100)
        patch.setattr(token_file, "HEADER_BYTES", 512)
        yield


def write(path, tokens=TOKENS, sizes=(), content=CONTENT):
    """Writes tokens in pieces of these sizes, and the rest at once."""
    with path.open("wb") as stream, TokenFileWriter(stream, tokens.dtype, content) as writer:
        for part in np.split(tokens, np.cumsum(sizes, dtype=int)):
            writer.write(part)
        writer.finish()


def read(path, dtype=TOKENS.dtype, content=CONTENT, vocab_size=None):
    with path.open("rb") as stream:
        file = TokenFile(stream, dtype, content)
        if vocab_size is not None:
            file.verify(vocab_size)
        return file.tokens


@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=300),
    st.lists(st.integers(0, 90), max_size=6),
    st.sampled_from(DTYPES),
)
def test_what_is_written_in_any_pieces_is_read(tmp_path_factory, tokens, sizes, dtype):
    folder, tokens = tmp_path_factory.mktemp("file"), np.array(tokens, dtype=dtype)
    write(folder / "pieces", tokens, sizes)
    write(folder / "whole", tokens)
    found = read(folder / "pieces", dtype, vocab_size=256)
    assert np.array_equal(found, tokens)
    assert found.dtype == dtype
    assert isinstance(found, np.memmap)
    assert (folder / "pieces").read_bytes() == (folder / "whole").read_bytes()


@given(st.data())
def test_any_byte_that_is_another_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("file") / "a.tokens"
    write(path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    first, last = 512, 512 + len(TOKENS) - 1
    if first <= place <= last:
        read(path)
        block = (place - first) // 64 * 64 + first
        name = f"bytes {block:,} to {min(block + 63, last):,} is damaged"
        with pytest.raises(DamagedFileError, match=name):
            read(path, vocab_size=256)
    else:
        # The header, or the checksums behind the tokens.
        with pytest.raises(DamagedFileError):
            read(path)


@given(st.data())
def test_a_file_of_another_size_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("file") / "a.tokens"
    write(path)
    size = path.stat().st_size
    os.truncate(path, data.draw(st.integers(0, size + 100).filter(lambda n: n != size)))
    with pytest.raises(DamagedFileError):
        read(path)


def test_a_file_that_was_not_finished_is_none(tmp_path):
    path = tmp_path / "a.tokens"
    with path.open("wb") as stream, TokenFileWriter(stream, TOKENS.dtype, CONTENT) as writer:
        writer.write(TOKENS)
    with pytest.raises(DamagedFileError, match="does not begin like a file of tokens"):
        read(path)


@pytest.mark.parametrize(
    ("dtype", "content"),
    [(np.dtype(np.uint16), CONTENT), (np.dtype(">u2"), CONTENT), (TOKENS.dtype, {"text": "c"})],
)
def test_tokens_of_something_else_are_told(tmp_path, dtype, content):
    write(tmp_path / "a.tokens")
    with pytest.raises(DamagedFileError, match="it holds other tokens than its name says"):
        read(tmp_path / "a.tokens", dtype, content)


def test_tokens_beyond_the_vocabulary_are_noticed(tmp_path):
    write(tmp_path / "a.tokens")
    read(tmp_path / "a.tokens", vocab_size=200)
    with pytest.raises(DamagedFileError, match="tokens that the vocabulary lacks"):
        read(tmp_path / "a.tokens", vocab_size=199)


def forged(path, fields):
    """Writes a header that says what it likes, with the right SHA-256."""
    text = (fields if isinstance(fields, bytes) else json.dumps(fields).encode()).ljust(512 - 40)
    path.write_bytes(b"lmtoken1" + hashlib.sha256(text).digest() + text)


@pytest.mark.parametrize("n_tokens", [10**18, 2**70, 0, -5, 1.5, "9", None, True, [3]])
def test_a_forged_number_of_tokens_reserves_no_memory(tmp_path, n_tokens):
    checksums = hashlib.sha256(b"").hexdigest()
    fields = {"content": CONTENT, "dtype": "|u1", "tokens": n_tokens, "checksums": checksums}
    forged(tmp_path / "a.tokens", fields)
    with pytest.raises(DamagedFileError):
        read(tmp_path / "a.tokens")


@pytest.mark.parametrize("text", [b"", b"[]", b"7", b"{", b"[" * 400, b"\xff", b"{}"])
def test_a_forged_header_is_told(tmp_path, text):
    forged(tmp_path / "a.tokens", text)
    with pytest.raises(DamagedFileError):
        read(tmp_path / "a.tokens")


def test_a_file_that_is_cut_off_while_it_is_open_is_noticed(tmp_path):
    path = tmp_path / "a.tokens"
    # The checksum of nothing is zero, and so is that of these four bytes alone.
    write(path, np.frombuffer(bytes.fromhex("9d0ad96d"), dtype=np.uint8))
    with path.open("rb") as stream:
        file = TokenFile(stream, TOKENS.dtype, CONTENT)
        os.truncate(path, 512)
        with pytest.raises(DamagedFileError, match="bytes 512 to 515 is damaged"):
            file.verify(256)


def test_checksums_are_those_that_other_programs_compute(tmp_path):
    write(tmp_path / "a.tokens")
    data = (tmp_path / "a.tokens").read_bytes()
    told = np.frombuffer(data[512 + 200 :], dtype="<u4")
    blocks = [data[512:][:200][i : i + 64] for i in range(0, 200, 64)]
    assert told.tolist() == [zlib.crc32(block) for block in blocks]


def test_a_disk_that_takes_no_more_is_told_before_the_end(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_file.os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "a.tokens", sizes=[90, 90])
