"""Rows of code for trying a program out: short ones, longest ones, and some of all lengths."""

from __future__ import annotations

import itertools
import json
import os
import random
import string
from collections.abc import Sequence
from pathlib import Path

from trainers.code.misuse import NOT_LIBRARY, SHORTEST_CODE, functions, source_files, standard_library, twins

SHORT_ROWS = 16
"""Rows of `write_longest` that are short."""
NAMES = 25_000
"""Different names in `write_longest`."""


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
    whole standard library. The first rows are short, for a program wants some that fit. The same seed makes the
    same bytes.

    Args:
        path: file to write.
        rows: how many rows.
        seed: decides the names.
        length: tokens and nodes that a row has at least.
    """
    statements = max(length // 8, 3 * NAMES // (3 * max(rows - SHORT_ROWS, 1))) + 1
    _write_statements(path, [1 if number < SHORT_ROWS else statements for number in range(rows)], seed)


def write_varied(path: str | os.PathLike[str], rows: int, seed: int, length: int) -> None:
    """Write rows of all lengths up to ``length`` tokens and nodes, most of them short; else as `write_longest`."""
    chance = random.Random(seed)
    _write_statements(path, [1 + round(chance.random() ** 4 * length / 20) for _ in range(rows)], seed)


def _write_statements(path: str | os.PathLike[str], counts: Sequence[int], seed: int) -> None:
    """Write functions of so many statements each; one has 8 nodes, at least 10 tokens, and 3 names."""
    chance = random.Random(seed)
    pool = ["".join(chance.choices(string.ascii_lowercase, k=6)) for _ in range(NAMES)]
    names = itertools.cycle(pool)

    def name() -> str:
        return next(names)

    def function(statements: int) -> str:
        lines = [f"    {name()} = {name()} + {name()}" for _ in range(statements)]
        return "\n".join([f"def {name()}({name()}, {name()}):", *lines, f"    return {name()}"])

    codes = map(function, counts)
    lines = [json.dumps({"code": code, "label": number % 2}) + "\n" for number, code in enumerate(codes)]
    Path(path).write_text("".join(lines), encoding="utf-8")
