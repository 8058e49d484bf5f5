import pytest
import torch

from lm_core.errors import InputError, MachineError
from lm_core.memory import least_training_bytes, memory_explained, require_memory
from lm_core.model.transformer import Transformer


def build():
    return Transformer(7, n_layers=2, d_model=8, n_heads=2, d_ff=16, max_seq_len=4)


def test_the_least_is_parameters_four_times_and_logits_and_residual_stream_of_a_batch():
    model = build()
    expected = 4 * 4 * model.n_parameters + 3 * 4 * 4 * (2 * 7 + 2 * 8)
    assert least_training_bytes(model, batch_size=3) == expected


def test_what_cannot_fit_is_refused_and_what_may_fit_is_not():
    model = build()
    least = least_training_bytes(model, 3)
    require_memory(model, 3, available=least)
    require_memory(model, 3)
    with pytest.raises(
        MachineError, match=r"batch_size need less \(it needs more than .* of 0.0\)"
    ):
        require_memory(model, 3, available=least - 1)
    with pytest.raises(MachineError, match="too small"):
        require_memory(model, 10**15)


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
