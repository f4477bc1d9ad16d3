"""Checkpoints that are whole or not there: ``checkpoint-<step>``, a folder with a manifest of checksums.

A save writes into a temporary folder beside, waits for the disk, and renames; a load checks every file
against the manifest. So a crash, a power loss or a full disk in the middle of a save costs that save and
nothing else. What stands in a checkpoint:

==================== =======================================================================================
``model.safetensors`` the weights
``state.json``       step, position in the data, best validation so far, what model it is
``training.pt``      optimizer, scheduler, scaler, random generators (read with ``weights_only=True``)
``manifest.json``    format version, and for each file its size and SHA-256
the program's own    ``config.json`` and the tokenizer, for example
==================== =======================================================================================
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from trainers.common import files
from trainers.common.errors import InputError, reason, show

if TYPE_CHECKING:
    from torch import nn

FORMAT_VERSION = 1
NAME = re.compile(r"checkpoint-(\d+)")
MANIFEST, STATE, WEIGHTS, TRAINING = "manifest.json", "state.json", "model.safetensors", "training.pt"


class Checkpoint(NamedTuple):
    """A checkpoint whose files are all as they were written."""

    path: Path
    step: int
    state: dict[str, Any]


class Damaged(Exception):
    """A folder that is no whole checkpoint; the message says why."""


# ---- writing


def save(
    root: Path,
    step: int,
    *,
    model: nn.Module | None,
    state: dict[str, Any],
    training: dict[str, Any],
    others: Callable[[Path], None] = lambda folder: None,
    weights: str = WEIGHTS,
) -> Path:
    """Write ``root/checkpoint-<step>`` in one step.

    Args:
        root: the output folder.
        step: optimizer steps done.
        model: its weights are saved, from whatever device they are on. None: ``others`` writes them.
        state: what `Checkpoint.state` shall hold, besides the step; JSON.
        training: tensors and state dicts, readable with ``weights_only=True``.
        others: writes further files into the folder that it is given.
        weights: the file with the weights, without which this is no checkpoint.

    Raises:
        TrainingFailed: the disk is full, gone or read-only; nothing is left of this save, the earlier ones
            are whole.
    """
    final = root / f"checkpoint-{step}"
    temporary = root / f"{files.TEMPORARY}{final.name}"
    with files.saving(final, temporary):
        files.remove(temporary)
        temporary.mkdir()
        _write_training(training, temporary / TRAINING)
        if model is not None:
            _write_weights(model, temporary / weights)
        (temporary / STATE).write_text(json.dumps({"step": step, **state}, indent=2, allow_nan=False), encoding="utf-8")
        others(temporary)
        # safetensors lets nobody but the owner read what it writes.
        shutil.copymode(temporary / TRAINING, temporary / weights)
        written = sorted(path for path in temporary.rglob("*") if path.is_file())
        entries = {
            path.relative_to(temporary).as_posix(): {
                "bytes": path.stat().st_size,
                "sha256": files.sha256(path),
            }
            for path in written
        }
        manifest = {"format_version": FORMAT_VERSION, "weights": weights, "files": entries}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        for path in (*written, temporary / MANIFEST):
            files.sync_file(path)
        for path in (*(path for path in temporary.rglob("*") if path.is_dir()), temporary):
            files.sync_folder(path)
        os.rename(temporary, final)
        files.sync_folder(root)
    return final


def require_room(root: Path, model: nn.Module, keep_last: int, say: Callable[[str], None]) -> None:
    """A disk that will be full is found before the first step, and not after the first hours.

    Args:
        root: the output folder.
        model: with an optimizer that keeps two numbers for each weight it trains, as AdamW does.
        keep_last: checkpoints that are kept.
        say: is told where there is room for some, but not for all.

    Raises:
        InputError: there is no room for one.
    """
    size = sum(tensor.numel() * (tensor.element_size() + 8 * tensor.requires_grad) for tensor in model.parameters())
    free = shutil.disk_usage(root).free
    name, there = show(root), f"{free / 2**20:.0f} MiB are free"
    if free < size:
        raise InputError(f"output folder {name}: {there}, a checkpoint takes {size / 2**20:.0f}")
    if free < (keep_last + 2) * size:
        count = f"{keep_last} checkpoints (keep_last), the best and a new one"
        say(f"output folder {name}: {there}, {count} take {(keep_last + 2) * size / 2**20:.0f}")


def _write_weights(model: nn.Module, path: Path) -> None:
    from safetensors.torch import save_model

    with safetensors_errors():
        save_model(model, str(path), metadata={"format": "pt"})


@contextlib.contextmanager
def safetensors_errors() -> Iterator[None]:
    """Inside, what safetensors raises where a write fails is the OSError that the system gave."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:  # what the system said is in its text: "I/O error: ... (os error 28)"
        number = re.search(r"os error (\d+)", str(error))
        raise (OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))) from error


def _write_training(training: dict[str, Any], path: Path) -> None:
    import torch

    # torch.save turns a failed write into a RuntimeError about a position; the sink remembers what really
    # happened.
    with open(path, "wb") as file:
        sink = _Sink(file)
        with contextlib.suppress(OSError):
            torch.save(training, sink)
        if sink.error is not None:
            raise sink.error


class _Sink:
    """A file for torch.save whose first failure is kept, and after which writing only pretends."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Nothing to do: closing the file flushes it."""


def prune(root: Path, keep_last: int, best_step: int | None) -> None:
    """Remove all but the newest ``keep_last`` checkpoints and the best one."""
    for step, path in numbered(root)[keep_last:]:
        if step != best_step:
            doomed = root / f"{files.TEMPORARY}old-{path.name}"
            with contextlib.suppress(OSError):  # a kill in mid-removal leaves no half checkpoint under a final name
                path.rename(doomed)
            files.remove(doomed)


# ---- reading


def numbered(root: Path) -> list[tuple[int, Path]]:
    """The checkpoint folders in ``root`` by their step, newest first; clocks play no part."""
    try:
        found = [(NAME.fullmatch(path.name), path) for path in root.iterdir() if path.is_dir()]
    except OSError:
        return []
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def verify(path: Path) -> Checkpoint:
    """The checkpoint at ``path``, every file checked against the manifest.

    Raises:
        Damaged: a file is missing, cut, altered or unreadable.
        InputError: it is of another format version, or its step is negative: no damage that an older
            checkpoint mends.
    """
    manifest = _object(path / MANIFEST)
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(f"checkpoint {show(path)}: format version {version!r}, this program reads {FORMAT_VERSION}")
    state = _object(path / STATE)
    step = state.get("step")
    if type(step) is not int:
        raise Damaged(f"{STATE}: step is {step!r}")
    if step < 0:
        raise InputError(f"checkpoint {show(path)}: negative step {step} in {STATE}")
    entries = manifest.get("files")
    if not isinstance(entries, dict) or not {manifest.get("weights", WEIGHTS), TRAINING, STATE} <= entries.keys():
        raise Damaged(f"{MANIFEST}: lists not all files")
    for name, entry in entries.items():
        file = path / name
        try:
            size, expected = entry["bytes"], entry["sha256"]
            if file.stat().st_size != size:
                raise Damaged(f"{name}: {file.stat().st_size} bytes, not {size}")
            if files.sha256(file) != expected:
                raise Damaged(f"{name}: checksum differs")
        except (TypeError, KeyError):
            raise Damaged(f"{MANIFEST}: bad entry for {name}") from None
        except OSError as error:
            raise Damaged(f"{name}: {reason(error)}") from None
    match = NAME.fullmatch(path.name)
    if match and int(match[1]) != step:
        raise Damaged(f"{STATE}: step {step} in a folder named {path.name}")
    return Checkpoint(path, step, state)


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise Damaged(f"{path.name}: {reason(error)}") from None
    except (ValueError, RecursionError):
        raise Damaged(f"{path.name}: bad JSON") from None
    if not isinstance(value, dict):
        raise Damaged(f"{path.name}: no JSON object")
    return value


def load_weights(path: Path, model: nn.Module) -> None:
    """Read weights into ``model``.

    Raises:
        InputError: the file is unreadable, or of another model: naming the first tensor that differs and both
            shapes.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_model

    try:
        with safe_open(str(path), "pt") as stored:
            shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"weights {show(path)}: {error}") from None
    for name, tensor in model.state_dict().items():
        if name in shapes and shapes[name] != tuple(tensor.shape):
            message = f"{name} has shape {shapes[name]} there and {tuple(tensor.shape)} here"
            raise InputError(f"weights {show(path)} are of another model: {message}")
    try:
        load_model(model, str(path))
    except RuntimeError as error:
        raise InputError(f"weights {show(path)} are of another model: {' '.join(str(error).split())[:300]}") from None


def load_training(checkpoint: Checkpoint) -> dict[str, Any]:
    """What was saved as ``training``, on the CPU."""
    import torch

    loaded: dict[str, Any] = torch.load(checkpoint.path / TRAINING, map_location="cpu", weights_only=True)
    return loaded


# ---- random generators


def seed_random(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators (CUDA's too)."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's generators (CUDA's too), for `save`'s ``training``."""
    import numpy
    import torch

    kind, keys, *rest = cast("tuple[Any, ...]", numpy.random.get_state(legacy=True))
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype("int64")), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the generators where they were when `random_state` was taken."""
    import numpy
    import torch

    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    numpy.random.set_state((kind, keys.numpy().astype("uint32"), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
