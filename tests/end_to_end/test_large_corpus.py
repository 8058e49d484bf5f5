"""Texts that do not fit into memory, in processes of their own, on a file of a few hundred MB."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.command_line import PROJECT, TINY, run, start

pytestmark = pytest.mark.exhaustive

# Loads and encodes a text, and prints by how many MiB anonymous memory was higher in between.
MEASURED = """
import sys, threading, time
from lm_core.data.batches import RandomBatches
from lm_core.data.corpus import load_corpus
from lm_core.data.splitting import split_corpus
from lm_core.data.token_store import encode_split
from lm_core.data.tokenizer import build_tokenizer

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

def watch():
    while True:
        peaks.append(anonymous())
        time.sleep(0.002)

before, peaks = anonymous(), []
threading.Thread(target=watch, daemon=True).start()
corpus = load_corpus(sys.argv[1])
tokenizer = build_tokenizer(split_corpus(corpus), sys.argv[2])
training, validation = encode_split(split_corpus(corpus), tokenizer)
RandomBatches(training, 16, 256, 1).batch(0)
tokenizer.count_bytes(validation)
print(max([*peaks, anonymous()]) - before)
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "large.txt"
    line = "Ein Text, größer als mancher Speicher: “und” so weiter 🙂.\n".encode()
    with path.open("wb") as stream:
        for _ in range(300):
            stream.write(line * 2**14)
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
@pytest.mark.parametrize("kind", ["byte", "char"])
def test_a_large_text_needs_little_memory(text, tmp_path, kind):
    environment = {**os.environ, "LM_CORE_CACHE": str(tmp_path)}
    for _ in range(2):
        words = [sys.executable, "-c", MEASURED, str(text), kind]
        done = subprocess.run(
            words, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True
        )
        assert float(done.stdout) < 100


def plan_of(text, cache, *more):
    words = ["--mode=plan", "--format=json", f"--corpus={text}", "--gin.Tokenizer.kind=char"]
    return run(*words, *TINY, *more, cwd=text.parent, check=0, LM_CORE_CACHE=str(cache))


def test_a_large_text_is_read_and_encoded_the_first_time_only(text, tmp_path):
    first, second = plan_of(text, tmp_path), plan_of(text, tmp_path)
    assert "reading the corpus: " in first.stderr
    assert "encoding the corpus: " in first.stderr
    assert second.stderr == ""
    verified = plan_of(text, tmp_path, "--verify_corpus")
    assert "reading the corpus: " in verified.stderr
    assert "checking the tokens: " in verified.stderr
    assert "encoding" not in verified.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_an_encoding_that_is_ended_leaves_nothing_that_stays(
    text, tmp_path, monkeypatch, number, code
):
    monkeypatch.setenv("LM_CORE_CACHE", str(tmp_path))
    words = ["--mode=plan", f"--corpus={text}", "--gin.Tokenizer.kind=char", *TINY]
    with start(*words, cwd=text.parent) as process:
        while not list(tmp_path.glob("*.part")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        output = process.communicate()
    assert process.returncode == code
    assert len(list(tmp_path.glob("*.part"))) == (number == signal.SIGKILL)
    if number != signal.SIGKILL:
        assert output[1].splitlines()[-1] == "stopped at once"
    done = plan_of(text, tmp_path)
    assert "reading" not in done.stderr
    assert list(tmp_path.glob("*.part")) == []
    assert len(list(tmp_path.glob("*.tokens"))) == 1
