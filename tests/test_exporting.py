"""A run's model as a folder that the real transformers loads."""

import json
import stat
from pathlib import Path

import pytest
import torch

from lm_core.data.tokenizer import AsciiTokenizer, ByteTokenizer
from lm_core.errors import InputError
from lm_core.exchange import exporting
from lm_core.exchange.exporting import write_folder
from lm_core.sampling import Sampler
from tests.exchanged import (
    MAPPED,
    TOKENIZER,
    UNMAPPED,
    assert_equal_logits,
    is_llama,
    loaded,
    name_of,
    shaken,
)


def test_sixteen_of_the_combinations_map():
    assert (len(MAPPED), len(UNMAPPED)) == (16, 240)


@pytest.mark.parametrize("choices", MAPPED, ids=name_of)
def test_every_combination_that_maps_has_equal_logits_and_writes_the_same(choices, tmp_path):
    model = shaken(dropout=0.25, **choices)
    write_folder(model, TOKENIZER, tmp_path / "out")
    theirs, tokenizer = loaded(tmp_path / "out")
    assert type(theirs).__name__ == ("LlamaForCausalLM" if is_llama(choices) else "GPT2LMHeadModel")
    assert_equal_logits(model, theirs)
    text = Sampler(model, TOKENIZER, temperature=0.0, prompt="go", max_length=14)()[0]
    inputs = tokenizer("go", return_tensors="pt")
    tokens = theirs.generate(**inputs, max_new_tokens=14, do_sample=False)
    assert tokenizer.decode(tokens[0]) == text


@pytest.mark.parametrize("choices", UNMAPPED, ids=name_of)
def test_every_other_combination_is_refused_with_what_would_do(choices, tmp_path):
    model = shaken(**choices)
    with pytest.raises(InputError, match="neither GPT-2 nor Llama") as told:
        write_folder(model, TOKENIZER, tmp_path / "out")
    lines = told.value.message.splitlines()
    assert len(lines) == 3
    # Who follows the nearer of both ways gets there.
    _, _, needed = lines[1].partition(" needs ")
    better = dict(choices)
    for part in needed.split(", "):
        name, value = part.split(" (here")[0].split(": ")
        word = value.split(" or ")[0]
        better[name] = {"false": False, "null": None}.get(word, word)
    assert better in MAPPED
    assert len(lines[1].split(", ")) <= len(lines[2].split(", "))
    assert not any(tmp_path.iterdir())


def test_the_configuration_says_what_the_model_is(tmp_path):
    model = shaken(dropout=0.25)
    write_folder(model, TOKENIZER, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["n_positions"] == 16
    assert config["n_inner"] == 40
    assert {config[f"{place}_pdrop"] for place in ("resid", "embd", "attn")} == {0.25}
    assert config["activation_function"] == "gelu"
    assert (config["bos_token_id"], config["eos_token_id"]) == (None, None)
    assert config["torch_dtype"] == config["dtype"] == "float32"
    theirs, _ = loaded(tmp_path / "out")
    assert theirs.generation_config.eos_token_id is None


def test_dropout_of_a_llama_is_that_of_attention(tmp_path):
    llama = next(choices for choices in MAPPED if is_llama(choices))
    write_folder(shaken(dropout=0.25, **llama), TOKENIZER, tmp_path / "out")
    theirs, _ = loaded(tmp_path / "out")
    assert theirs.config.attention_dropout == 0.25
    assert theirs.config.rope_parameters["rope_theta"] == 10_000


def test_a_model_in_another_precision_is_exported_in_float32(tmp_path):
    model = shaken().double()
    write_folder(model, TOKENIZER, tmp_path / "out")
    theirs, _ = loaded(tmp_path / "out")
    assert {p.dtype for p in theirs.parameters()} == {torch.float32}


@pytest.mark.parametrize("there", ["file", "folder", "link"])
def test_what_is_there_is_never_overwritten(there, tmp_path):
    to = tmp_path / "out"
    if there == "file":
        to.write_text("mine")
    elif there == "folder":
        to.mkdir()
        (to / "mine").write_text("mine")
    else:
        to.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"^to: "):
        write_folder(shaken(), TOKENIZER, to)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", [".", "../out", "link"])
def test_an_empty_folder_stays_what_it_is_and_a_name_in_it_will_do(name, tmp_path, monkeypatch):
    here = tmp_path / "out"
    here.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(here)
    monkeypatch.chdir(here)
    to = Path(name) if name != "link" else tmp_path / name
    with pytest.raises(InputError, match=r"^to: .* is there already") as told:
        write_folder(shaken(), ByteTokenizer(), to)
    assert Path().samefile(here)
    assert stat.S_IMODE(here.stat().st_mode) == 0o700
    assert not any(here.iterdir())
    inside = Path(told.value.message.rpartition("such as ")[2])
    write_folder(shaken(), ByteTokenizer(), inside)
    assert [path.name for path in here.iterdir()] == ["model"]


def test_an_empty_folder_that_another_process_makes_meanwhile_is_not_taken(tmp_path, monkeypatch):
    true_write = exporting.write_tensors

    def slow(*arguments):
        (tmp_path / "out").mkdir()
        return true_write(*arguments)

    monkeypatch.setattr(exporting, "write_tensors", slow)
    with pytest.raises(InputError, match="is there already"):
        write_folder(shaken(), ByteTokenizer(), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not any((tmp_path / "out").iterdir())


def test_a_tokenizer_of_another_vocabulary_is_refused(tmp_path):
    with pytest.raises(InputError, match="the tokenizer has 128 tokens, and the model 256: take"):
        write_folder(shaken(256), AsciiTokenizer(), tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_missing_folders_are_made(tmp_path):
    to = tmp_path / "a" / "b"
    write_folder(shaken(), ByteTokenizer(), to)
    assert sorted(path.name for path in to.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fails(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lm_core.exchange.exporting.write_tensors", fails)
    with pytest.raises(RuntimeError, match=r"^to: .*: No space left on device; name another one"):
        write_folder(shaken(128), AsciiTokenizer(), tmp_path / "a" / "out")
    assert not any(tmp_path.iterdir())
