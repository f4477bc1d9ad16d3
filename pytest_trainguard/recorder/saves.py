"""Inside a run that is looked at closely: of which step the weights are that it saves."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from pytest_trainguard.recorder.close_look import CloseLook
from pytest_trainguard.recorder.doors import Observer
from pytest_trainguard.recorder.states import digest
from pytest_trainguard.recorder.surroundings import find_caller

DEEPEST = 6  # levels of what is saved
UNKNOWN = -1  # of values that a parameter never had: averaged, merged or rounded
_OF_AN_OPTIMIZER = re.compile(r"(^|\.)state\.\d+\.")  # what it keeps of each parameter has the parameter's shape


class Saves(Observer):
    """Holds what is saved against what each parameter was after each step. Its events are named `look stored`."""

    def __init__(self, look: CloseLook):
        self._look = look
        # What each parameter was, by number: a digest, and the last step after which it was that.
        self._was: dict[int, dict[str, int]] = {}

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        self._note()

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        self._note()

    def _note(self) -> None:
        for number, _, tensor in self._look.parameters():
            with contextlib.suppress(Exception):  # a fake tensor, which has no values
                self._was.setdefault(number, {})[digest(tensor)] = self._look.steps

    def stored(self, value: object) -> None:
        self._note()  # they may have been loaded since
        tensors = dict(_tensors_in(value, "", 0))
        held, moved = {}, []
        named: set[str] = set()  # keys of tensors that belong to a parameter
        learnt: set[torch.Size] = set()  # shapes of the parameters that moved
        for number, name, tensor in self._look.parameters():
            was = self._was.get(number, {})
            keys = [key for key, one in tensors.items() if one.shape == tensor.shape and _is_named(key, name)]
            same = [tensors[key] for key in keys]
            if len(was) > 1:
                learnt.add(tensor.shape)
            if not name or not same or not was:
                continue
            named.update(keys)
            with contextlib.suppress(Exception):
                found = [was.get(digest(one), UNKNOWN) for one in same]
                # Beside an average, or merged weights, those of the start may stand as well.
                held[number] = UNKNOWN if UNKNOWN in found and max(found) == 0 else max(found)
                if len(was) > 1:
                    moved.append(number)
        if held:
            begun = [one for key, one in tensors.items() if key.rpartition(".")[2] == "n_averaged"]
            waits = any(not bool(count) for count in begun)  # an average that begins later
            rest = {key: one for key, one in tensors.items() if key not in named and not _OF_AN_OPTIMIZER.search(key)}
            self._look.write(
                "stored",
                held=held,
                moved=moved,
                # What moved may be saved by another name.
                others=any(one.shape in learnt for one in rest.values()),
                numbers=_numbers_in(value),
                waits=waits,
                place=find_caller(),
            )


def _is_named(key: str, name: str) -> bool:
    """What is saved under a key belongs to a parameter: either may have more before it, as a wrapper's name.

    PEFT leaves the adapter's name out of its keys: `lora_A.weight` of `lora_A.default.weight`.
    """
    parts = name.split(".")
    shorter = [".".join(parts[:one] + parts[one + 1 :]) for one in range(1, len(parts) - 1)]
    return any(_ends_with(key, each) or _ends_with(each, key) for each in (name, *shorter))


def _ends_with(whole: str, end: str) -> bool:
    return whole == end or whole.endswith(f".{end}")


def _tensors_in(value: Any, name: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in what is saved, by their keys, joined by dots; of a module those of its state."""
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, torch.Tensor):
        yield name, value
    elif depth < DEEPEST and isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors_in(inner, f"{name}.{key}" if name else str(key), depth + 1)
    elif depth < DEEPEST and isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _tensors_in(inner, f"{name}.{number}", depth + 1)


def _numbers_in(value: object) -> dict[str, int]:
    """The whole numbers at the top of what is saved: one of them may tell its step."""
    items = value.items() if isinstance(value, Mapping) else ()
    return {str(key): one for key, one in items if isinstance(one, int) and not isinstance(one, bool)}
