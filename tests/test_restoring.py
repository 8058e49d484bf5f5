import pytest
import torch

from lm_core.errors import InputError, MachineError
from lm_core.model.transformer import Transformer
from lm_core.training.checkpoint import Checkpoint, load_checkpoint
from lm_core.training.restoring import restored_model
from tests.tiny_trainer import HOOKS, SIZES, TOKENIZER, build, new_run


@pytest.fixture
def checkpoint(tmp_path):
    run = new_run(tmp_path / "run")
    build(max_steps=3, hooks=HOOKS).train(run)
    return load_checkpoint(run.checkpoints / "step-00000003")


def test_a_model_and_its_tokenizer_come_from_the_checkpoint_alone(checkpoint):
    model, tokenizer = restored_model(checkpoint)
    assert model.arguments == {"vocab_size": 256, **SIZES, "dropout": 0.1}
    assert tokenizer.to_dict() == TOKENIZER.to_dict()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, checkpoint.model[name])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_layers", 2_000_000_000),
        ("d_model", 2_000_000_000),
        ("d_ff", 33),
        ("max_seq_len", 2**31 - 1),
        ("vocab_size", 2**40),
        ("vocab_size", "256"),
        ("n_heads", 3),
        ("n_heads", 0),
        ("dropout", "x"),
        ("unknown", 3),
        ("seed", 3),
    ],
)
def test_a_model_that_its_weights_do_not_make_is_not_built(checkpoint, monkeypatch, name, value):
    checkpoint.state["model"][name] = value
    built = []
    monkeypatch.setattr(Transformer, "_initialise", lambda self, seed: built.append(seed))
    with pytest.raises(MachineError, match=r"step 3: no checkpoint of this lab"):
        restored_model(checkpoint)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "'model'"),
        ({"model": None}, "NoneType"),
        ({"model": []}, "vocab_size"),
        ({"tokenizer": None}, ""),
        ({"tokenizer": {"kind": "ascii"}}, "its ascii tokenizer does not fit its model"),
        ({"tokenizer": {"kind": "char", "characters": ["x"] * 256}}, ""),
        ({"tokenizer": {"kind": "pickle"}}, ""),
    ],
)
def test_a_state_that_is_none_is_told(checkpoint, state, words):
    full = checkpoint.state | state if state else {}
    stored = Checkpoint(3, checkpoint.model, checkpoint.optimizer, {}, full)
    with pytest.raises(MachineError, match=f"step 3: no checkpoint of this lab: .*{words}"):
        restored_model(stored)


def test_all_that_differs_from_the_checkpoint_is_listed(checkpoint):
    trainer = build(dropout=0.2, seed=5, hooks=HOOKS)
    checkpoint.state["tokenizer"] = {"kind": "ascii"}
    with pytest.raises(InputError) as error:
        trainer.restore(checkpoint)
    first, *lines = error.value.message.splitlines()
    assert first == "the checkpoint of step 3 is of another experiment:"
    assert [line.split(":")[0].strip() for line in lines] == ["seed", "tokenizer", "model"]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("model", lambda tensor: tensor.double(), "torch.float64 instead of"),
        ("model", lambda tensor: tensor[:1], "instead of"),
        ("model", None, "is missing"),
        ("optimizer", lambda tensor: tensor.double(), "fits no parameter"),
        ("optimizer", lambda tensor: torch.tensor(1.0), "fits no parameter"),
        ("optimizer", None, "is not whole"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(checkpoint, name, change, words):
    group = getattr(checkpoint, name)
    key = next(key for key in group if "final_norm.weight" in key and "step" not in key)
    tensor = group.pop(key)
    if change is not None:
        group[key] = change(tensor)
    with pytest.raises(MachineError, match=rf"final_norm\.weight.* {words}"):
        build(hooks=HOOKS).restore(checkpoint)


def test_a_weight_that_the_model_lacks_is_refused(checkpoint):
    checkpoint.model["extra"] = torch.zeros(1)
    with pytest.raises(MachineError, match="extra does not belong there"):
        build(hooks=HOOKS).restore(checkpoint)
