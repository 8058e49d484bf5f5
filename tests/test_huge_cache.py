"""A cache of a hundred billion tokens, as a sparse file: what a batch of it costs."""

import hashlib
import json
import mmap
import os
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from lm_core.data import token_file
from lm_core.data.batches import ORDERS, ValidationWindows
from lm_core.data.token_file import BLOCK_BYTES, HEADER_BYTES, TokenFile

HUGE, SMALL = 10**11, 10**6
DTYPE = np.dtype("<u2")
SEQ_LEN, BATCH_SIZE = 128, 8
CONTENT = {"text": "any"}
# Tokens that are not zero stand here: beyond what 31, 32 and 36 bits can count.
PLACES = {2**31 + 5: 11, 2**32 + 7: 13, 2**36 + 1: 17, HUGE - 1: 19}


def sparse(path, n_tokens, places):
    """Writes a file of tokens whose content is zero but for some places."""
    n_bytes = n_tokens * DTYPE.itemsize
    n_blocks = -(-n_bytes // BLOCK_BYTES)
    sums = np.full(n_blocks, zlib.crc32(bytes(BLOCK_BYTES)), "<u4")
    sums[-1] = zlib.crc32(bytes(n_bytes - (n_blocks - 1) * BLOCK_BYTES))
    fields = {
        "content": CONTENT,
        "dtype": DTYPE.str,
        "tokens": n_tokens,
        "checksums": hashlib.sha256(sums.tobytes()).hexdigest(),
    }
    header = json.dumps(fields).encode().ljust(HEADER_BYTES - 40)
    with path.open("wb") as stream:
        stream.write(b"lmtoken1" + hashlib.sha256(header).digest() + header)
        for place, token in places.items():
            stream.seek(HEADER_BYTES + place * DTYPE.itemsize)
            stream.write(DTYPE.type(token).tobytes())
        stream.seek(HEADER_BYTES + n_bytes)
        stream.write(sums.tobytes())
    return path


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    try:
        paths = {
            SMALL: sparse(folder / "small", SMALL, {}),
            HUGE: sparse(folder / "huge", HUGE, PLACES),
        }
    except OSError as error:
        pytest.skip(f"the file system of {folder} takes no file of 200 GB: {error}")
    if os.stat(paths[HUGE]).st_blocks * 512 > 2**24:  # noqa: PTH116
        paths[HUGE].unlink()
        pytest.skip(f"the file system of {folder} has no sparse files")
    yield paths
    paths[HUGE].unlink()


@pytest.fixture
def opened(paths):
    def tokens(n_tokens):
        with paths[n_tokens].open("rb") as stream:
            return TokenFile(stream, DTYPE, CONTENT).tokens

    return tokens


def resident_pages(tokens):
    """How many pages of a mapped file this process has read."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    size = f"{tokens.filename}"
    start = next(number for number, line in enumerate(lines) if line.endswith(size))
    line = next(line for line in lines[start:] if line.startswith("Rss:"))
    return int(line.split()[1]) * 1024 // mmap.PAGESIZE


def peak_memory(action):
    action()
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_to_open_it_reads_the_header_and_the_checksums_only(paths, monkeypatch):
    with paths[HUGE].open("rb", buffering=0) as raw:
        sizes = []

        class Counted:
            def read(self, size):
                sizes.append(size)
                return raw.read(size)

            def __getattr__(self, name):
                return getattr(raw, name)

        monkeypatch.setattr(token_file.np, "memmap", lambda *given, **options: None)
        TokenFile(Counted(), DTYPE, CONTENT)
    # Four bytes for each 4 MiB: less than 200 kB of 200 GB.
    assert sum(sizes) == HEADER_BYTES + 4 * -(-2 * HUGE // BLOCK_BYTES)


@pytest.mark.parametrize("order", ORDERS)
def test_a_batch_takes_no_more_memory_than_one_of_a_small_cache(opened, order):
    peaks = {}
    for n_tokens in (SMALL, HUGE):
        batches = ORDERS[order](opened(n_tokens), BATCH_SIZE, SEQ_LEN, 1)
        peaks[n_tokens] = peak_memory(lambda batches=batches: batches.batch(12345))
    assert peaks[HUGE] < 1.1 * peaks[SMALL] + 1000


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells")
@pytest.mark.parametrize("order", ORDERS)
def test_a_batch_reads_the_pages_of_its_windows_only(opened, order):
    tokens = opened(HUGE)
    before = resident_pages(tokens)
    n_batches = 20
    batches = ORDERS[order](tokens, BATCH_SIZE, SEQ_LEN, 1)
    for step in range(1, n_batches + 1):
        batches.batch(step)
    # A window lies in one page, or in two. The system may map those around that it has anyway:
    # up to 16 at a time (fault_around_bytes).
    assert 0 < resident_pages(tokens) - before <= n_batches * BATCH_SIZE * 2 * 16


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells")
def test_a_share_of_a_batch_reads_the_pages_of_its_windows_only(opened):
    tokens = opened(HUGE)
    before = resident_pages(tokens)
    batches = ORDERS["random"](tokens, 100, SEQ_LEN, 1)
    inputs, _ = batches.batch(1, 50, 53)
    assert 0 < resident_pages(tokens) - before <= 3 * 2 * 16
    assert inputs.equal(batches.batch(1)[0][50:53])


@pytest.mark.parametrize("order", ORDERS)
def test_windows_start_everywhere_in_it(opened, order):
    batches = ORDERS[order](opened(HUGE), 1000, SEQ_LEN, 1)
    starts = np.concatenate([batches._starts(step) for step in (1, 10**6, 99_999_999)])
    assert starts.dtype == np.int64
    assert starts.min() >= 0
    assert starts.max() <= HUGE - SEQ_LEN - 1
    tenths = np.bincount(starts // (HUGE // 10), minlength=10)
    assert (tenths > 200).all()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("place", PLACES)
def test_what_lies_beyond_32_bits_is_what_is_read(opened, order, place):
    class From(ORDERS[order]):
        def _starts(self, step):
            return np.array([place - SEQ_LEN])

    inputs, targets = From(opened(HUGE), 1, SEQ_LEN, 1).batch(1)
    assert targets[0, -1] == PLACES[place]
    assert inputs[0, 0] == 0


def test_each_window_of_it_comes_once_an_epoch(opened):
    n_windows = (HUGE - 1) // SEQ_LEN
    batches = ORDERS["shuffled"](opened(HUGE), 1000, SEQ_LEN, 1)
    starts = np.concatenate([batches._starts(step) for step in range(1, 200)])
    assert len(np.unique(starts)) == len(starts)
    assert not (starts % SEQ_LEN).any()
    assert starts.max() // SEQ_LEN < n_windows


def test_the_validation_part_of_it_is_not_copied(opened):
    tokens = opened(HUGE)[int(HUGE * 0.05) :]
    windows = ValidationWindows(tokens, SEQ_LEN, 32)
    n_windows, rest = divmod(len(tokens) - 1, SEQ_LEN)
    assert len(windows) == -(-n_windows // 32) + bool(rest)
    for index in (0, len(windows) - 1):
        assert peak_memory(lambda index=index: windows[index]) < 2**20
    assert windows[len(windows) - 1][1][-1, -1] == PLACES[HUGE - 1]
