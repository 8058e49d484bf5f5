"""The program that measures the time to a loss: its peer's recipe, and what it makes of turns."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from benchmarks import nanogpt_recipe, time_to_loss
from benchmarks.nanogpt_recipe import (
    Recipe,
    encoded,
    held_out_windows,
    learning_rate,
    parameter_groups,
    trained,
    validation_loss,
)
from benchmarks.peer import gpt2
from benchmarks.time_to_loss import LAB, PEER, Turn, facts, finished, loss_in, rows
from tests.config_sources import PROJECT

TEXT = "the cat sat on the mat. " * 40
TINY = Recipe(
    n_layers=1,
    n_heads=2,
    d_model=16,
    d_ff=32,
    max_seq_len=8,
    batch_size=4,
    max_steps=30,
    warmup_steps=3,
    learning_rate=1e-2,
)
TURNS = {
    LAB: [Turn(10.0, 1.87), Turn(20.0, 1.88), Turn(10.0, 1.8801)],
    PEER: [Turn(30.0, 1.9), Turn(30.0, 1.9), Turn(50.0, 1.9)],
}
# Prints what a contestant prints, and leaves the arguments that it was started with.
PROGRAM = """
import pathlib, sys
with pathlib.Path("started").open("a") as file:
    print(*sys.argv[1:], file=file)
print("final validation loss: 9.0000 nats per token")
print("final validation loss: {loss} nats per token, 2.7 bits per byte")
"""


# Waits for a process that says that it lives, and would for a minute.
WAITING = """
from benchmarks.time_to_loss import end_children_on_termination, finished
end_children_on_termination()
child = "import os, time; print(os.getpid(), file=open('child', 'w'), flush=True); time.sleep(60)"
finished("the child", ["-c", child])
"""


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 1e-3 / 101),
        (99, 1e-3 * 100 / 101),
        (100, 1e-3),
        (1050, (1e-3 + 1e-4) / 2),
        (100 + 1900 / 3, 1e-4 + 9e-4 * 0.75),
        (2000, 1e-4),
        (5000, 1e-4),
    ],
)
def test_the_learning_rate_rises_in_a_line_and_falls_along_a_cosine(step, rate):
    assert learning_rate(step, Recipe()) == pytest.approx(rate, rel=1e-12)


def test_no_step_of_the_recipe_is_without_a_learning_rate_or_above_its_height():
    rates = [learning_rate(step, Recipe()) for step in range(2000)]
    assert min(rates) > 0
    assert max(rates) == rates[100] == 1e-3
    assert rates[100:] == sorted(rates[100:], reverse=True)


def test_matrices_and_embeddings_decay_and_nothing_else_does():
    model = torch.nn.Sequential(
        torch.nn.Embedding(5, 4), torch.nn.Linear(4, 3), torch.nn.LayerNorm(3)
    )
    decaying, others = parameter_groups(model, 0.1)
    assert [tuple(one.shape) for one in decaying["params"]] == [(5, 4), (3, 4)]
    assert [tuple(one.shape) for one in others["params"]] == [(3,), (3,), (3,)]
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


def test_a_text_becomes_numbers_of_its_own_characters_in_their_order():
    tokens, vocab_size = encoded("ba\nàb😀")
    assert tokens.tolist() == [2, 1, 0, 3, 2, 4]
    assert (tokens.dtype, vocab_size) == (torch.int64, 5)


@pytest.mark.parametrize("n_tokens", [9, 17, 20, 8 * 64 + 1, 8 * 150 + 4])
def test_every_token_that_is_held_out_is_a_target_once(n_tokens):
    tokens = torch.arange(n_tokens)
    pairs = list(held_out_windows(tokens, 8))
    assert torch.cat([targets.flatten() for _, targets in pairs]).equal(tokens[1:])
    assert torch.cat([inputs.flatten() for inputs, _ in pairs]).equal(tokens[:-1])
    assert all(inputs.shape == targets.shape for inputs, targets in pairs)
    assert all(inputs.shape[1] == 8 for inputs, _ in pairs[:-1])


def test_the_peer_learns_a_text_and_the_same_seed_gives_the_same_loss():
    pytest.importorskip("transformers")
    tokens, vocab_size = encoded(TEXT)
    untrained = dataclasses.replace(TINY, max_steps=0)
    before, after, again, other, rounded = (
        validation_loss(trained(tokens, vocab_size, recipe, seed, bfloat16), tokens, 8, bfloat16)
        for recipe, seed, bfloat16 in (
            (untrained, 1, False),
            (TINY, 1, False),
            (TINY, 1, False),
            (TINY, 2, False),
            (TINY, 1, True),
        )
    )
    assert before == pytest.approx(math.log(vocab_size), abs=0.1)
    assert after < before - 0.5
    assert after == again != other
    assert after != rounded == pytest.approx(after, abs=0.1)


def test_the_loss_of_the_peer_is_the_mean_over_all_targets():
    pytest.importorskip("transformers")
    tokens, vocab_size = encoded(TEXT[:30])
    model = trained(tokens, vocab_size, dataclasses.replace(TINY, max_steps=2), seed=1)
    total = 0.0
    for start in range(0, 29, 8):
        inputs, targets = tokens[start : min(start + 8, 29)], tokens[start + 1 : start + 9]
        logits = model(input_ids=inputs[None]).logits[0].double()
        total -= logits.log_softmax(-1)[torch.arange(len(targets)), targets].sum().item()
    assert validation_loss(model, tokens, 8) == pytest.approx(total / 29, rel=1e-5)


def test_the_recipe_is_a_model_of_its_sizes_with_the_exact_gelu():
    pytest.importorskip("transformers")
    settings = gpt2(Recipe(), 65, 0.0, nanogpt_recipe.ACTIVATION).config
    sizes = settings.n_layer, settings.n_head, settings.n_embd, settings.n_inner
    assert sizes == (4, 4, 128, 512)
    assert (settings.n_positions, settings.activation_function) == (64, "gelu")
    assert gpt2(Recipe(), 65, 0.0).config.activation_function == "gelu_new"


def test_the_program_of_the_recipe_trains_on_nine_tenths_and_ends_with_its_loss(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip("transformers")
    (tmp_path / "text.txt").write_text(TEXT)
    monkeypatch.setattr(nanogpt_recipe, "Recipe", lambda: TINY)
    monkeypatch.setattr(sys, "argv", ["recipe", str(tmp_path / "text.txt"), "--seed=3"])
    nanogpt_recipe.main()
    tokens, vocab_size = encoded(TEXT)
    model = trained(tokens[: len(tokens) * 9 // 10], vocab_size, TINY, seed=3)
    loss = validation_loss(model, tokens[len(tokens) * 9 // 10 :], 8)
    assert loss_in("", capsys.readouterr().out) == pytest.approx(loss, abs=5.1e-5)


def test_the_loss_is_the_last_one_that_was_printed():
    lab = "a\nstep 5  validation loss 2.0 nats per token\nfinal validation loss: 1.8700 nats per "
    assert loss_in("x", lab + "token, 2.6 bits per byte, perplexity 6.4\nrun directory: r") == 1.87
    twice = "final validation loss: 2.1 nats per token\nfinal validation loss: 1.9 nats per token"
    assert loss_in("x", twice) == 1.9
    with pytest.raises(SystemExit, match="x printed no final validation loss"):
        loss_in("x", "step 5  validation loss 2.0 nats per token")


def test_a_row_for_each_seed_and_contestant_says_whether_the_target_is_reached():
    found = rows(TURNS, 1.88)
    assert [(row["trained by"], row["seed"]) for row in found] == [
        (name, seed) for seed in "123" for name in (LAB, PEER)
    ]
    assert [row["at most 1.88"] for row in found] == ["yes", "no", "yes", "no", "no", "no"]
    assert found[4]["loss"] == "1.8801"


def test_the_ratio_is_the_median_of_the_turns_and_losses_above_the_target_are_counted():
    found = facts(TURNS, 1.88)
    assert found["seconds of nanoGPT's recipe for one of lm_core"] == 3.0
    assert found["median seconds of lm_core"] == 10.0
    assert found["losses of lm_core"] == "1 of 3 seeds above 1.88"
    assert found["losses of nanoGPT's recipe"] == "3 of 3 seeds above 1.88"
    assert found["mean loss of lm_core"] == "1.8767 nats per token, standard deviation 0.0058"


def test_one_seed_has_no_standard_deviation_and_a_loss_that_is_no_number_reaches_nothing():
    found = facts({LAB: [Turn(2.0, math.nan)], PEER: [Turn(3.0, 1.5)]}, 1.88)
    assert found["mean loss of nanoGPT's recipe"] == "1.5000 nats per token"
    assert found["losses of lm_core"] == "1 of 1 seed above 1.88"
    assert found["losses of nanoGPT's recipe"] == "0 of 1 seed above 1.88"


def test_a_program_that_fails_is_told_with_the_last_line_of_its_errors():
    with pytest.raises(SystemExit, match=r"^x ended with 1: ValueError: no text$"):
        finished("x", ["-c", "raise ValueError('no text')"])
    with pytest.raises(SystemExit, match=r"^x ended with 2: it said nothing$"):
        finished("x", ["-c", "raise SystemExit(2)"])


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Programs that stand for both contestants; they write down how they were started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "lab.py").write_text(PROGRAM.replace("{loss}", "1.8700"))
    (tmp_path / "peer.py").write_text(PROGRAM.replace("{loss}", "1.9000"))
    monkeypatch.setattr(time_to_loss, "RUN", "lab.py")
    monkeypatch.setattr(time_to_loss, "RECIPE", ["peer.py"])
    monkeypatch.setattr(time_to_loss, "IMPORT", ["-c", ""])
    return tmp_path


def started(monkeypatch, *options):
    """Starts the program that measures."""
    monkeypatch.setattr(sys, "argv", ["time_to_loss", "--corpus=text.txt", *options])
    time_to_loss.main()


def test_both_take_their_turn_with_each_seed_after_one_of_the_lab(programs, monkeypatch, capsys):
    started(monkeypatch, "--seeds=2", "--config=my.yaml", "--peer_bfloat16", "--json")
    lines = (programs / "started").read_text().splitlines()
    assert [line.split()[0] for line in lines] == [
        "--config=my.yaml",
        *["--config=my.yaml", "text.txt"] * 2,
    ]
    assert [line.split("seed=")[1] for line in lines] == [
        "1",
        "1",
        "1 --bfloat16",
        "2",
        "2 --bfloat16",
    ]
    assert len({line.split()[2] for line in lines if "--run_dir" in line}) == 3
    printed = json.loads(capsys.readouterr().out)
    assert [row["loss"] for row in printed["rows"]] == ["1.8700", "1.9000"] * 2
    assert all(row["seconds"] > 0 for row in printed["rows"])
    assert printed["losses of lm_core"] == "0 of 2 seeds above 1.88"


def test_a_target_above_all_losses_is_reached_by_all(programs, monkeypatch, capsys):
    started(monkeypatch, "--seeds=1", "--target=1.95")
    printed = capsys.readouterr().out
    assert "configuration: speedrun.yaml on text.txt" in printed
    assert printed.splitlines()[-3].split("  ")[-1] == "at most 1.95"
    assert [line.split()[-1] for line in printed.splitlines()[-2:]] == ["yes", "yes"]


def test_a_contestant_that_fails_is_no_measurement(programs, monkeypatch):
    (programs / "peer.py").write_text("raise ImportError('no such thing')")
    with pytest.raises(SystemExit, match="with seed 1 ended with 1: ImportError: no such thing"):
        started(monkeypatch, "--seeds=1")


@pytest.mark.parametrize(
    ("option", "message"),
    [("--seeds=0", "at least one is needed"), ("--corpus=none.txt", "there is no such file")],
)
def test_what_cannot_be_measured_is_told_before_anything_runs(
    programs, monkeypatch, capsys, option, message
):
    with pytest.raises(SystemExit, match="2"):
        started(monkeypatch, option)
    assert message in capsys.readouterr().err
    assert not (programs / "started").exists()


def test_what_is_terminated_leaves_no_process_behind(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    parent = subprocess.Popen([sys.executable, "-c", WAITING], cwd=tmp_path, env=environment)
    told = tmp_path / "child"
    while parent.poll() is None and not (told.exists() and told.read_text()):
        time.sleep(0.05)
    parent.terminate()
    assert parent.wait() == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
