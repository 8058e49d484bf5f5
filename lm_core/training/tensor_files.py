"""Writing tensors in the safetensors format, piece by piece.

The format is that of https://huggingface.co/docs/safetensors/index#format: the length of a header
as 8 bytes, the header as JSON, the data. The library writes it too, but makes a copy of everything
in memory first, or renames a file of its own into place; reading is the library's work.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lm_core.errors import InputError

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
# The length of the header is a number of this many bytes, and the data starts at a multiple of it.
_WORD_BYTES = 8


def require_storable(tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuses tensors that cannot be written.

    Args:
        tensors: Tensors by name.

    Raises:
        InputError: One has a type or a name that the format lacks, or is sparse.
    """
    for name, tensor in tensors.items():
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{name!a} is no name of a tensor: it is no Unicode text") from error
        if tensor.dtype not in _DTYPES:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
            message = f"{name} is of {tensor.dtype}, which cannot be saved"
            raise InputError(f"{message} (what can: {known})")
        if tensor.layout != torch.strided:
            raise InputError(f"{name} is of layout {tensor.layout}; what can be saved is dense")


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Writes tensors to a new file and waits until the disk has it.

    Args:
        path: The file.
        tensors: Tensors by name, on any device.
        metadata: What the header says beside; None: nothing.

    Returns:
        The size of the file in bytes, and its SHA-256.

    Raises:
        InputError: A tensor cannot be written, as ``require_storable`` has it.
        OSError: It cannot be written.
    """
    # As the library has it: the widest elements first, so that each stands at a multiple of its
    # width, and then by name, so that equal tensors give equal files.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    tensors = {name: tensors[name] for name in names}
    require_storable(tensors)
    header = _header(tensors, metadata)
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as stream:
        for piece in _pieces(header, tensors):
            stream.write(piece)
            digest.update(piece)
            size += len(piece)
        stream.flush()
        os.fsync(stream.fileno())
    return size, digest.hexdigest()


def _header(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None) -> bytes:
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        dtype, shape = _DTYPES[tensor.dtype], list(tensor.shape)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % _WORD_BYTES)


def _pieces(header: bytes, tensors: Mapping[str, torch.Tensor]) -> Iterator[bytes | memoryview]:
    yield len(header).to_bytes(_WORD_BYTES, "little")
    yield header
    for tensor in tensors.values():
        # A view where the tensor is on the CPU and in order already.
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            yield memoryview(flat.view(torch.uint8).numpy())
