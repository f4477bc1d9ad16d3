"""What a message must name, and whether it does: words, lines, numbers, in every way that programs write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trainguard.contract.outcome import Outcome


__all__ = ["Named", "Wording", "describe", "field_name", "line", "names", "number", "unusual"]


@dataclass(frozen=True)
class Wording:
    """Something that a message may name in more ways than one.

    Attributes:
        said: what it is called in a finding: "its message does not name ...".
        pattern: every way of naming it.
    """

    said: str
    pattern: re.Pattern[str]


Named = str | tuple[str, ...] | re.Pattern[str] | Wording


def field_name(name: str) -> Wording:
    """The name of a field or a setting, as a word of its own: a field `y` is not named by every message with a y in it.

    Words may be joined in another way: `batch_size` is also named by `--batch-size` and by `batch size`.
    """
    joined = "[-_ ]".join(re.escape(part) for part in re.split("[-_ ]", name))
    return Wording(repr(name), re.compile(rf"(?<!\w){joined}(?!\w)", re.I))


def line(number: int, file: str, *also: int) -> Wording:
    """A line of a file, as programs count it: `line 3`, `row 3`, `record 2` (from 0), `rows.jsonl:3`.

    Args:
        number: the line, counted from 1.
        file: the file's name.
        also: other numbers that the line may rightly be given, as where a row has several lines.
    """
    numbers = {number, *also}
    lines = "|".join(map(str, sorted(numbers)))
    counted = "|".join(map(str, sorted(numbers | {one - 1 for one in numbers})))
    ways = (
        rf"\blines?\W{{0,4}}(?:{lines})\b",
        rf"\b(?:row|record|example|entry|sample|item|index)s?\W{{0,4}}(?:{counted})\b",
        rf"{re.escape(file)}\W{{1,3}}(?:{lines})\b",
    )
    return Wording(f"line {number}", re.compile("|".join(ways), re.I))


def number(value: int, of: str = "", in_words: str = "") -> Wording:
    """A whole number that stands by itself, and not in a path or in another number; or its words.

    Args:
        value: the number.
        of: what it is of, for the finding: "the batch size".
        in_words: a pattern of words that name it as well: "one|a single".
    """
    alone = rf"(?<![\w./-]){value}(?![\w/-]|\.\d)"
    words = rf"|\b(?:{in_words})\b" if in_words else ""
    return Wording(f"{of} ({value})" if of else str(value), re.compile(alone + words, re.I))


def unusual(outcome: Outcome, reference: Outcome) -> str:
    """What a run printed that the undisturbed one did not."""
    usual = set(reference.message.splitlines())
    return "\n".join(line for line in outcome.message.splitlines() if line not in usual)


def names(message: str, wanted: Named) -> bool:
    """Whether a message names something; upper and lower case alike."""
    if isinstance(wanted, Wording):
        return wanted.pattern.search(message) is not None
    if isinstance(wanted, re.Pattern):
        return wanted.search(message) is not None
    texts = wanted if isinstance(wanted, tuple) else (wanted,)
    return any(text.lower() in message.lower() for text in texts)


def describe(wanted: Named) -> str:
    """What a finding calls something that a message does not name."""
    if isinstance(wanted, Wording):
        return wanted.said
    if isinstance(wanted, re.Pattern):
        return wanted.pattern
    return repr(wanted) if isinstance(wanted, str) else " or ".join(map(repr, dict.fromkeys(wanted)))
