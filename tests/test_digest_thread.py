import hashlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_core.data.digest_thread import DigestThread


@given(st.lists(st.binary(max_size=50), max_size=30), st.sampled_from([1, 10**4, 10**5]))
def test_the_digest_is_that_of_all_blocks_in_their_order(blocks, times):
    blocks = [block * times for block in blocks]
    with DigestThread() as digest:
        for block in blocks:
            digest.update(block)
        assert digest.hexdigest() == hashlib.sha256(b"".join(blocks)).hexdigest()


def test_the_thread_ends_with_the_work_also_when_that_fails():
    def fail():
        with DigestThread() as digest:
            digest.update(b"x" * 10**6)
            raise ValueError("no text")

    before = threading.active_count()
    with pytest.raises(ValueError, match="no text"):
        fail()
    assert threading.active_count() == before


def test_few_blocks_wait_so_that_they_do_not_fill_the_memory():
    class Slow:
        def update(self, data):
            let_go.wait()

    let_go, digest, block = threading.Event(), DigestThread(), b"x" * 2**18
    digest._digest = Slow()
    with digest:
        writer = threading.Thread(target=lambda: [digest.update(block) for _ in range(20)])
        writer.start()
        writer.join(timeout=0.1)
        assert writer.is_alive()
        assert len(digest._waiting) <= 8
        let_go.set()
        writer.join()
