"""Inside a run that is looked at closely: whether a row that is read again is the same, in a copy of the process."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from pytest_trainguard.recorder.apart import try_apart
from pytest_trainguard.recorder.close_look import CloseLook
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.states import digest
from pytest_trainguard.recorder.surroundings import find_caller
from pytest_trainguard.recorder.tensors import tensors_in

DATA_SETS = 3  # of a run, that are looked at
ROWS = 4  # of a batch, that are read again
DEEPEST = 8  # levels of what a data set holds
MOST_VALUES = 20_000  # that are looked at in it
SHOWN = 3  # numbers of what changed


class Rereading(Observer):
    """Reads the rows of the first batch of each data set again. Its events are named `look reread`."""

    def __init__(self, look: CloseLook):
        self._look = look
        self._known: dict[int, object] = {}  # data sets by id, held so that it stays theirs

    def opened(self, loader: torch.utils.data.DataLoader[Any]) -> None:
        data = loader.dataset
        if id(data) in self._known or len(self._known) >= DATA_SETS or not hasattr(data, "__getitem__"):
            return
        if isinstance(data, torch.utils.data.IterableDataset):
            return
        self._known[id(data)] = data
        told = try_apart(lambda: read_again(loader))
        stays = loader.num_workers == 0 or loader.persistent_workers  # what is written, the next epoch reads
        self._look.write("reread", data=type(data).__name__, place=find_caller(), stays=stays, **(told or {}))


def read_again(loader: torch.utils.data.DataLoader[Any]) -> dict[str, object]:
    """Of the first rows of a loader: whether the third reading gives what the second gave, and what it changed.

    Each begins with the same random states. The first is not counted: it may fill a cache.
    """
    batches: Any = loader.batch_sampler if loader.batch_sampler is not None else ([row] for row in loader.sampler)
    rows = list(next(iter(batches)))[:ROWS]
    put_back = _random_states(loader.dataset)
    name = type(loader.dataset).__name__
    readings: list[str] = []
    before: dict[str, tuple[str, str]] = {}
    for _ in range(3):
        if len(readings) == 2:
            before = dict(_values_in(loader.dataset, name))
        put_back()
        readings.append(_digest_of(_read(loader, rows)))
    after = dict(_values_in(loader.dataset, name))
    changed = [name for name, value in before.items() if name in after and after[name] != value]
    first = changed[0] if changed else ""
    return {
        "rows": [row if isinstance(row, int) else str(row) for row in rows],
        "same": readings[1] == readings[2],
        "changed": changed[:ROWS],
        "before": before.get(first, ("", ""))[1],
        "after": after.get(first, ("", ""))[1],
    }


def _read(loader: torch.utils.data.DataLoader[Any], rows: list[Any]) -> object:
    """As torch's loader does it."""
    data: Any = loader.dataset
    if loader.batch_sampler is None:
        return loader.collate_fn(data[rows[0]])
    many = getattr(data, "__getitems__", None)
    return loader.collate_fn(many(rows) if many else [data[row] for row in rows])


def _digest_of(batch: object) -> str:
    return digest([list(tensors_in(batch)), batch])


def _random_states(data: object) -> Callable[[], None]:
    """What puts every generator back: Python's, NumPy's, torch's, and those that the data set holds."""
    numpy = sys.modules.get("numpy")
    put_back: list[Callable[[], object]] = []
    for _, held in _inside(data, "", 0, set()):
        if isinstance(held, torch.Generator):
            put_back.append(partial(held.set_state, held.get_state()))
        elif isinstance(held, random.Random):
            put_back.append(partial(held.setstate, held.getstate()))
        elif numpy is not None and isinstance(held, numpy.random.Generator):
            put_back.append(partial(setattr, held.bit_generator, "state", held.bit_generator.state))
        elif numpy is not None and isinstance(held, numpy.random.RandomState):
            put_back.append(partial(held.set_state, held.get_state()))
    python, torchs = random.getstate(), torch.get_rng_state()
    numpys = numpy.random.get_state() if numpy is not None else None

    def all_of_them() -> None:
        random.setstate(python)
        torch.set_rng_state(torchs)
        if numpy is not None:
            numpy.random.set_state(numpys)
        for one in put_back:
            one()

    return all_of_them


def _values_in(data: object, name: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each tensor, array and list of numbers that a data set holds: a digest, and its first numbers in words."""
    for place, held in _inside(data, name, 0, set()):
        numbers = _numbers_of(held)
        if numbers is not None:
            with contextlib.suppress(Exception):  # an array of objects, a tensor without values
                first = torch.as_tensor(numbers[:SHOWN]).tolist()
                shown = ", ".join(f"{one:.4g}" for one in first)
                more = f", ... ({len(numbers)} of them)" if len(numbers) > SHOWN else ""
                yield place, (digest(held), f"[{shown}{more}]")


def _numbers_of(held: Any) -> Any:
    """What of a value can be written to, and is made of numbers; None where nothing is."""
    if isinstance(held, torch.Tensor):
        return held.detach().reshape(-1)
    if isinstance(held, list):
        return held if held and all(isinstance(one, int | float) for one in held[:SHOWN]) else None
    if hasattr(held, "tobytes") and hasattr(held, "reshape") and getattr(held, "ndim", False):
        return held.reshape(-1)
    return None


def _inside(held: Any, name: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """What an object holds, and what that holds, each once, with how it is reached."""
    if id(held) in seen or len(seen) >= MOST_VALUES or depth > DEEPEST:
        return
    if held is None or isinstance(held, str | bytes | int | float | type | torch.nn.Module):
        return
    seen.add(id(held))
    yield name, held
    if isinstance(held, list | tuple):
        if not held or not isinstance(held[0], int | float | str):
            for number, inner in enumerate(held):
                yield from _inside(inner, f"{name}[{number}]", depth + 1, seen)
    elif isinstance(held, dict):
        for key, inner in list(held.items()):
            yield from _inside(inner, f"{name}[{key!r}]", depth + 1, seen)
    elif not isinstance(held, torch.Tensor) and not hasattr(held, "tobytes"):
        for key, inner in list(getattr(held, "__dict__", {}).items()):
            yield from _inside(inner, f"{name}.{key}", depth + 1, seen)
