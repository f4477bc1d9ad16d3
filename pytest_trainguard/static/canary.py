"""A small program with known faults, read beside the trainer's own: does the checker still say what is understood here?

The checker's findings are sentences, and what they lead to is read off their wording. A newer version that words them
differently would find nothing in any program, and cases 71 to 78 would be green in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Each line that ends in an exception's name is a fault which has to be found, under that name.
SOURCE = """\
import json
from typing import TypedDict


class Row(TypedDict):
    text: str


class Model:
    def __init__(self) -> None:
        self.step = 0

    def fit(self) -> None:
        self.stepp += 1  # AttributeError


def assigned_later(rows: list[str]) -> int:
    warmup = total_steps  # UnboundLocalError
    total_steps = len(rows)
    return warmup + total_steps


def assigned_on_one_branch(resume: bool) -> int:
    if resume:
        start = 1
    return start  # UnboundLocalError


def misspelt() -> object:
    return learning_rat  # NameError


def missing_in_module(path: str) -> object:
    return json.load_lines(path)  # AttributeError


def missing_in_none() -> None:
    model = None
    model.train()  # AttributeError


def divided(steps: int) -> float:
    return steps / 0  # ZeroDivisionError


def beyond_the_end() -> int:
    pair = (1, 2)
    return pair[2]  # IndexError


def unknown_key(row: Row) -> object:
    return row["txt"]  # KeyError


def launch(rate: float, seed: int) -> None: ...


launch(0.1)  # TypeError
launch(0.1, sead=1)  # TypeError
launch(0.1, 1, 2)  # TypeError
launch(None, 1)  # TypeError
launch(0.1, "1")  # TypeError
"""
_MARKED = re.compile(r"# (\w+)$")
_LINES = SOURCE.splitlines()
FAULTS = {(number, found[1]) for number, line in enumerate(_LINES, 1) if (found := _MARKED.search(line))}


def overlooked(found: Iterable[tuple[int, str]]) -> list[str]:
    """The known faults that are not among those `found` (line and exception); each as its line of the source."""
    return [_LINES[number - 1].strip() for number, exception in sorted(FAULTS - set(found))]
