"""Training in several real processes, against training in one."""

import hashlib
import os
import signal

import pytest
import torch

from lm_core.errors import DivergenceError, StoppedError
from lm_core.hooks import ForwardHook, forward_hook
from lm_core.parallel.group import Group
from lm_core.training.checkpoint import load_checkpoint
from lm_core.training.shared_checkpoint import shared_checkpoint
from tests.processes import together
from tests.tiny_trainer import HOOKS, MODERN, build, new_run, poisoned, rows, saved_steps

# Matrix products in float32, so that what differs is the order of sums alone.
PLAIN = {"precision": "float32", "batch_size": 7, "max_steps": 8, "eval_cadence": 4}


@forward_hook("test_cuts_off")
class CutsOff(ForwardHook):
    """Lets nothing through of some sequences, and so gives what is before it no gradient."""

    def on_activations(self, site, activations, context):
        first = context.key.first_sequence
        is_cut = (torch.arange(first, first + len(activations)) >= 4)[:, None, None]
        if context.key.step % 2 or not is_cut.any():
            return None
        zeros = torch.zeros_like(activations)
        return zeros if is_cut.all() else torch.where(is_cut, zeros, activations)


# Without the one that counts what its own process looks at.
TOGETHER = {
    "forward": [hook for hook in HOOKS["forward"] if hook["name"] != "faults_counts_looks"],
    "update": HOOKS["update"],
}
SETTINGS = {
    "plain": PLAIN,
    "modern": {**PLAIN, **MODERN, "batch_size": 8, "sampling_cadence": 4},
    "cut off": {
        **PLAIN,
        "hooks": {"forward": [{"name": "test_cuts_off", "sites": "blocks.0"}]},
        "batch_size": 8,
        "tie_embeddings": False,
    },
    "hooks": {**PLAIN, "hooks": TOGETHER, "max_grad_norm": 0.5, "ema_decay": 0.8},
}
# Adam divides by the size of gradients: where that is nearly nothing, rounding shows.
NEAR = {"rtol": 1e-3, "atol": 2e-5}


def digest(tensors):
    both = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        both.update(name.encode() + tensor.numpy().tobytes())
    return both.hexdigest()


def told(group, name, folder, more=None):
    """Trains, and tells all that came of it."""
    trainer = build(group=group, **{**SETTINGS[name], **(more or {})})
    run = new_run(folder / f"{name}-{group.n_processes}") if group.is_first else None
    result = trainer.train(run)
    tensors = trainer._trained.tensors()
    if not group.is_first:
        return {"loss": result.evaluation.loss, "samples": result.samples}
    return {
        "loss": result.evaluation.loss,
        "samples": result.samples,
        "rows": rows(run.metrics),
        "weights": tensors["model"],
        "digest": digest(tensors["model"]) + digest(tensors["optimizer"]),
        "state": sorted(tensors["optimizer"]),
        "saved": saved_steps(run),
        "file": (run.checkpoints / "step-00000008" / "model.safetensors").read_bytes(),
    }


@pytest.mark.parametrize("parallelism", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("n_processes", [2, pytest.param(3, marks=pytest.mark.exhaustive)])
def test_several_processes_learn_what_one_learns(tmp_path, name, parallelism, n_processes):
    alone = told(Group(), name, tmp_path)
    found = together(n_processes, told, name, tmp_path, {"parallelism": parallelism})
    first = found[0]
    assert len({each["loss"] for each in found}) == 1
    assert first["loss"] == pytest.approx(alone["loss"], rel=1e-4)
    assert all(each["samples"] == alone["samples"] for each in found)
    assert first["saved"] == alone["saved"]
    assert first["state"] == alone["state"]
    for theirs, ours in zip(first["rows"], alone["rows"], strict=True):
        assert theirs.keys() == ours.keys()
        assert theirs["train_loss"] == pytest.approx(ours["train_loss"], rel=1e-4)
        assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-3)
    for parameter, weight in alone["weights"].items():
        torch.testing.assert_close(first["weights"][parameter], weight, **NEAR)


EXACT = {"exact_reduction": True, "precision": "bfloat16"}


@pytest.mark.parametrize(
    "name",
    [
        *("hooks", "cut off"),
        *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("plain", "modern")),
    ],
)
def test_exact_sums_leave_the_same_bits_for_1_2_and_4_processes(tmp_path, name):
    (alone,) = together(1, told, name, tmp_path, EXACT)
    for n_processes in (2, 4):
        first = together(n_processes, told, name, tmp_path, EXACT)[0]
        assert first["digest"] == alone["digest"]
        assert first["file"] == alone["file"]
        assert first["loss"] == alone["loss"]
        assert [_summed(row) for row in first["rows"]] == [_summed(row) for row in alone["rows"]]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("batch_size", [8, 13, 16])
def test_exact_sums_leave_the_same_bits_for_8_processes_too(tmp_path, name, batch_size):
    more = {**EXACT, "batch_size": batch_size}
    if SETTINGS[name].get("accumulation_steps"):
        more["accumulation_steps"] = 1
    (alone,) = together(1, told, name, tmp_path, more)
    assert together(8, told, name, tmp_path, more)[0]["digest"] == alone["digest"]


def _summed(row):
    """What all processes know of a step, and no hook of one of them has reported."""
    names = ("step", "train_loss", "learning_rate", "grad_norm", "val_loss", "bits_per_byte")
    return {name: row[name] for name in names if name in row}


def diverges(group, max_skipped_batches):
    trainer = build(group=group, **PLAIN, max_skipped_batches=max_skipped_batches)
    if group.rank == group.n_processes - 1:
        # The loss of one process alone is not finite.
        poisoned(trainer, 3, 5)
    try:
        trainer.train()
    except DivergenceError as error:
        return trainer.step, error.message
    return trainer.step, trainer._state.skipped_batches


def test_a_loss_that_is_not_finite_in_one_process_ends_all(tmp_path):
    steps, messages = zip(*together(2, diverges, 0), strict=True)
    assert steps == (2, 2)
    assert len(set(messages)) == 1
    assert "training diverged at step 3, with train_loss nan" in messages[0]


def test_or_is_left_out_in_all():
    assert together(2, diverges, 2) == [(8, 2), (8, 2)]


def stops(group, folder, number):
    """One process alone gets a signal, after its third step."""
    trainer = build(group=group, **{**PLAIN, "max_steps": 1000, "eval_cadence": None})
    run = new_run(folder) if group.is_first else None
    step = trainer.train_step

    def step_and_signal():
        step()
        if trainer.step == 3 and group.rank == 1:
            os.kill(os.getpid(), number)

    trainer.train_step = step_and_signal
    try:
        trainer.train(run)
    except StoppedError as error:
        return trainer.step, trainer.saved_step, error.signal_number
    return None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path, number):
    assert together(2, stops, tmp_path / "run", number) == [(3, 3, number)] * 2


def stops_in_a_look(group, folder):
    """One process gets a signal in the middle of an evaluation."""
    trainer = build(group=group, **PLAIN)
    evaluate = trainer._looks.evaluate

    def evaluate_and_signal(check_stop):
        if group.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(check_stop)

    trainer._looks.evaluate = evaluate_and_signal
    run = new_run(folder) if group.is_first else None
    try:
        trainer.train(run)
    except StoppedError as error:
        return trainer.step, trainer.saved_step, error.signal_number, trainer._state.evaluated
    return None


def test_a_signal_in_an_evaluation_gives_it_up_in_all(tmp_path):
    found = together(2, stops_in_a_look, tmp_path / "run")
    assert found == [(4, 4, signal.SIGTERM, False)] * 2


def goes_on(group, folder, name, parallelism):
    """Takes up what other processes have left."""
    path = folder / f"{name}-1" / "checkpoints" / "step-00000004"
    checkpoint = shared_checkpoint(group, load_checkpoint(path) if group.is_first else None)
    trainer = build(group=group, **{**SETTINGS[name], "parallelism": parallelism})
    trainer.restore(checkpoint)
    trainer.train()
    tensors = trainer._trained.tensors()
    return tensors["model"]


@pytest.mark.parametrize("parallelism", ["fsdp", pytest.param("ddp", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("name", SETTINGS)
def test_what_one_process_saved_goes_on_in_several(tmp_path, name, parallelism):
    alone = told(Group(), name, tmp_path, {"checkpoint_cadence": 4})
    first = together(2, goes_on, tmp_path, name, parallelism)[0]
    for parameter, weight in alone["weights"].items():
        torch.testing.assert_close(first[parameter], weight, **NEAR)


def saved_by(group, folder, parallelism):
    """The tensors of a checkpoint of several processes, and those that they have now."""
    trainer = build(group=group, **{**SETTINGS["modern"], "parallelism": parallelism})
    run = new_run(folder) if group.is_first else None
    trainer.train(run)
    tensors = trainer._trained.tensors()
    if not group.is_first:
        return tensors
    saved = load_checkpoint(run.checkpoints / "step-00000008")
    fields = {"model": saved.model, "optimizer": saved.optimizer}
    return {
        name: sorted(fields[name]) == sorted(tensors[name])
        and all(torch.equal(fields[name][key], tensors[name][key]) for key in fields[name])
        for name in fields
    }


def test_shares_are_saved_whole_and_by_the_first_process_alone(tmp_path):
    found = together(2, saved_by, tmp_path / "run", "fsdp")
    assert found == [{"model": True, "optimizer": True}, {"model": {}, "optimizer": {}}]


def nothing_shared(group):
    return shared_checkpoint(group, None)


def test_where_there_is_no_checkpoint_there_is_none_for_anybody():
    assert together(2, nothing_shared) == [None, None]
