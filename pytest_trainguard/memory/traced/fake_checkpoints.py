"""Checkpoints of fake tensors: safetensors files of the right form and size, with a hole where the numbers would be."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8",
    "bool": "BOOL", "complex64": "C64",
}  # fmt: skip


def install_in_safetensors(module: ModuleType) -> None:
    """Have `safetensors.torch` write fake checkpoints, by whatever names its functions were imported elsewhere."""
    flatten = "_flatten_as_ptr" if hasattr(module, "_flatten_as_ptr") else "_flatten"
    check = getattr(module, "_evaluate_tensors_for_save", lambda tensors: None)

    def kept(tensors: Tensors, *keep_alive: object) -> Tensors:
        check(tensors)
        return tensors

    vars(module).update({
        flatten: kept,
        "serialize_file": write_fake_checkpoint,
        "serialize": lambda tensors, metadata=None: make_content(tensors, metadata, whole=True),
    })  # fmt: skip


def write_fake_checkpoint(
    tensors: Tensors, filename: str | os.PathLike[str], metadata: dict[str, str] | None = None
) -> None:
    """Write the file; its numbers are a hole, which takes no room on the disk.

    Raises:
        OSError: it cannot be written.
    """
    head = make_content(tensors, metadata)
    with Path(filename).open("wb") as file:
        file.write(head)
        file.truncate(len(head) + sum(map(_size, tensors.values())))


def make_content(tensors: Tensors, metadata: dict[str, str] | None, *, whole: bool = False) -> bytes:
    """The file's header, with zeros behind it where it is wanted `whole`."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, tensor in sorted(tensors.items()):
        start, end = end, end + _size(tensor)
        kind = _NAMES[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"\0" * (end if whole else 0)


def _size(tensor: torch.Tensor) -> int:
    return int(tensor.numel() * tensor.element_size())
