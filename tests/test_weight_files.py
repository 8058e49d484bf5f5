"""Files of weights that are damaged, would run code, or do not fit: told before they are read."""

import json
import os
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from lm_core.errors import InputError, MachineError
from lm_core.exchange import importing, weight_files
from tests.by_transformers import amend, gpt2, saved


def broken_index(name):
    def damage(folder):
        (folder / "model.safetensors").rename(folder / "kept")
        index = {"weight_map": {"transformer.wte.weight": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return damage


def with_header(header, rest=b""):
    def damage(folder):
        text = json.dumps(header).encode()
        data = struct.pack("<Q", len(text)) + text + rest
        (folder / "model.safetensors").write_bytes(data)

    return damage


def truncated(folder):
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size // 2)


def replaced(name, change):
    def damage(folder):
        weights = load_file(folder / "model.safetensors")
        weights[name] = change(weights[name])
        save_file(weights, folder / "model.safetensors")

    return damage


def renamed(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def pipe(name):
    def damage(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


WTE = "transformer.wte.weight"
HUGE = {WTE: {"dtype": "F32", "shape": [10**9, 10**6], "data_offsets": [0, 4 * 10**15]}}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "holds no weights"),
        (with_header(HUGE), "holds no weights"),
        (with_header({"a": 3}), "holds no weights"),
        (renamed, "pytorch_model.bin is a pickle, which runs the code in it.*save_pretrained"),
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda f: (f / "config.json").unlink(), "config.json cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "holds no JSON object"),
        (lambda f: (f / "config.json").write_text("{"), "holds no JSON"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "config.json is nested too deep"),
        (lambda f: (f / "config.json").write_text(" " * 2**21), "2,097,152 bytes, which is more"),
        (pipe("config.json"), "config.json is no file"),
        (pipe("tokenizer.json"), "tokenizer.json is no file"),
        (pipe("model.safetensors"), "model.safetensors is no file"),
        (broken_index("../kept.safetensors"), "is no name of a safetensors file beside it"),
        (broken_index("/etc/passwd"), "is no name of a safetensors file beside it"),
        (broken_index("kept"), "is no name of a safetensors file beside it"),
        (broken_index(3), "is no name of a safetensors file beside it"),
        (broken_index("gone.safetensors"), "gone.safetensors is no file"),
        (replaced(WTE, lambda w: w.long()), "wte.weight is of I64"),
        (replaced(WTE, lambda w: w * torch.nan), "wte.weight has numbers that are not"),
        (replaced(WTE, lambda w: w.index_fill(0, torch.tensor(7), torch.inf)), "has numbers that"),
        (replaced(WTE, lambda w: w.index_fill(0, torch.tensor(7), -torch.inf)), "has numbers that"),
        (replaced(WTE, lambda w: w.T.contiguous()), r"is \(24, 256\), where config.json means"),
        (replaced("transformer.wpe.weight", lambda w: w[:0]), r"wpe.weight is \(0, 24\)"),
    ],
)
def test_what_is_damaged_or_would_run_code_is_refused(damage, message, tmp_path):
    damage(saved(tmp_path, gpt2()))
    with pytest.raises(InputError, match=message):
        importing.read_folder(tmp_path)


def test_a_head_that_should_be_the_embedding_and_is_not_is_refused(tmp_path):
    saved(tmp_path, gpt2(tie_word_embeddings=False))
    amend(tmp_path, tie_word_embeddings=True)
    with pytest.raises(InputError, match=r"lm_head.weight is not"):
        importing.read_folder(tmp_path)


def test_two_tensors_of_one_name_are_refused(tmp_path):
    saved(tmp_path, gpt2())
    weights = load_file(tmp_path / "model.safetensors")
    weights["wte.weight"] = weights[WTE].clone()
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"there are two tensors transformer.wte.weight"):
        importing.read_folder(tmp_path)


def test_what_does_not_fit_into_memory_is_told_before_it_is_read(tmp_path, monkeypatch):
    saved(tmp_path, gpt2())
    monkeypatch.setattr(importing, "most_memory", lambda: 1000)
    with pytest.raises(MachineError, match="bytes of memory, this machine has 1,000"):
        importing.read_folder(tmp_path)


@pytest.fixture
def no_reading(monkeypatch):
    def read(self, name):
        pytest.fail(f"{name} was read")

    monkeypatch.setattr(weight_files.WeightFiles, "read", read)


def with_second_head(folder):
    """As some folders have it, the token embedding once more."""
    saved(folder, gpt2())
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights[WTE].clone()
    save_file(weights, folder / "model.safetensors")


def test_nothing_is_read_before_all_is_compared_where_the_head_is_there_twice(tmp_path, no_reading):
    with_second_head(tmp_path)
    amend(tmp_path, n_layer=3)
    with pytest.raises(InputError, match=r"transformer.h.2.* is missing"):
        importing.read_folder(tmp_path)
    amend(tmp_path, n_layer=2)
    replaced("lm_head.weight", lambda w: w[:, 1:].contiguous())(tmp_path)
    with pytest.raises(InputError, match=r"lm_head.weight is \(256, 23\), where config.json means"):
        importing.read_folder(tmp_path)


def test_memory_is_asked_for_before_the_two_heads_are_compared(tmp_path, no_reading, monkeypatch):
    with_second_head(tmp_path)
    monkeypatch.setattr(importing, "most_memory", lambda: 1000)
    with pytest.raises(MachineError, match="bytes of memory, this machine has 1,000"):
        importing.read_folder(tmp_path)


@pytest.mark.parametrize("call", ["get_slice", "get_tensor"])
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("unable to mmap 4096 bytes from file <a>: Cannot allocate memory (12)"),
        OSError("Cannot allocate memory (os error 12)"),
        OSError(12, "Not enough space"),
        MemoryError(),
    ],
    ids=repr,
)
def test_a_file_that_cannot_be_mapped_is_told_in_one_line(call, error, tmp_path, monkeypatch):
    saved(tmp_path, gpt2())
    true_open = weight_files.safe_open

    class Opened:
        def __init__(self, *arguments, **options):
            self._file = true_open(*arguments, **options)

        def __enter__(self):
            return self

        def __exit__(self, *details):
            pass

        def __getattr__(self, name):
            if name == call:
                raise error
            return getattr(self._file, name)

    monkeypatch.setattr(weight_files, "safe_open", Opened)
    with pytest.raises(MachineError, match=r"model.safetensors cannot be mapped into") as told:
        importing.read_folder(tmp_path)
    assert "\n" not in told.value.message
