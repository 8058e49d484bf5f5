import pytest
import torch

from lm_core.config.training_config import TrainingConfig
from lm_core.costs import count_parameters, model_arguments
from lm_core.errors import InputError, MachineError
from lm_core.model.transformer import Block
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
    given = {"vocab_size": 256, **SIZES, "dropout": 0.1}
    assert model.arguments == {**model_arguments(TrainingConfig()), **given}
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
    built = blocks_built(monkeypatch)
    with pytest.raises(MachineError, match=r"step-00000003 is no checkpoint of this lab"):
        restored_model(checkpoint)
    assert built == []


def blocks_built(monkeypatch):
    """The numbers of the blocks that are built from now on."""
    built, initialise = [], Block.__init__

    def noted(self, layer, *arguments):
        built.append(layer)
        initialise(self, layer, *arguments)

    monkeypatch.setattr(Block, "__init__", noted)
    return built


def test_numbers_of_small_elements_do_not_make_a_large_model(checkpoint, monkeypatch):
    sizes = {**checkpoint.state["model"], "n_layers": 1000}
    vocab_size = sizes.pop("vocab_size")
    stored = sum(tensor.numel() for tensor in checkpoint.model.values())
    n_more = count_parameters(TrainingConfig(**sizes), vocab_size) - stored
    checkpoint.model["more"] = torch.zeros(n_more, dtype=torch.uint8)
    checkpoint.state["model"]["n_layers"] = 1000
    built = blocks_built(monkeypatch)
    with pytest.raises(MachineError, match=r"29 tensors of weights for a model of 12,004"):
        restored_model(checkpoint)
    assert built == [0]


@pytest.mark.parametrize("change", [lambda t: t.double(), lambda t: t.reshape(-1), None])
def test_a_weight_that_is_not_the_models_is_refused_before_it_is_built(
    checkpoint, monkeypatch, change
):
    name = "blocks.1.attention.projection.weight"
    tensor = checkpoint.model.pop(name)
    checkpoint.model["extra" if change is None else name] = (change or torch.clone)(tensor)
    built = blocks_built(monkeypatch)
    with pytest.raises(MachineError, match=f"{name} is not what the model has under that name"):
        restored_model(checkpoint)
    assert built == [0]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "it lacks 'model'"),
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
    with pytest.raises(MachineError, match=f"step 3 is no checkpoint of this lab: .*{words}"):
        restored_model(stored)


def test_all_that_differs_from_the_checkpoint_is_listed(checkpoint):
    trainer = build(dropout=0.2, seed=5, hooks=HOOKS)
    checkpoint.state["tokenizer"] = {"kind": "ascii"}
    with pytest.raises(InputError) as error:
        trainer.restore(checkpoint)
    first, *lines = error.value.message.splitlines()
    assert first == f"{checkpoint.path} is of another experiment:"
    assert lines == [
        "  seed: 4 in the checkpoint, 5 now",
        "  tokenizer.kind: 'ascii' in the checkpoint, 'byte' now",
        "  model.dropout: 0.1 in the checkpoint, 0.2 now",
    ]


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
    with pytest.raises(MachineError, match=rf"step-0+3: .*final_norm\.weight.* {words}.*; move it"):
        build(hooks=HOOKS).restore(checkpoint)


def test_a_weight_that_the_model_lacks_is_refused(checkpoint):
    checkpoint.model["extra"] = torch.zeros(1)
    with pytest.raises(MachineError, match="extra does not belong there"):
        build(hooks=HOOKS).restore(checkpoint)


def test_a_checkpoint_from_before_there_were_choices_is_one_of_the_defaults(checkpoint):
    stored = checkpoint.state["model"]
    for name in [name for name in stored if name not in ("vocab_size", "dropout", *SIZES)]:
        del stored[name]
    model, _ = restored_model(checkpoint)
    assert model.arguments["norm"] == "layernorm"
    trainer = build(max_steps=6, hooks=HOOKS)
    trainer.restore(checkpoint)
    assert trainer.step == 3


@pytest.mark.parametrize("choice", [{"norm": "rmsnorm"}, {"tie_embeddings": False}])
def test_a_model_of_other_choices_is_restored_as_what_it_is(tmp_path, choice):
    run = new_run(tmp_path / "run")
    build(max_steps=3, **choice).train(run)
    checkpoint = load_checkpoint(run.checkpoints / "step-00000003")
    model, _ = restored_model(checkpoint)
    assert model.arguments | choice == model.arguments
    (name,) = choice
    with pytest.raises(InputError, match=rf"of another experiment:\n +model.{name}: "):
        build(max_steps=6).restore(checkpoint)
