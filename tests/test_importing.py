"""Folders that the real transformers wrote, as runs of ours; and what cannot be one."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Model

from lm_core import examination, experiment
from lm_core.config.resolution import ConfigSources
from lm_core.data.tokenizer import ByteTokenizer
from lm_core.errors import InputError, MachineError
from lm_core.exchange import importing
from lm_core.exchange.exporting import write_folder
from lm_core.record import RunDirectory
from lm_core.request import Request
from lm_core.training.checkpoint import load_checkpoint
from lm_core.training.restoring import restored_model
from tests.by_transformers import amend, gpt2, llama, saved
from tests.exchanged import MAPPED, TOKENIZER, assert_equal_logits, loaded, name_of, shaken

MODELS = {
    "gpt2": gpt2,
    "gpt2 with the exact gelu": lambda: gpt2(activation_function="gelu", n_inner=40),
    "gpt2 with a head of its own": lambda: gpt2(tie_word_embeddings=False),
    "llama": llama,
    "llama with shared heads of keys": lambda: llama(num_key_value_heads=2),
    "llama with one head of keys and biases": lambda: llama(
        num_key_value_heads=1, attention_bias=True, mlp_bias=True
    ),
    "llama with biases in attention alone": lambda: llama(attention_bias=True),
    "llama whose head is the embedding": lambda: llama(tie_word_embeddings=True),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_transformers_has_equal_logits_here(name, tmp_path):
    theirs = MODELS[name]()
    imported = importing.read_folder(saved(tmp_path, theirs))
    assert imported.tokenizer == ByteTokenizer()
    assert_equal_logits(imported.model, theirs)


@pytest.mark.parametrize("choices", MAPPED, ids=name_of)
def test_what_was_exported_comes_back_bit_by_bit(choices, tmp_path):
    model = shaken(dropout=0.25, **choices)
    write_folder(model, TOKENIZER, tmp_path / "out")
    again = importing.read_folder(str(tmp_path / "out")).model
    # GPT-2 has biases, which are zeros where ours has none.
    has_biases = choices["bias"] or choices["position"] == "learned"
    assert again.arguments == {**model.arguments, "bias": has_biases}
    own = model.state_dict()
    for parameter, weight in again.state_dict().items():
        assert torch.equal(weight, own.get(parameter, torch.zeros_like(weight))), parameter


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32_and_loses_nothing(dtype, tmp_path):
    theirs = gpt2().to(dtype)
    imported = importing.read_folder(saved(tmp_path, theirs)).model
    assert {p.dtype for p in imported.parameters()} == {torch.float32}
    assert torch.equal(imported.token_embedding.weight, theirs.transformer.wte.weight.float())


def test_several_files_with_an_index_are_one_model(tmp_path):
    theirs = llama()
    saved(tmp_path, theirs, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_equal_logits(importing.read_folder(tmp_path).model, theirs)


def test_names_without_their_prefix_and_masks_among_the_weights_are_known(tmp_path):
    # As OpenAI's folder of GPT-2 has it.
    theirs = gpt2()
    saved(tmp_path, theirs)
    path = tmp_path / "model.safetensors"
    weights = {name.removeprefix("transformer."): w for name, w in load_file(path).items()}
    weights["h.0.attn.bias"] = torch.ones(1, 1, 16, 16)
    weights["lm_head.weight"] = weights["wte.weight"].clone()
    save_file(weights, path)
    assert_equal_logits(importing.read_folder(tmp_path).model, theirs)
    base = GPT2Model(theirs.config)
    base.load_state_dict(theirs.transformer.state_dict())
    assert_equal_logits(importing.read_folder(saved(tmp_path / "base", base)).model, theirs)


def test_links_to_files_elsewhere_are_followed_as_a_cache_of_downloads_has_them(tmp_path):
    theirs = gpt2()
    saved(tmp_path / "blobs", theirs)
    (tmp_path / "snapshot").mkdir()
    for path in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    assert_equal_logits(importing.read_folder(tmp_path / "snapshot").model, theirs)


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (gpt2, {"model_type": "gpt_neox"}, "model_type 'gpt_neox' is none that the lab imports"),
        (gpt2, {"model_type": "missing"}, "model_type null is none"),
        (gpt2, {"activation_function": "silu"}, "activation_function 'silu' is none that the lab"),
        (gpt2, {"activation_function": ["gelu"]}, "activation_function .* is none that the lab"),
        (gpt2, {"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon 1e-06 is not 1e-05"),
        (gpt2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx true"),
        (gpt2, {"scale_attn_weights": False}, "scale_attn_weights false"),
        (gpt2, {"add_cross_attention": True}, "add_cross_attention true"),
        (gpt2, {"n_embd": 25}, "25 is not divisible by n_heads"),
        (gpt2, {"n_embd": "24"}, "n_embd '24' is no whole number"),
        (gpt2, {"n_layer": True}, "n_layer true is no whole number"),
        (gpt2, {"n_layer": "missing"}, "n_layer null is no whole number"),
        (gpt2, {"n_layer": 10**9}, "1,000,000,000 layers, and there are 28 tensors"),
        (gpt2, {"n_layer": 1}, r"transformer.h.1.* has no place in such a model"),
        (gpt2, {"n_layer": 3}, r"transformer.h.2.* is missing"),
        (gpt2, {"n_positions": 17}, r"transformer.wpe.weight is \(16, 24\), where .* \(17, 24\)"),
        (gpt2, {"n_inner": 10**9}, r"c_fc.weight is \(24, 96\), where"),
        (gpt2, {"vocab_size": 257}, "has 257 tokens, and its tokenizer.json 256"),
        (gpt2, {"resid_pdrop": 1.5}, "dropout: 1.5"),
        (gpt2, {"resid_pdrop": "much"}, "resid_pdrop 'much' is no number"),
        (gpt2, {"tie_word_embeddings": 1}, "tie_word_embeddings 1 is neither true nor false"),
        (gpt2, {"tie_word_embeddings": False}, "lm_head.weight is missing"),
        (gpt2, {"quantization_config": {"bits": 4}}, "quantization_config"),
        (llama, {"hidden_act": "gelu"}, "hidden_act 'gelu' is not 'silu'"),
        (llama, {"rms_norm_eps": 1e-6}, "rms_norm_eps 1e-06 is not 1e-05"),
        (llama, {"rms_norm_eps": "missing"}, "rms_norm_eps null is not 1e-05"),
        (llama, {"head_dim": 8}, "head_dim 8 times 4 heads is not hidden_size 24"),
        (llama, {"num_key_value_heads": 3}, "num_key_value_heads 3 does not divide"),
        (llama, {"sliding_window": 4096}, "sliding_window 4096"),
        (llama, {"rope_parameters": {"rope_theta": 5e5}}, "rope_parameters: rope_theta 500000.0"),
        (
            llama,
            {"rope_parameters": {"rope_type": "llama3"}},
            "rope_parameters: rope_type 'llama3'",
        ),
        (llama, {"rope_parameters": None, "rope_theta": 5e5}, "rope_theta 500000.0 is not 10000.0"),
        (llama, {"rope_scaling": {"type": "linear"}}, "rope_scaling: type 'linear'"),
        (llama, {"rope_scaling": 3}, "rope_scaling 3 is no object"),
        (llama, {"attention_bias": True}, r"_proj.bias is missing"),
        (llama, {"mlp_bias": 1}, "mlp_bias 1 is neither"),
    ],
)
def test_what_the_lab_does_not_have_is_told_by_its_name(make, changes, message, tmp_path):
    saved(tmp_path, make())
    amend(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        importing.read_folder(tmp_path)


def imported(folder, capsys):
    request = Request(ConfigSources(), run_dir=folder / "runs" / "b", source=folder / "a")
    importing.import_folder(request)
    return RunDirectory.open(folder / "runs" / "b"), capsys.readouterr().out


def test_an_imported_model_is_a_run_that_can_be_looked_at(tmp_path, capsys):
    theirs = gpt2()
    saved(tmp_path / "a", theirs)
    run, told = imported(tmp_path, capsys)
    assert "imported a GPT-2 of 21,024 parameters" in told
    manifest = run.manifest
    assert manifest["outcome"] == "imported"
    assert list(manifest["imported"]["files"]) == ["model.safetensors"]
    size = (tmp_path / "a" / "model.safetensors").stat().st_size
    assert manifest["imported"]["files"]["model.safetensors"]["bytes"] == size
    model, tokenizer = restored_model(load_checkpoint(run.checkpoints / "step-00000000"))
    assert_equal_logits(model.eval(), theirs)
    examination.evaluate(Request(ConfigSources(), run_dir=run.path))
    assert "checkpoint: step 0" in capsys.readouterr().out
    examination.sample(Request(ConfigSources(), run_dir=run.path))
    text = capsys.readouterr().out
    assert text.startswith("The")
    assert len(tokenizer.encode(text, "the sample")) >= 100 // 4


def test_an_imported_run_has_nothing_to_go_on_with_and_says_what_trains_it_further(
    tmp_path, capsys
):
    saved(tmp_path / "a", gpt2())
    run, _ = imported(tmp_path, capsys)
    words = r"b was imported: .*; --config=.*/b/fine-tune.yaml trains it further, in another --run"
    with pytest.raises(InputError, match=words):
        experiment.train(Request(ConfigSources(), run_dir=run.path, resume=True))
    assert run.manifest["outcome"] == "imported"


def test_nothing_is_left_of_an_import_that_fails(tmp_path, capsys, monkeypatch):
    saved(tmp_path / "a", gpt2())

    def fails(*arguments):
        raise MachineError("the disk is full")

    monkeypatch.setattr(importing, "save_start", fails)
    with pytest.raises(MachineError, match="the disk is full"):
        imported(tmp_path, capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("place", ["training.checkpoint.write_tensors", "record.write_synced"])
def test_a_full_disk_is_told_by_the_name_that_was_asked_for(place, tmp_path, capsys, monkeypatch):
    saved(tmp_path / "a", gpt2())

    def fails(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"lm_core.{place}", fails)
    with pytest.raises(MachineError) as told:
        imported(tmp_path, capsys)
    words = f"the run directory {tmp_path / 'runs' / 'b'} cannot be made: No space left on device"
    assert told.value.message == f"--run_dir: {words}; name another one"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_empty_folder_is_no_place_for_a_run_to_be_imported(tmp_path, capsys):
    saved(tmp_path / "a", gpt2())
    (tmp_path / "runs" / "b").mkdir(parents=True)
    with pytest.raises(InputError, match=r"--run_dir: .*b is there already.* such as .*b/model"):
        imported(tmp_path, capsys)
    assert not any((tmp_path / "runs" / "b").iterdir())


def test_a_run_that_is_there_is_never_overwritten(tmp_path, capsys):
    saved(tmp_path / "a", gpt2())
    imported(tmp_path, capsys)
    with pytest.raises(InputError, match=r"--run_dir: .* is not empty"):
        imported(tmp_path, capsys)


def test_import_needs_a_folder(tmp_path):
    with pytest.raises(InputError, match="--from is missing"):
        importing.import_folder(Request(ConfigSources()))
    with pytest.raises(InputError, match="is no folder"):
        importing.read_folder(str(tmp_path / "nowhere"))


def test_there_and_back_the_other_way_round(tmp_path):
    theirs = llama(num_key_value_heads=2)
    ours = importing.read_folder(saved(tmp_path / "a", theirs))
    write_folder(ours.model, ours.tokenizer, tmp_path / "b")
    again, _ = loaded(tmp_path / "b")
    tokens = torch.from_numpy(np.arange(16)[None])
    with torch.inference_mode():
        torch.testing.assert_close(
            again(tokens).logits, theirs(tokens).logits, rtol=1e-4, atol=1e-4
        )
