"""From transformers and back to it, each command in a process of its own."""

import json
import os
import re
import signal
import time

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from lm_core.exchange.tokenizer_files import tokenizer_files
from tests.end_to_end.command_line import TINY, manifest, run, start
from tests.exchanged import TOKENIZER, loaded
from tests.small_bpe import tokenizer_json

ENDS = {"bos_token_id": None, "eos_token_id": None}
MODELS = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=256, n_positions=32, n_embd=24, n_layer=2, n_head=3, **ENDS)
    ),
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=400,
            max_position_embeddings=32,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            rms_norm_eps=1e-5,
            **ENDS,
        )
    ),
}

# What the lab wrote, and what the package tokenizers has trained.
TOKENIZERS = {
    "gpt2": ("byte", lambda: tokenizer_files(TOKENIZER, 32)),
    "llama": ("bpe", lambda: {"tokenizer.json": tokenizer_json()}),
}


def logits_of(model, max_seq_len=32):
    tokens = torch.from_numpy(np.arange(max_seq_len)[None] + 60)
    with torch.inference_mode():
        return model(tokens).logits


def loss_in(text):
    return float(re.search(r"validation loss: (\d+\.\d+)", text)[1])


@pytest.mark.parametrize("family", MODELS)
def test_a_model_is_imported_trained_further_and_exported(family, tmp_path):
    torch.manual_seed(3)
    theirs = MODELS[family]().eval()
    theirs.save_pretrained(tmp_path / "theirs")
    kind, files = TOKENIZERS[family]
    for name, text in files().items():
        (tmp_path / "theirs" / name).write_text(text)
    done = run("--mode=import", "--from=theirs", "--run_dir=runs/a", cwd=tmp_path, check=0)
    assert f"tokenizer: {kind}, {theirs.config.vocab_size} tokens" in done.stdout
    before = run("--mode=evaluate", "--run_dir=runs/a", cwd=tmp_path, check=0).stdout
    (tmp_path / "mail.jsonl").write_text('{"body": "' + 40 * "a" + '"}\n')
    other = ["--corpus=mail.jsonl", "--gin.load_corpus.text_key=body"]
    done = run("--mode=evaluate", "--run_dir=runs/a", *other, cwd=tmp_path, check=0)
    assert "mail.jsonl, 4" in done.stdout
    assert run("--mode=sample", "--run_dir=runs/a", cwd=tmp_path, check=0).stdout[:3] == "The"
    run("--mode=export", "--run_dir=runs/a", "--to=same", cwd=tmp_path, check=0)
    same, _ = loaded(tmp_path / "same")
    torch.testing.assert_close(logits_of(same), logits_of(theirs), rtol=1e-4, atol=1e-5)

    tune = ["--config=runs/a/fine-tune.yaml", "--run_dir=runs/b", "--resume", "--max_steps=30"]
    tune += ["--gin.Trainer.batch_size=8", "--gin.Trainer.learning_rate=3e-3"]
    done = run(*tune, cwd=tmp_path, check=0)
    assert f"beginning with the weights of {tmp_path / 'runs' / 'a'}" in done.stdout
    after = run("--mode=evaluate", "--run_dir=runs/b", cwd=tmp_path, check=0).stdout
    assert loss_in(after) < loss_in(before) - 0.5
    run(*tune, "--max_steps=31", cwd=tmp_path, check=0)
    assert manifest(tmp_path / "runs" / "b")["resumed"]

    run("--mode=export", "--run_dir=runs/b", "--to=tuned", cwd=tmp_path, check=0)
    tuned, tokenizer = loaded(tmp_path / "tuned")
    assert type(tuned) is type(theirs)
    written = run(
        *("--mode=sample", "--run_dir=runs/b", "--gin.Sampler.temperature=0"),
        "--gin.Sampler.max_length=20",
        cwd=tmp_path,
        check=0,
    ).stdout
    inputs = tokenizer("The", return_tensors="pt")
    tokens = tuned.generate(**inputs, max_new_tokens=20, do_sample=False)
    assert tokenizer.decode(tokens[0]) == written
    card = (tmp_path / "tuned" / "README.md").read_text()
    assert manifest(tmp_path / "runs" / "b")["config_hash"] in card
    assert str(tmp_path) not in card


def test_the_plan_of_a_run_that_begins_elsewhere_is_told(tmp_path):
    run(*TINY, "--max_steps=2", "--run_dir=a", cwd=tmp_path, check=0)
    init = "--gin.load_initial_weights.init_from=a"
    plan = run("--mode=plan", *TINY, init, cwd=tmp_path, check=0).stdout
    assert plan.split("\n")[0].split() == ["begins", "with", "step", "2", "of", str(tmp_path / "a")]
    plan = run("--mode=plan", *TINY, init, "--format=json", cwd=tmp_path, check=0).stdout
    assert json.loads(plan)["init_from"]["sha256"]
    shown = run("--mode=config", *TINY, init, cwd=tmp_path, check=0).stdout
    assert re.search(r"^\* +init_from +\"a\" +null +--gin_bindings$", shown, re.M)
    wrong = run("--mode=plan", *TINY, init, "--gin.Transformer.d_ff=8", cwd=tmp_path, check=2)
    assert "d_ff: 32 there, 8 here (--gin_bindings)" in wrong.stderr


def test_what_cannot_be_exported_says_what_could(tmp_path):
    odd = ["--gin.Transformer.norm=rmsnorm", "--gin.Transformer.qk_norm=True"]
    run(*TINY, *odd, "--max_steps=2", "--run_dir=a", cwd=tmp_path, check=0)
    done = run("--mode=export", "--run_dir=a", "--to=out", cwd=tmp_path, check=2)
    assert done.stderr.splitlines()[1:] == [
        "  GPT-2 needs norm: layernorm (here rmsnorm), qk_norm: false (here true)",
        "  Llama needs position: rope (here learned), activation: swiglu (here gelu), "
        "qk_norm: false (here true)",
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode=export", "--run_dir=a"], "--to is missing"),
        (["--mode=export", "--to=b"], "--run_dir is missing"),
        (["--mode=export", "--run_dir=a", "--to=b", "--max_steps=3"], "takes the run's own config"),
        (["--mode=import"], "--from is missing"),
        (["--mode=import", "--from=nowhere"], "nowhere is no folder"),
        (["--mode=import", "--from=a", "--config=b.yaml"], "--config does not apply"),
        (["--to=b"], "--to does not apply to --mode=train"),
        (["--mode=export", "--run_dir=a", "--to="], "--to is empty"),
    ],
)
def test_wrong_flags_are_told(arguments, message, tmp_path):
    assert message in run(*arguments, cwd=tmp_path, check=2).stderr


def test_a_killed_export_leaves_no_folder_that_looks_whole_and_the_next_cleans_up(tmp_path):
    sizes = ["--gin.Transformer.d_model=256", "--gin.Transformer.d_ff=4096"]
    run(*TINY, *sizes, "--max_steps=1", "--run_dir=runs/a", cwd=tmp_path, check=0)
    arguments = ["--mode=export", "--run_dir=runs/a", "--to=outs/out"]
    outs = tmp_path / "outs"
    process = start(*arguments, cwd=tmp_path)
    # Killed as soon as anything of it is on the disk.
    deadline = time.monotonic() + 60
    while not (outs.exists() and any(outs.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    there = [path.name for path in outs.iterdir()]
    assert there
    if "out" not in there:
        run(*arguments, cwd=tmp_path, check=0)
    # Whatever the kill met, what has the name is whole, and nothing else is left.
    assert [path.name for path in outs.iterdir()] == ["out"]
    loaded(outs / "out")
    json.loads((outs / "out" / "config.json").read_text())
