"""Changing what is saved in checkpoints, as if the program had saved it so: checksums are made to fit.

Runs where torch is loaded. Files are read with `weights_only=True`, never unpickled.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pytest_trainguard.contract import checkpoints as found

STEP_NAMES = frozenset(
    {"step", "steps", "global_step", "global_steps", "current_step", "train_step", "iter", "iter_num", "iteration",
     "iterations", "num_updates", "completed_steps", "steps_done"}
)  # fmt: skip
DEPTH = 2  # tables in tables that a step count is looked for in: an optimizer's own, of each parameter, lie deeper
LARGEST_MANIFEST = 1 << 20  # bytes


def negative_steps(checkpoints: list[str]) -> dict[str, int]:
    """Make the step counts in checkpoints negative, in place.

    Returns:
        each file that was changed, and the number that now stands in it; in the order of the checkpoints.
    """
    changed: dict[str, int] = {}
    for checkpoint in map(Path, checkpoints):
        files = found.files(checkpoint)
        for file in files:
            numbers = _rewritten(file, files)
            if numbers:
                changed[str(file)] = numbers[0]
    return changed


def step_in(checkpoint: Path) -> int | None:
    """The step count that is saved in a checkpoint; None where none is found."""
    for file in found.files(checkpoint):
        numbers = _steps(_content(file), DEPTH)
        if numbers:
            return numbers[0]
    return None


def same_weights(first: Path, second: Path) -> bool | None:
    """Whether every tensor that two checkpoints both have is the same in them; None where they have none in common."""
    import torch

    ours, theirs = _tensors(first), _tensors(second)
    common = [name for name in ours if name in theirs and ours[name].is_floating_point()]
    return all(torch.equal(ours[name], theirs[name]) for name in common) if common else None


def _tensors(checkpoint: Path) -> dict[str, Any]:
    """The tensors of a checkpoint by name; of an optimizer's or a random generator's none."""
    import torch

    tensors: dict[str, Any] = {}

    def gather(name: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        elif isinstance(value, dict):
            for key, inner in value.items():
                if "optim" not in str(key) and "rng" not in str(key):
                    gather(f"{name}.{key}" if name else str(key), inner)

    for file in found.files(checkpoint):
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            gather("", load_file(file))
        elif "optim" not in file.name:
            gather("", _content(file))
    return tensors


def _content(file: Path) -> Any:
    """What stands in a JSON file or in one of torch's; None in any other."""
    reader = {".json": _read_json, **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin"), _read_tensors)}.get(file.suffix)
    try:
        return reader(file) if reader else None
    except Exception:  # not a file of this kind, or one that only unpickling would read
        return None


def _steps(value: Any, depth: int) -> list[int]:
    if not isinstance(value, dict) or depth == 0:
        return []
    here = [inner for name, inner in value.items() if name in STEP_NAMES and type(inner) is int]
    return here + [number for inner in value.values() for number in _steps(inner, depth - 1)]


def _rewritten(file: Path, beside: list[Path]) -> list[int]:
    """Negate the step counts in one file; the numbers that now stand in it."""
    content = _content(file)
    numbers = _negate(content, DEPTH)
    if numbers:
        before = file.read_bytes()
        (_write_json if file.suffix == ".json" else _write_tensors)(file, content)
        _vouch(file.name, before, file.read_bytes(), [path for path in beside if path != file])
    return numbers


def _negate(value: Any, depth: int) -> list[int]:
    if not isinstance(value, dict) or depth == 0:
        return []
    numbers = []
    for name, inner in value.items():
        if name in STEP_NAMES and type(inner) is int and inner > 0:
            value[name] = -inner
            numbers.append(-inner)
        else:
            numbers += _negate(inner, depth - 1)
    return numbers


def _vouch(name: str, before: bytes, after: bytes, others: list[Path]) -> None:
    """Where other files hold the old content's checksum and size, let them hold the new one's."""
    digests = {}
    for kind in ("sha256", "sha1", "md5", "sha512", "blake2b"):
        digests[hashlib.new(kind, before).hexdigest()] = hashlib.new(kind, after).hexdigest()
    for path in others:
        if path.stat().st_size > LARGEST_MANIFEST:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if any(old in text for old in digests):
            for old, new in digests.items():
                text = text.replace(old, new)
            path.write_text(_with_size(text, set(digests.values()), len(before), len(after)), encoding="utf-8")


def _with_size(text: str, digests: set[str], before: int, after: int) -> str:
    """A manifest in JSON with the new size, in the table in which the checksum stands."""
    try:
        content = json.loads(text)
    except ValueError:
        return text

    def mend(value: Any) -> None:
        if isinstance(value, dict):
            vouched = any(isinstance(inner, str) and inner in digests for inner in value.values())
            for name, inner in value.items():
                if vouched and type(inner) is int and inner == before:
                    value[name] = after
                mend(inner)
        elif isinstance(value, list):
            for inner in value:
                mend(inner)

    mend(content)
    return json.dumps(content, indent=2)


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _read_tensors(file: Path) -> Any:
    import torch

    return torch.load(file, map_location="cpu", weights_only=True)


def _write_tensors(file: Path, content: Any) -> None:
    import torch

    torch.save(content, file)
