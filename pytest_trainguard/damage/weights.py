"""The tensors in files of weights: bits flipped in them, signs turned, their digests, two checkpoints' compared.

Files are read as safetensors or with `weights_only=True`, never unpickled. These functions run where torch is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trainguard.contract import checkpoints
from pytest_trainguard.damage.checkpoints import read_only
from pytest_trainguard.rows.suffixes import SAFETENSORS

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["digests_of", "flip_bits", "hold_same_weights", "turn_weights"]

OTHER_STATE = ("optim", "rng")  # in the names of what is no model's


def flip_bits(file: str, many: int = 16) -> str:
    """Flip the highest bit of the exponent of some weights, on the disk: a 0.02 becomes 7e36.

    They are spread over the largest tensor of the file. It is damage at rest: no checksum is made to fit.

    Returns:
        the tensor's name; empty where no tensor of floating-point numbers stands in the file as it is in memory.
    """
    from pytest_trainguard.recorder.tensors import bytes_of

    path = Path(file)
    floats = ((name, tensor) for name, tensor in _tensors_in_file(path) if tensor.is_floating_point())
    tensors = {name: tensor for name, tensor in floats if tensor.numel()}
    if not tensors:
        return ""
    name = max(tensors, key=lambda one: tensors[one].numel())
    tensor = tensors[name].contiguous()
    raw = bytes_of(tensor)
    content = bytearray(path.read_bytes())
    start, size = content.find(raw), tensor.element_size()
    if start < 0:
        return ""
    for nth in range(min(many, tensor.numel())):
        element = nth * tensor.numel() // many if tensor.numel() >= many else nth
        content[start + element * size + size - 1] ^= 0x40  # the last byte holds sign and exponent: little-endian
    path.write_bytes(content)
    return name


def turn_weights(files: list[str]) -> int:
    """Turn the sign of every other weight in these files, on the disk: other weights, and as large as before.

    Returns:
        how many tensors have other values now.
    """
    from pytest_trainguard.recorder.tensors import bytes_of

    changed = 0
    for path in map(Path, files):
        content = bytearray(path.read_bytes())
        for _, tensor in _tensors_in_file(path):
            if not tensor.is_floating_point() or not bool(tensor.any()):
                continue
            raw = bytes_of(tensor)
            start, size = content.find(raw), tensor.element_size()
            if start >= 0:
                content[start + size - 1 : start + len(raw) : 2 * size] = bytes(
                    byte ^ 0x80 for byte in content[start + size - 1 : start + len(raw) : 2 * size]
                )
                changed += 1
        path.write_bytes(content)
    return changed


def digests_of(files: list[str]) -> list[str]:
    """A digest of each tensor in these files that is not one number throughout, as a new norm's weights are."""
    from pytest_trainguard.recorder.states import digest

    tensors = (tensor for path in map(Path, files) for _, tensor in _tensors_in_file(path))
    floats = [tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel() and not tensor.is_sparse]
    return [digest(tensor) for tensor in floats if float(tensor.float().min()) != float(tensor.float().max())]


def hold_same_weights(first: Path, second: Path) -> bool | None:
    """Whether every tensor that two checkpoints both have is the same in them; None where they have none in common.

    An optimizer's and a random generator's are not looked at.
    """
    import torch

    ours, theirs = _weights(first), _weights(second)
    common = [name for name in ours if name in theirs and ours[name].is_floating_point()]
    return all(torch.equal(ours[name], theirs[name]) for name in common) if common else None


def _weights(checkpoint: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in checkpoints.files(checkpoint):
        if OTHER_STATE[0] not in file.name:
            tensors.update(_tensors_in_file(file, passing_over=OTHER_STATE))
    return tensors


def _tensors_in_file(path: Path, passing_over: tuple[str, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    if path.suffix == SAFETENSORS:
        from safetensors.torch import load_file

        content: object = load_file(path)
    else:
        content = read_only(path)
    yield from _tensors_in(content, "", passing_over)


def _tensors_in(value: object, name: str, passing_over: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in tables in tables, the names that lead to it joined by dots."""
    import torch

    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not any(part in str(key) for part in passing_over):
                yield from _tensors_in(inner, f"{name}.{key}" if name else str(key), passing_over)
