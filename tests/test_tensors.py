"""What kernels see of tensors."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lm_core.kernels.tensors import computed_in, has_content, number_for, numbers_of, type_of


def test_a_tensor_with_shapes_alone_has_no_content():
    assert has_content(torch.nn.Parameter(torch.zeros(2)))
    with FakeTensorMode():
        assert not has_content(torch.zeros(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16])
def test_numbers_are_the_memory_of_the_tensor_in_any_shape(dtype):
    x = torch.arange(6).to(dtype)
    seen = numbers_of(x, 2, -1)
    assert seen.shape == (2, 3)
    seen[1, 0] = 30
    assert x.tolist() == [0, 1, 2, 30, 4, 5]
    assert numbers_of(torch.nn.Parameter(torch.zeros(3, 2))).shape == (3, 2)


def test_numbers_of_bfloat16_are_their_bits():
    x = torch.tensor([1.0, -2.0]).bfloat16()
    seen = numbers_of(x)
    assert seen.dtype == np.uint16
    assert seen.tolist() == [0x3F80, 0xC000]
    seen[0] = 0x4040
    assert x.tolist() == [3, -2]


@pytest.mark.parametrize(
    ("dtype", "computed"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_of_the_bits_are_computed_with_in_float32(dtype, computed):
    assert computed_in(dtype) == computed
    assert number_for(dtype, 0.1).dtype == torch.zeros(1, dtype=computed).numpy().dtype
    assert type_of(dtype) == str(dtype).split(".")[1]
