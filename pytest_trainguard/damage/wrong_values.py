"""Values that do not belong where they are put: empty ones, unknown ones, those of another type, very long ones."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from pytest_trainguard.damage.row_values import Place, field_of_place, value_at
from pytest_trainguard.rows.codec import Row

__all__ = ["describe_type", "empty_values", "repeat_words", "unknown_values", "values_of_other_types", "whole_number"]

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


def repeat_words(text: str, words: int) -> str:
    """A text again and again, until it has so many words."""
    return "\n".join([text] * -(-words // max(1, len(text.split()))))


def empty_values(rows: Sequence[Row], place: Place) -> list[tuple[object, str]]:
    """The ways in which the values at a place can be empty, each with its name in words.

    None where some are empty as they are, and where they are neither all text, nor all lists, nor all objects.
    """
    values = [value_at(row, place) for row in rows]
    if any(value in ("", [], {}) or (isinstance(value, str) and not value.strip()) for value in values):
        return []
    if all(isinstance(value, str) for value in values):
        return [("", "empty"), ("   ", "three blanks")]
    if all(isinstance(value, list) for value in values):
        return [([], "an empty list")]
    return [({}, "an empty object")] if all(isinstance(value, dict) for value in values) else []


def whole_number(value: object, kind: type[int] | type[float]) -> object:
    """The whole number nearest to a number, or a list with its first number so; with a point where `kind` is float."""
    if isinstance(value, list):
        return [whole_number(value[0], kind), *value[1:]]
    assert isinstance(value, int | float)
    return kind(round(value))


def unknown_values(rows: Sequence[Row], place: Place, labels: str | None = None) -> list[object]:
    """Values outside the vocabulary of a place; none where it has no vocabulary.

    `labels` is the field that the trainer says is to be learnt.
    """
    values = [value_at(row, place) for row in rows]
    different = {json.dumps(value) for value in values}
    if len(different) > max(2, len(values) // 4) or len(values) < 4:
        return []
    for kind in (int, str):
        if all(type(value) is kind and re.fullmatch(r"-?\d+", str(value)) for value in values):
            numbers = [int(str(value)) for value in values]
            return [kind(max(numbers) + FAR_OUTSIDE), *([kind(-1)] if min(numbers) >= 0 else [])]
    field = field_of_place(place)
    is_few = 4 * len(set(map(str, values))) <= len(values)  # else it is text that is to be said
    is_named = field.lower() in VOCABULARIES or (field == labels and is_few)
    return ["unheard-of"] if is_named and all(isinstance(value, str) for value in values) else []


def describe_type(value: object) -> tuple[str, str]:
    """What JSON calls a value, with its article, and a pattern of what messages call its type."""
    return next(words for kinds, words in TYPES if isinstance(value, kinds))


def values_of_other_types(values: Sequence[object], *, text_only: bool) -> list[object]:
    """Values of other types than those at a place.

    Args:
        values: those that stand there.
        text_only: the form holds nothing but text, so that a number alone can be of a wrong type.
    """
    present = {describe_type(value)[0] for value in values}
    if text_only:
        return ["one"] if all(re.fullmatch(r"-?[\d.]+", str(value)) for value in values) else []
    if present - {"null"} == {"a bool"}:
        return []
    others: list[object] = [12, "one", {"a": 1}, ["a"], None, True]
    return [value for value in others if describe_type(value)[0] not in present]
