"""The lab as a library: what a program imports, and a run in one call."""

import subprocess
import sys
import threading
from signal import SIGINT, raise_signal

import numpy as np
import pytest
import torch

import lm_core
from lm_core import Evaluator, LoadedRun, Sampler, Trainer, Transformer, load_run
from lm_core.data.tokenizer import ByteTokenizer
from lm_core.errors import InputError, LabError, MachineError, StoppedError
from lm_core.training.checkpoint import load_checkpoint
from tests import tiny_run

TOKENIZER = ByteTokenizer()
TOKENS = TOKENIZER.encode("what goes around comes around. " * 60)
SIZES = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 32, "max_seq_len": 16}


@pytest.fixture
def run(tmp_path, monkeypatch):
    table = {"Tokenizer__kind": "byte", "Trainer__checkpoint_cadence": 1, "Trainer__seed": 5}
    tiny_run.train(tmp_path, monkeypatch, **table)
    return tmp_path / "run"


def test_a_run_is_loaded_in_one_call(run):
    loaded = load_run(run)
    assert isinstance(loaded, LoadedRun)
    assert isinstance(loaded.model, Transformer)
    assert not loaded.model.training
    assert loaded.tokenizer == TOKENIZER
    assert (loaded.step, loaded.path) == (3, run)
    assert (loaded.config.d_model, loaded.config.seed) == (16, 5)
    assert loaded.sources["d_model"] == "--gin_bindings"
    assert loaded.manifest["outcome"] == "completed"
    assert repr(loaded) == f"<run {run}: step 3, 6,608 parameters, tokenizer byte>"
    stored = load_checkpoint(run / "checkpoints" / "step-00000003").model
    assert all(torch.equal(stored[name], p) for name, p in loaded.model.state_dict().items())


def test_any_checkpoint_may_be_asked_for_by_words_and_by_numbers(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    assert load_run("run", checkpoint=2).step == 2
    assert load_run("run", checkpoint=np.int64(2)).step == 2
    assert load_run("run", "newest").step == 3
    assert load_run("run", "best").step == 3


@pytest.mark.parametrize(
    ("path", "checkpoint", "message"),
    [
        ("nowhere", None, "nowhere is no run directory"),
        ("run", 7, "there is no such checkpoint"),
        ("run", "first", "there is no such checkpoint"),
        ("run", 7, "^checkpoint=7: "),
        ("run", True, "checkpoint: true is none of 'newest', 'best' or the number of a step"),
        ("run", 2.0, "checkpoint: 2.0 is none of"),
        ("run", np.True_, "checkpoint: .* is none of"),
    ],
)
def test_what_is_not_there_is_told_in_a_sentence(run, path, checkpoint, message):
    with pytest.raises(InputError, match=message):
        load_run(run.parent / path, checkpoint)


@pytest.mark.parametrize("path", [5, None, "", b"run"])
def test_what_is_no_path_is_told_in_a_sentence(path):
    with pytest.raises(InputError, match=r"path: .* is no run directory; name one"):
        load_run(path)


def test_a_damaged_checkpoint_is_a_failure_of_the_machine(run):
    file = run / "checkpoints" / "step-00000003" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(MachineError, match="SHA-256"):
        load_run(run, 3)


def test_what_is_told_of_a_run_without_a_sound_checkpoint_names_no_flag(run):
    for file in (run / "checkpoints").glob("*/model.safetensors"):
        file.write_bytes(b"")
    with pytest.raises(MachineError, match="begin anew in another run directory") as told:
        load_run(run)
    assert "--" not in told.value.message


def test_constructors_need_no_gin_and_no_run_directory(run):
    loaded = load_run(run)
    before = Evaluator(loaded.model, TOKENS, loaded.tokenizer)().loss
    trainer = Trainer(loaded.model, TOKENS, max_steps=20, batch_size=4, learning_rate=3e-3)
    result = trainer.train()
    assert (result.step, result.evaluation) == (20, None)
    assert Evaluator(loaded.model, TOKENS, loaded.tokenizer)().loss < before - 0.1
    (text,) = Sampler(loaded.model, loaded.tokenizer, prompt="go", max_length=5)()
    assert text.startswith("go")


def model(vocab_size=256):
    return Transformer(vocab_size, **SIZES)


SHORT = {"max_steps": 2, "batch_size": 4}
WIDE = TOKENS.astype(np.int64)
# One window, after which a token follows that the model does not know.
ONLY_A_TARGET = np.append(WIDE[:16], 300)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Transformer(256, d_model=17), "Transformer.d_model: 17 is not divisible by"),
        (lambda: Transformer("256"), "vocab_size: '256' is no integer"),
        (lambda: Trainer(Transformer(256, **SIZES), TOKENS, max_steps=0), "Trainer.max_steps: 0"),
        (lambda: Trainer(Transformer(256, **SIZES), TOKENS[:5]), "training"),
        (
            lambda: Sampler(Transformer(256, **SIZES), TOKENIZER, temperature=-1.0),
            "Sampler.temperature: -1.0",
        ),
        (lambda: Trainer(model(), TOKENS.tolist()), "NumPy array of one dimension of integers"),
        (lambda: Trainer(model(), torch.from_numpy(TOKENS.copy())), "these are of Tensor"),
        (lambda: Trainer(model(), TOKENS.astype(float)), "1 dimensions of float64"),
        (lambda: Trainer(model(), TOKENS.reshape(2, -1)), "2 dimensions of uint8"),
        (lambda: Evaluator(model(), TOKENS.tolist(), TOKENIZER), "NumPy array of one dimension"),
        (lambda: Evaluator(model(128), TOKENS, TOKENIZER), "has 256 tokens, and the model 128"),
        (lambda: Sampler(model(300), TOKENIZER), "has 256 tokens, and the model 300: take the"),
        (lambda: Trainer(model(100), TOKENS, **SHORT).train(), "where the model knows 0 to 99"),
        (lambda: Trainer(model(), ONLY_A_TARGET, **SHORT).train(), "there is a token 300, where"),
        (lambda: Trainer(model(), WIDE - 300, **SHORT).train(), "there is a token -"),
        (lambda: Evaluator(model(), WIDE + 300, TOKENIZER)(), "there is a token 4"),
        (lambda: Evaluator(model(), ONLY_A_TARGET, TOKENIZER)(), "there is a token 300, where"),
    ],
)
def test_wrong_arguments_are_told_by_their_names(call, message):
    with pytest.raises(InputError) as told:
        call()
    assert message in told.value.message
    assert isinstance(told.value, ValueError)


def test_training_shows_how_it_goes_where_it_is_asked_to(capsys):
    model = Transformer(256, **SIZES)
    Trainer(model, TOKENS, max_steps=3, batch_size=2, seed=1).train()
    assert capsys.readouterr().out == ""
    Trainer(model, TOKENS, max_steps=3, batch_size=2, seed=1).train(progress=True)
    assert capsys.readouterr().out.splitlines()[-1].startswith("step 3/3  loss ")


def test_an_interrupt_ends_the_call_between_two_steps_and_another_call_goes_on():
    model = Transformer(256, **SIZES)
    trainer = Trainer(model, TOKENS, max_steps=40, batch_size=2, seed=1)
    twin = Trainer(Transformer(256, **SIZES), TOKENS, max_steps=40, batch_size=2, seed=1)
    step = trainer.train_step
    trainer.train_step = lambda: (step(), trainer.step == 7 and raise_signal(SIGINT))
    with pytest.raises(StoppedError, match="stopped after step 7"):
        trainer.train()
    assert trainer.step == 7
    trainer.train()
    twin.train()
    assert trainer.step == 40
    pairs = zip(model.parameters(), twin.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_outside_of_the_main_thread_it_trains_as_well():
    results = []
    trainer = Trainer(Transformer(256, **SIZES), TOKENS, max_steps=3, batch_size=2)
    thread = threading.Thread(target=lambda: results.append(trainer.train()))
    thread.start()
    thread.join()
    assert results[0].step == 3


def test_all_names_are_there_and_no_others():
    for name in lm_core.__all__:
        assert getattr(lm_core, name).__name__ == name
        assert name in dir(lm_core)
    assert set(lm_core._MODULES) == set(lm_core.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trainer_'"):
        _ = lm_core.trainer_
    with pytest.raises(ImportError):
        from lm_core import nothing_of_the_kind  # noqa: F401


def test_importing_the_lab_alone_imports_nothing():
    code = "import sys, lm_core; dir(lm_core); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_error_for_a_person_can_be_caught_as_one():
    assert issubclass(InputError, LabError)
    assert issubclass(MachineError, LabError)
