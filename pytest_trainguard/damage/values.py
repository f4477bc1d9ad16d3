"""Values that do not belong where they are put: empty ones, unknown ones, those of another type, very long ones."""

from __future__ import annotations

import json
import re
from typing import Any

from pytest_trainguard.damage.fields import Place, field_of, get

FAR_OUTSIDE = 1000  # over the largest label
VOCABULARIES = {"role", "from", "speaker", "label", "labels", "class", "category", "target", "sentiment"}
TYPES = [  # bool first: it is a number to isinstance
    (bool, ("a bool", "bool|boolean|true|false")),
    (int | float, ("a number", "int|integer|number|float|numeric")),
    (str, ("text", "str|string|text")),
    (dict, ("an object", "dict|object|mapping")),
    (list, ("an array", "list|array|sequence")),
    (type(None), ("null", "None|null|NoneType")),
]


def repeated(text: str, words: int) -> str:
    """A text again and again, until it has so many words."""
    return "\n".join([text] * -(-words // max(1, len(text.split()))))


def empty(rows: list[Any], place: Place) -> list[tuple[Any, str]]:
    """The ways in which the values at a place can be empty; none where some are so already."""
    values = [get(row, place) for row in rows]
    if any(value in ("", [], {}) or (isinstance(value, str) and not value.strip()) for value in values):
        return []
    if all(isinstance(value, str) for value in values):
        return [("", "empty"), ("   ", "three blanks")]
    if all(isinstance(value, list) for value in values):
        return [([], "an empty list")]
    return [({}, "an empty object")] if all(isinstance(value, dict) for value in values) else []


def strangers(place: Place, rows: list[Any]) -> list[Any]:
    """Values outside the vocabulary of a place; none where it has no vocabulary."""
    values = [get(row, place) for row in rows]
    different = {json.dumps(value) for value in values}
    if len(different) > max(2, len(values) // 4) or len(values) < 4:
        return []
    kind = type(values[0])
    if kind in (int, str) and all(type(v) is kind and re.fullmatch(r"-?\d+", str(v)) for v in values):
        numbers = list(map(int, values))
        return [kind(max(numbers) + FAR_OUTSIDE), *([kind(-1)] if min(numbers) >= 0 else [])]
    is_named = field_of(place).lower() in VOCABULARIES
    return ["unheard-of"] if is_named and all(isinstance(value, str) for value in values) else []


def type_of(value: Any) -> tuple[str, str]:
    """What JSON calls a value, with its article, and a pattern of what messages call its type."""
    return next(words for kinds, words in TYPES if isinstance(value, kinds))


def of_other_types(values: list[Any], *, text_only: bool) -> list[Any]:
    """Values of other types than those at a place."""
    present = {type_of(value)[0] for value in values}
    if text_only:
        return ["one"] if all(re.fullmatch(r"-?[\d.]+", value) for value in values) else []
    if present - {"null"} == {"a bool"}:
        return []
    return [value for value in (12, "one", {"a": 1}, ["a"], None, True) if type_of(value)[0] not in present]
