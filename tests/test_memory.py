import pytest
import torch

from lm_core import machine
from lm_core.config.training_config import TrainingConfig
from lm_core.errors import InputError, MachineError
from lm_core.memory import (
    least_training_bytes,
    memory_explained,
    require_memory,
)
from lm_core.model.transformer import Transformer
from lm_core.parallel.world import World

SIZES = {"n_layers": 2, "d_model": 8, "n_heads": 2, "d_ff": 16, "max_seq_len": 4}
SMALL = TrainingConfig(**SIZES, batch_size=3)


def test_the_least_is_parameters_four_times_and_logits_and_residual_stream_of_a_batch():
    n_parameters = Transformer(7, **SIZES).n_parameters
    expected = 4 * 4 * n_parameters + 3 * 4 * 4 * (2 * 7 + 2 * 8)
    assert least_training_bytes(SMALL, vocab_size=7) == expected


def test_a_batch_in_parts_needs_the_memory_of_one_part_and_muon_keeps_one_mean():
    parts = TrainingConfig(**SIZES, batch_size=6, accumulation_steps=2)
    assert least_training_bytes(parts, 7) == least_training_bytes(SMALL, 7)
    muon = TrainingConfig(**SIZES, batch_size=3, optimizer="muon")
    n_hidden = sum(p.numel() for p in Transformer(7, **SIZES).blocks.parameters() if p.dim() == 2)
    assert least_training_bytes(SMALL, 7) - least_training_bytes(muon, 7) == 4 * n_hidden


def test_processes_of_one_machine_need_their_memory_together():
    config = TrainingConfig(**SIZES, batch_size=6)
    alone, two = least_training_bytes(config, 7), World(0, 2, 0, 2)
    n_parameters = Transformer(7, **SIZES).n_parameters
    # The model twice, and the activations of a batch, of which each computes a half.
    assert least_training_bytes(config, 7, two) == alone + 4 * 4 * n_parameters
    # On two machines each has the model, and half of the batch.
    apart = least_training_bytes(config, 7, World(0, 2, 0, 1))
    assert 2 * apart == least_training_bytes(config, 7, two)
    sharded = TrainingConfig(**SIZES, batch_size=6, parallelism="fsdp")
    assert least_training_bytes(sharded, 7, two) - alone <= 2 * 4
    with pytest.raises(MachineError, match="too small"):
        require_memory(config, 7, alone, two)


def test_the_pieces_of_an_exact_sum_need_the_memory_of_one_of_them():
    exact = TrainingConfig(**SIZES, batch_size=24, exact_reduction=True)
    assert least_training_bytes(exact, 7) == least_training_bytes(SMALL, 7)


def test_what_cannot_fit_is_refused_and_what_may_fit_is_not():
    least = least_training_bytes(SMALL, 7)
    require_memory(SMALL, 7, available=least)
    require_memory(SMALL, 7)
    with pytest.raises(
        MachineError, match=r"batch_size need less \(it needs more than .* of 0.0\)"
    ):
        require_memory(SMALL, 7, available=least - 1)


@pytest.mark.parametrize("name", ["n_layers", "d_model", "d_ff", "max_seq_len", "batch_size"])
def test_what_no_machine_can_hold_is_refused_at_once(name):
    with pytest.raises(MachineError, match="too small"):
        require_memory(TrainingConfig(**{name: 2**31 - 4}), 128)


def test_a_limit_below_the_machines_memory_is_the_one_that_counts(monkeypatch):
    monkeypatch.setattr(machine, "control_group_limits", lambda: [2**63, 10**6])
    with pytest.raises(MachineError, match=r"of 0\.0"):
        require_memory(TrainingConfig(), 128)


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(10**15),
        lambda: torch.empty(2**40, 2**40),
        lambda: torch.empty(10**15).numpy(),
        lambda: bytearray(2**62),
    ],
)
def test_a_failed_allocation_says_what_needs_less(allocate):
    with pytest.raises(MachineError, match="batch_size need less"), memory_explained():
        allocate()


@pytest.mark.parametrize(
    "error",
    [
        InputError("out of memory"),
        MachineError("DefaultCPUAllocator/metrics.jsonl: No space left on device"),
        RuntimeError("integer overflow in my hook"),
        RuntimeError("my allocation plan is wrong"),
        ValueError("out of memory"),
    ],
)
def test_everything_else_passes_as_it_is(error):
    with pytest.raises(type(error)) as passed, memory_explained():
        raise error
    assert passed.value is error
