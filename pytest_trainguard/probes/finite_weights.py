"""Whether files of weights can be loaded, and every weight in them is finite; done where torch is loaded.

Files are read as safetensors or with `torch.load(weights_only=True)`, those with objects of a program's own classes as
`damage.pickled` looks into them: never unpickled. A checkpoint holds more than
weights: the best score so far begins at infinity, and says nothing of them.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from pytest_trainguard.damage.pickled import look_into
from pytest_trainguard.rows.suffixes import SAFETENSORS

if TYPE_CHECKING:
    from torch import Tensor

NOT_FINITE = "is not finite"

# Keys of what is no weights, and of what is. Neither says anything of a tensor of several values in a state_dict: its
# names are those of a team's modules.
BOOKKEEPING = re.compile(
    r"callback|loops?$|sched|metrics?$|histor|monitor|scores?$|kth|rng|random_?state|hparams|hyper|logs?$|losses$"
    r"|(train|val|eval|test)\w*_loss$|^best(?!.*(model|weight|state|param|net))",
    re.IGNORECASE,
)
WEIGHTS = re.compile(r"model|state_dict|weight|module|param|optim|exp_avg|(^|_)(ema|net)", re.IGNORECASE)


def find_bad_weights(files: list[Path], undisturbed: list[Path]) -> dict[Path, str]:
    """The files that cannot be loaded, or hold a weight that is not finite; path to what is wrong.

    Args:
        files: what is looked at.
        undisturbed: those of a run that nothing disturbed: what is not finite in one of them, as an attention mask of
            `-inf` is, is so on purpose.
    """
    found: dict[Path, str] = {}
    on_purpose: set[str] | None = None
    for file in files:
        try:
            bad = _names_not_finite(load_weights(file))
        except Exception as error:
            found[file] = f"cannot be loaded ({_first_line(error)})"
            continue
        if bad and on_purpose is None:
            on_purpose = _names_in_any(undisturbed)
        blamed = [name for name in bad if name not in (on_purpose or ())]
        if blamed:
            found[file] = f"{blamed[0]} {NOT_FINITE}"
    return found


def _names_in_any(files: list[Path]) -> set[str]:
    """The names of what is not finite in any of the files that can be loaded; nothing else is judged here."""
    found: set[str] = set()
    for file in files:
        try:
            found.update(_names_not_finite(load_weights(file)))
        except Exception:
            continue
    return found


def load_weights(file: Path) -> object:
    """What stands in a file of weights; None where it is whole, and cannot be looked into.

    Raises:
        Exception: whatever its reader makes of a file that is none.
    """
    import torch

    if file.suffix == SAFETENSORS:
        from safetensors.torch import load_file

        loaded: object = load_file(file)
        return loaded
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if os.path.getsize(file) == 0 or "Unsupported" not in str(error):
            raise
    try:
        return look_into(file)[0]
    except Exception:  # whole, as far as the restricted reader came, and nothing that can be judged
        return None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _names_not_finite(loaded: object) -> list[str]:
    """The names of the weights with a value that is not finite; of nested ones the names are joined by dots."""
    tiny = all(tensor.numel() == 1 for tensor in _tensors_in(loaded))
    return [
        name
        for name, tensor in _weights_in(loaded, "", tiny)
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]


def _weights_in(value: object, name: str, tiny: bool, *, sure: bool = False) -> Iterator[tuple[str, Tensor]]:
    """The weights and what an optimizer keeps of them, by name.

    Args:
        value: what a file holds, or a part of it.
        name: that part's.
        tiny: all tensors in the file are single numbers, those of the model, too.
        sure: a single number is one of the weights here; elsewhere it is a best loss, a count, an average.
    """
    if is_tensor(value):
        if sure or value.numel() > 1:
            yield name or "the tensor", value
        return
    items = items_of(value)
    tensors = [inner for _, inner in items if is_tensor(inner)]
    large = any(tensor.numel() > 1 for tensor in tensors)
    state_dict = (tiny and bool(tensors)) or (large and 2 * len(tensors) > len(items))
    for key, inner in items:
        if (state_dict and is_tensor(inner) and inner.numel() > 1) or not BOOKKEEPING.search(str(key)):
            known = sure or (state_dict and is_tensor(inner)) or bool(WEIGHTS.search(str(key)))
            yield from _weights_in(inner, f"{name}.{key}" if name else str(key), tiny, sure=known)


def _tensors_in(value: object) -> Iterator[Tensor]:
    if is_tensor(value):
        yield value
    for _, inner in items_of(value):
        yield from _tensors_in(inner)


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Whether a value is a tensor of torch's."""
    import torch

    return isinstance(value, torch.Tensor)


def items_of(value: object) -> list[tuple[object, object]]:
    """The parts of a table or a list, with their keys; none of anything else."""
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list | tuple) else []
