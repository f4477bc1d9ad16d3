"""The GPU budget: how much memory the job may take, as `--gpu-budget` says it.

Written down with the report today; the cases that predict and measure a step's memory read it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
          "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}  # fmt: skip
# Nominal memory of each card, in GiB, from its maker's data sheet.
CARDS = {"a100-40gb": 40, "a100-80gb": 80, "h100": 80, "h200": 141, "l4": 24, "t4": 16, "rtx4090": 24}


@dataclass(frozen=True)
class Budget:
    """How much GPU memory a job may take: a number of bytes, or a share of the device that is present."""

    text: str
    size: int | None = None
    share: float | None = None


def parse_budget(text: str) -> Budget:
    """Read a budget: a byte count, `40GiB`, `40GB`, `80%`, or a card such as `a100-40gb`.

    Raises:
        ValueError: it is none of these, or not above zero; one line that names it.
    """
    plain = text.strip().lower()
    if plain in CARDS:
        return Budget(text, size=CARDS[plain] * 2**30)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*|%)", plain)
    if match is None or (match[2] != "%" and match[2] not in _UNITS):
        raise ValueError(f"{text!r} is no budget: give bytes, 40GiB, 40GB, 80%, or one of {', '.join(CARDS)}")
    number = float(match[1])
    if number <= 0 or (match[2] == "%" and number > 100):
        raise ValueError(f"{text!r} is no budget: it has to be above 0" + (" and at most 100%" if "%" in plain else ""))
    if match[2] == "%":
        return Budget(text, share=number / 100)
    return Budget(text, size=int(number * _UNITS[match[2]]))
