import contextlib
import gzip
import io
import sys
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lm_core.data.compression import opened_text
from lm_core.errors import InputError

SKIPPED = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"


def zstd(data, **options):
    return zstandard.ZstdCompressor(**options).compress(data)


COMPRESS = {".gz": gzip.compress, ".zst": zstd}


def read(path, size=-1):
    with opened_text(path) as (content, _):
        return b"".join(iter(lambda: content.read(size), b""))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@given(pieces=st.lists(st.binary(max_size=3000), min_size=1, max_size=4))
def test_pieces_that_were_compressed_alone_are_read_as_one(tmp_path_factory, ending, pieces):
    path = tmp_path_factory.mktemp("file") / f"a.txt{ending}"
    path.write_bytes(b"".join(COMPRESS[ending](piece) for piece in pieces))
    assert read(path) == b"".join(pieces)
    assert read(path, 7) == b"".join(pieces)


def test_what_a_name_does_not_call_compressed_is_taken_as_it_is(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(gzip.compress(b"text"))
    assert read(path) == gzip.compress(b"text")


def test_a_zstandard_file_may_have_frames_that_are_to_be_skipped_and_checksums(tmp_path):
    path = tmp_path / "a.zst"
    path.write_bytes(SKIPPED + zstd(b"one", write_checksum=True) + SKIPPED + zstd(b"two"))
    assert read(path) == b"onetwo"


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("n_missing", [1, 5, 30, None])
def test_a_file_that_is_cut_off_is_refused(tmp_path, ending, n_missing):
    path = tmp_path / f"a.txt{ending}"
    whole = COMPRESS[ending](bytes(range(256)) * 40) * 2
    path.write_bytes(whole[:-n_missing] if n_missing else b"")
    with pytest.raises(InputError) as error:
        read(path, 100)
    assert error.value.message.startswith(f"{path} is damaged or cut off, near byte ")
    assert "\n" not in error.value.message


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_what_is_not_compressed_and_what_follows_is_refused(tmp_path, ending):
    path = tmp_path / f"a.txt{ending}"
    for content in (b"just a text", COMPRESS[ending](b"text") + b"and more of it"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is damaged or cut off"):
            read(path)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@given(data=st.data())
def test_a_changed_bit_is_noticed_or_changes_nothing(tmp_path_factory, ending, data):
    path = tmp_path_factory.mktemp("file") / f"a{ending}"
    text = bytes(range(256)) * 3
    compress = {".gz": gzip.compress, ".zst": lambda text: zstd(text, write_checksum=True)}[ending]
    content = bytearray(compress(text))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        # A bit in the name or time of a gzip file changes no text; one in the magic number of a
        # zstandard frame may turn it into one that is to be skipped.
        assert read(path) in (text, b"")


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_what_claims_to_be_large_is_read_in_little_memory(tmp_path, ending):
    path = tmp_path / f"bomb.txt{ending}"
    with path.open("wb") as file:
        stream = (
            gzip.GzipFile(fileobj=file, mode="wb")
            if ending == ".gz"
            else zstandard.ZstdCompressor().stream_writer(file, closefd=False)
        )
        with stream:
            for _ in range(200):
                stream.write(bytes(2**20))
    assert path.stat().st_size < 2**18
    n_bytes = 0
    tracemalloc.start()
    try:
        with opened_text(path) as (content, _):
            while data := content.read(2**18):
                n_bytes += len(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_bytes == 200 * 2**20
    # Twice 32 MiB: what comes out of a kilobyte, in pieces and joined.
    assert peak < 70 * 2**20


def test_a_window_that_needs_too_much_memory_is_refused(tmp_path):
    path = tmp_path / "a.zst"
    parameters = zstandard.ZstdCompressionParameters(window_log=30, compression_level=1)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path.write_bytes(compressor.compress(b"text") + compressor.flush())
    with pytest.raises(InputError, match="requires too much memory"):
        read(path)


def test_a_missing_package_is_told_with_the_file_that_needs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    path = tmp_path / "a.zst"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"a.zst needs the package zstandard: .*'.\[zstd\]'"):
        read(path)


def test_a_file_that_cannot_be_read_gives_the_reason(tmp_path):
    with pytest.raises(InputError, match=r"a.gz cannot be read: No such file"):
        read(tmp_path / "a.gz")


def test_how_much_of_the_file_is_done_is_known(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"x" * 10**6))
    with opened_text(path) as (content, file):
        assert isinstance(content, io.BufferedIOBase)
        content.read()
        assert file.tell() == path.stat().st_size
