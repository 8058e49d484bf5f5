import numba
import pytest
import torch

from lm_core import compute
from lm_core.compute import chosen_device, chosen_precision, threads_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def machine(monkeypatch):
    """A machine that has what a test says."""

    def has(cuda=False, mps=False, features=(), gpu_bfloat16=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation: gpu_bfloat16
        )
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(features, True))

    return has


def test_auto_takes_a_gpu_where_there_is_one(machine):
    for cuda, mps, expected in (
        (False, False, "cpu"),
        (False, True, "mps"),
        (True, False, "cuda"),
        (True, True, "cuda"),
    ):
        machine(cuda=cuda, mps=mps)
        assert chosen_device("auto").type == expected
        assert chosen_device("cpu") == CPU


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(machine, device):
    machine()
    with pytest.raises(ValueError, match=rf"device: PyTorch finds no {device} .*\(there is: cpu\)"):
        chosen_device(device)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ([], "float32"),
        (["avx2", "avx512_f", "avx512_vnni"], "float32"),
        (["avx512_f", "avx512_bf16"], "bfloat16"),
        (["amx_tile", "amx_bf16"], "bfloat16"),
    ],
)
def test_auto_takes_bfloat16_where_the_processor_multiplies_it_fast(machine, features, expected):
    machine(features=features)
    assert chosen_precision("auto", CPU) == expected


def test_auto_takes_bfloat16_on_a_gpu_that_has_it(machine):
    machine(cuda=True)
    assert chosen_precision("auto", CUDA) == "bfloat16"
    machine(cuda=True, gpu_bfloat16=False)
    assert chosen_precision("auto", CUDA) == "float32"
    assert chosen_precision("auto", torch.device("mps")) == "float32"


def test_what_is_said_is_done(machine):
    machine(features=["amx_bf16"])
    assert chosen_precision("float32", CPU) == "float32"
    machine()
    assert chosen_precision("bfloat16", CPU) == "bfloat16"


def test_this_machine_answers():
    assert chosen_precision("auto", chosen_device("auto")) in compute.DTYPES


def test_exact_sums_have_one_thread_and_others_what_there_are():
    before = torch.get_num_threads(), numba.get_num_threads()
    with threads_of(True):
        assert (torch.get_num_threads(), numba.get_num_threads()) == (1, 1)
    assert (torch.get_num_threads(), numba.get_num_threads()) == before
    with threads_of(False):
        assert (torch.get_num_threads(), numba.get_num_threads()) == before
