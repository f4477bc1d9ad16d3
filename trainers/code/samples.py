"""Rows of code for trying a program out: short ones, longest ones, and some of all lengths."""

from __future__ import annotations

import itertools
import json
import os
import random
import string
from collections.abc import Callable, Sequence
from pathlib import Path

from trainers.code.misuse import NOT_LIBRARY, SHORTEST_CODE, functions, source_files, standard_library, twins
from trainers.common.rows import content_key

SHORT_ROWS = 16
"""Rows of `write_longest` that are short."""
NAMES = 25_000
"""Different names in `write_longest`."""
REPEATED = 10
"""Functions that stand in several rows of `write_longest`, each for the rows of a tenth of all hashes."""


def write_jsonl(path: str | os.PathLike[str], rows: int = 64, seed: int = 0, longest: int = 400) -> None:
    """Write short rows from the standard library, right and wrong by turns, each of another function.

    Modules are read only until there are enough rows, small ones first. The same seed makes the same bytes.

    Args:
        path: file to write.
        rows: how many rows.
        seed: decides functions, twins and order.
        longest: characters that a row's code has at most.

    Raises:
        ValueError: the standard library has fewer such functions.
    """
    files = source_files(standard_library(), NOT_LIBRARY)
    chance = random.Random(seed)
    chance.shuffle(files)
    files.sort(key=lambda file: file.stat().st_size > 40_000)  # stable: shuffled within small and large
    made: dict[str, int] = {}
    for file in files:
        if len(made) >= rows:
            break
        try:
            found = list(functions(file, file.name))
        except (OSError, SyntaxError, ValueError, RecursionError):
            continue  # nothing is promised of any one module here; Corpus names them
        for function in found:
            if len(made) >= rows or not SHORTEST_CODE <= len(function.code) <= longest:
                continue
            wrong = twins(function.code, seed, 1)
            if wrong and not {function.code, *wrong} & made.keys():
                label = len(made) % 2
                made[wrong[0] if label else function.code] = label
    if len(made) < rows:
        raise ValueError(f"the standard library gives {len(made)} rows of up to {longest} characters, not {rows}")
    lines = [json.dumps({"code": code, "label": label}, ensure_ascii=False) + "\n" for code, label in made.items()]
    chance.shuffle(lines)
    Path(path).write_text("".join(lines), encoding="utf-8")


def write_longest(path: str | os.PathLike[str], rows: int, seed: int, length: int) -> None:
    """Write rows that reach ``length`` tokens and nodes, for predicting memory: functions of made-up names.

    So many names, each more than once, that a tokenizer trained on them fills its vocabulary, as it does on the
    whole standard library; where fewer than all rows hold them, the others are a few functions again and again,
    which a program need not parse each time. The first rows are short, for a program wants some that fit. The same
    seed makes the same bytes.

    Args:
        path: file to write.
        rows: how many rows.
        seed: decides the names.
        length: tokens and nodes that a row has at least.
    """
    statements = max(length // 8, 3 * NAMES // (3 * max(rows - SHORT_ROWS, 1))) + 1
    codes = list(map(_functions(seed), [1 if number < SHORT_ROWS else statements for number in range(rows)]))
    # Which rows are held out is a matter of their hashes: those that give way to another's code stay on their side.
    first: dict[int, str] = {}
    for number in range(SHORT_ROWS, rows - -(-NAMES // statements)):
        codes[number] = first.setdefault(content_key(codes[number]) * REPEATED >> 64, codes[number])
    _write_codes(path, codes)


def write_varied(path: str | os.PathLike[str], rows: int, seed: int, length: int) -> None:
    """Write rows of all lengths up to ``length`` tokens and nodes, most of them short; else as `write_longest`."""
    chance = random.Random(seed)
    counts = [1 + round(chance.random() ** 4 * length / 20) for _ in range(rows)]
    _write_codes(path, list(map(_functions(seed), counts)))


def _functions(seed: int) -> Callable[[int], str]:
    """Makes functions of so many statements; one has 8 nodes, at least 10 tokens, and 3 names."""
    chance = random.Random(seed)
    names = itertools.cycle(["".join(chance.choices(string.ascii_lowercase, k=6)) for _ in range(NAMES)])

    def name() -> str:
        return next(names)

    def function(statements: int) -> str:
        lines = [f"    {name()} = {name()} + {name()}" for _ in range(statements)]
        return "\n".join([f"def {name()}({name()}, {name()}):", *lines, f"    return {name()}"])

    return function


def _write_codes(path: str | os.PathLike[str], codes: Sequence[str]) -> None:
    labels: dict[str, int] = {}
    rows = [{"code": code, "label": labels.setdefault(code, len(labels) % 2)} for code in codes]
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
