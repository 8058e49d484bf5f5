import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from lm_core.errors import InputError
from lm_core.training.tensor_files import _DTYPES, write_tensors

tensors = st.builds(
    lambda shape, dtype: (torch.rand(shape) * 100).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(list(_DTYPES)),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tensors")


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=9), tensors, max_size=4))
def test_the_library_reads_what_was_written_bit_for_bit(folder, group):
    size, digest = write_tensors(folder / "file", group)
    data = (folder / "file").read_bytes()
    assert (size, digest) == (len(data), hashlib.sha256(data).hexdigest())
    found = load(data)
    assert set(found) == set(group)
    for name, tensor in group.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_tensors_out_of_order_in_memory_are_written_in_order(folder):
    tensor = torch.arange(6.0).view(2, 3).T
    write_tensors(folder / "file", {"a": tensor, "b": tensor[1]})
    found = load((folder / "file").read_bytes())
    assert torch.equal(found["a"], tensor)
    assert torch.equal(found["b"], tensor[1])


def test_the_file_is_the_same_in_whatever_order_the_tensors_come(folder):
    group = {"b": torch.ones(3), "a": torch.zeros(2), "c": torch.ones(1, dtype=torch.int64)}
    write_tensors(folder / "file", group)
    write_tensors(folder / "other", dict(reversed(group.items())))
    data = (folder / "file").read_bytes()
    assert data == (folder / "other").read_bytes()
    assert data.index(b'"c"') < data.index(b'"a"') < data.index(b'"b"')


def test_a_type_that_the_format_lacks_is_told(folder):
    with pytest.raises(InputError, match=r"^x is of torch.complex64, which cannot be saved"):
        write_tensors(folder / "file", {"x": torch.zeros(2, dtype=torch.complex64)})


def test_a_name_that_is_no_text_is_told(folder):
    with pytest.raises(InputError, match=r"'.udc80' is no name of a tensor"):
        write_tensors(folder / "file", {"\udc80": torch.zeros(1)})


def test_a_full_disk_is_an_error_of_the_system():
    with pytest.raises(OSError, match="No space left"):
        write_tensors(Path("/dev/full"), {"x": torch.zeros(10**6)})
