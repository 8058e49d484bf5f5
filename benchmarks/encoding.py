"""Measures how fast text becomes tokens, and what a large text takes the first time and the next.

    python -m benchmarks.encoding --gigabytes=4

The first table is of one core: texts of several scripts, in blocks as they are read from a file,
encoded into an array. Speeds are those of seconds of the processor, so that other programs on the
machine do not count, at the median of the turns. Beside each stands the share that it has of the
speed of a SHA-256, and of a copy in memory, of the same bytes in the same turn.

The second table is of byte-level BPE, on texts a tenth of that size, for which the tokenizer was
trained. A turn encodes a text in one call of the package ``tokenizers``, on one core as it does
that, then through the lab on one core, and on all of them; seconds are those of the clock.

The third table is of a file of the size that is asked for, in processes of their own: the first
time, when it is read, checked, hashed, encoded and written; the next time; and with all checksums
verified. Anonymous memory is what a process holds that no file backs (RssAnon of Linux), at its
peak, above what it was before. The file was just written, so it is read from the system's memory
where it fits; to write the tokens takes what the disk takes.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import arguments, median_ratio, print_result, take_turns, world
from lm_core.data.bpe import BpeTokenizer, package
from lm_core.data.bpe_training import train_bpe
from lm_core.data.characters import OccurringCharacters
from lm_core.data.corpus import Corpus, load_corpus
from lm_core.data.splitting import split_corpus
from lm_core.data.text_files import Block, blocks_of
from lm_core.data.token_store import encode_split
from lm_core.data.tokenizer import CharTokenizer, Tokenizer, build_tokenizer, tokenizer_from_dict

PROJECT = Path(__file__).resolve().parents[1]
# Letters of each text, and how many of 1,000 characters are others.
LATIN = "".join(map(chr, range(ord("a"), ord("z") + 1)))
SCRIPTS = {
    "English with typographic signs": (LATIN, "“”—é", 10),
    "German": (LATIN, "äöüß", 60),
    "Russian": ("".join(map(chr, range(0x430, 0x450))), ",.", 20),
    "Chinese": ("".join(map(chr, range(0x4E00, 0x4E00 + 3000))), "、。", 50),
    "English with emoji": (LATIN, "🙂🎉", 5),
}
MEGABYTE = 10**6
BPE_VOCABULARY = 4096
SECONDS_BETWEEN_LOOKS = 0.002


def text_of(letters: str, others: str, n_others: int, n_bytes: int) -> str:
    """Words of random letters, about so many bytes; the same every time."""
    generator = np.random.default_rng(0)
    n = n_bytes // len(letters[-1].encode())
    places = generator.integers(0, len(letters), n)
    alphabet = np.array([*letters, *others, " "])
    places[generator.random(n) < n_others / 1000] = len(letters)
    is_other = places == len(letters)
    places[is_other] += generator.integers(0, len(others), int(is_other.sum()))
    places[generator.random(n) < 1 / 6] = len(alphabet) - 1
    return "".join(alphabet[places])


def throughput(n_bytes: int, repetitions: int, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each text and tokenizer."""
    built_in = b"".join(block.data for block in load_corpus().blocks())
    texts = {"ASCII": built_in * (1 + n_bytes // len(built_in))}
    texts |= {name: text_of(*script, n_bytes).encode() for name, script in SCRIPTS.items()}
    for name, data in texts.items():
        path = folder / "text.txt"
        path.write_bytes(data)
        blocks = list(blocks_of(path))
        occurring = OccurringCharacters()
        for block in blocks:
            occurring.add(block.data)
        tokenizers = [CharTokenizer(occurring.sorted()), tokenizer_from_dict({"kind": "byte"})]
        if data.isascii():
            tokenizers.insert(0, tokenizer_from_dict({"kind": "ascii"}))
        target = bytearray(len(data))
        cases = {
            "SHA-256": partial(sha256_of, blocks),
            "copy": partial(copy, blocks, target),
            "check": partial(check, blocks),
        }
        for tokenizer in tokenizers:
            tokens = np.empty(len(data), dtype=tokenizer.dtype)
            cases[tokenizer.kind] = partial(encode, tokenizer, blocks, tokens)
        seconds = processor_seconds(cases, repetitions)
        for case in ("check", *(tokenizer.kind for tokenizer in tokenizers)):
            yield {
                "text": name,
                "work": "UTF-8, characters" if case == "check" else f"encode {case}",
                "MB/s": len(data) / statistics.median(seconds[case]) / MEGABYTE,
                "of SHA-256": median_ratio(seconds["SHA-256"], seconds[case]),
                "of a copy": median_ratio(seconds["copy"], seconds[case]),
            }


def bpe(n_bytes: int, repetitions: int) -> Iterator[dict[str, Any]]:
    """A row for each text: byte-level BPE beside the package's own, on one core and on all."""
    built_in = b"".join(block.data for block in load_corpus().blocks()).decode()
    texts = {"ASCII": (built_in * (1 + n_bytes // len(built_in)))[:n_bytes]}
    texts |= {name: text_of(*script, n_bytes) for name, script in SCRIPTS.items()}
    for name, text in texts.items():
        tokenizer = train_bpe([[text]], BPE_VOCABULARY)
        own = package().Tokenizer.from_str(tokenizer.json)
        own.encode_special_tokens = True
        data = text.encode()
        size = 2**18
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        blocks = [Block(piece.encode(), name, 0) for piece in pieces]
        cases = {
            "package": partial(
                on_cores, False, partial(own.encode, text, add_special_tokens=False)
            ),
            "one": partial(on_cores, False, partial(all_of, tokenizer, blocks)),
            "all": partial(on_cores, True, partial(all_of, tokenizer, blocks)),
        }
        if not np.array_equal(cases["package"]().ids, np.concatenate(cases["all"]())):
            raise SystemExit(f"{name}: the tokens are not those of the package")
        seconds = take_turns(cases, repetitions)
        yield {
            "text": name,
            "bytes a token": len(data) / len(own.encode(text, add_special_tokens=False).ids),
            "MB/s": len(data) / statistics.median(seconds["all"]) / MEGABYTE,
            "one core of package": median_ratio(seconds["package"], seconds["one"]),
            "all cores of one": median_ratio(seconds["one"], seconds["all"]),
        }


def all_of(tokenizer: BpeTokenizer, blocks: list[Block]) -> list[np.ndarray]:
    """The tokens of blocks that are one text."""
    return list(tokenizer.encode_document(blocks))


def on_cores(all_of_them: bool, work: Callable[[], Any]) -> Any:
    """Does work of the package ``tokenizers`` on all cores, or on one."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if all_of_them else "false"
    return work()


def processor_seconds(
    cases: Mapping[str, Callable[[], Any]], repetitions: int
) -> dict[str, list[float]]:
    """Seconds of the processor that each case takes in each turn that counts."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}

    def timed(name: str) -> None:
        start = time.thread_time()
        cases[name]()
        seconds[name].append(time.thread_time() - start)

    take_turns({name: partial(timed, name) for name in cases}, repetitions)
    return {name: taken[-repetitions:] for name, taken in seconds.items()}


def sha256_of(blocks: list[Block]) -> str:
    """The SHA-256 of all blocks."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block.data)
    return digest.hexdigest()


def copy(blocks: list[Block], target: bytearray) -> None:
    """Copies all blocks into one place."""
    place = 0
    view = memoryview(target)
    for block in blocks:
        view[place : place + len(block.data)] = block.data
        place += len(block.data)


def check(blocks: list[Block]) -> None:
    """Makes sure that all blocks are UTF-8, and finds out which characters occur."""
    occurring = OccurringCharacters()
    for block in blocks:
        occurring.add(block.data)


def encode(tokenizer: Tokenizer, blocks: list[Block], tokens: np.ndarray) -> None:
    """Puts the tokens of all blocks into one array."""
    place = 0
    for block in blocks:
        part = tokenizer.encode_block(block)
        tokens[place : place + len(part)] = part
        place += len(part)


def write_large(path: Path, n_bytes: int) -> None:
    """Writes the built-in corpus into a file, again and again."""
    text = b"".join(block.data for block in load_corpus().blocks())
    with path.open("wb") as stream:
        while n_bytes:
            n_bytes -= stream.write(text[:n_bytes])


def large(n_bytes: int, kind: str, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each way to open a file of so many bytes."""
    path = folder / "large.txt"
    write_large(path, n_bytes)
    environment = {**os.environ, "LM_CORE_CACHE": str(folder / "cache")}
    for name, more in (("first time", []), ("next time", []), ("verified", ["--verify_corpus"])):
        words = ["-m", "benchmarks.encoding", f"--open={path}", f"--kind={kind}", *more]
        done = subprocess.run(
            [sys.executable, *words],
            cwd=PROJECT,
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
        )
        found = json.loads(done.stdout)
        yield {
            "opened": name,
            "load s": found["load"],
            "encode s": found["encode"],
            "MB/s": n_bytes / (found["load"] + found["encode"]) / MEGABYTE,
            "processor s": found["processor"],
            "anonymous MiB": found["anonymous"],
        }


def opened(path: str, kind: str, verify: bool) -> dict[str, float]:
    """Opens a text as a run does, and tells seconds and memory."""
    before, peaks, is_done = anonymous(), [], threading.Event()

    def watch() -> None:
        while not is_done.wait(SECONDS_BETWEEN_LOOKS):
            peaks.append(anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    processor, start = time.process_time(), time.perf_counter()
    corpus: Corpus = load_corpus(path, verify)
    loaded = time.perf_counter()
    tokenizer = build_tokenizer(split_corpus(corpus), kind)
    encode_split(split_corpus(corpus), tokenizer, verify=verify)
    encoded = time.perf_counter()
    processor = time.process_time() - processor
    is_done.set()
    watcher.join()
    return {
        "load": loaded - start,
        "encode": encoded - loaded,
        "processor": processor,
        "anonymous": max([*peaks, anonymous()]) - before,
    }


def anonymous() -> float:
    """MiB of this process that no file backs; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def options() -> argparse.Namespace:
    """What the command line asks for."""
    parser = arguments(__doc__, repetitions=9)
    parser.add_argument("--megabytes", type=float, default=16, help="size of each text, default 16")
    parser.add_argument(
        "--gigabytes", type=float, default=1, help="size of the large file, default 1; 0 for none"
    )
    parser.add_argument("--kind", default="char", help="tokenizer of the large file, default char")
    parser.add_argument("--folder", type=Path, help="where the files lie while it is measured")
    parser.add_argument("--open", help="measure the opening of this file, and nothing else")
    parser.add_argument("--verify_corpus", action="store_true", help="with --open: check all")
    return parser.parse_args()


def main() -> None:
    """Measures, and prints the tables."""
    asked = options()
    if asked.open:
        print(json.dumps(opened(asked.open, asked.kind, asked.verify_corpus)))
        return
    n_bytes, large_bytes = int(asked.megabytes * MEGABYTE), int(asked.gigabytes * 1000 * MEGABYTE)
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        rows = list(throughput(n_bytes, asked.repetitions, Path(name)))
        bpe_rows = list(bpe(max(n_bytes // 10, 1), asked.repetitions))
        large_rows = list(large(large_bytes, asked.kind, Path(name))) if large_bytes else []
    facts = {"large file": f"{large_bytes:,} bytes, {asked.kind}"}
    if asked.json:
        print_result(world(), rows, True, {**facts, "bpe": bpe_rows, "large": large_rows})
        return
    print_result(world(), rows, False)
    print()
    print_result(world(), bpe_rows, False, {"bpe": f"vocabulary of {BPE_VOCABULARY:,}"})
    if large_rows:
        print()
        print_result(world(), large_rows, False, facts)


if __name__ == "__main__":
    main()
