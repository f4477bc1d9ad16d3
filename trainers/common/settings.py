"""Settings: one typed, range-checked model a program, filled from a TOML or JSON file and from flags.

Nothing here imports torch: a wrong value is rejected in a fraction of a second, together with all the other
wrong values.
"""

from __future__ import annotations

import argparse
import copy
import difflib
import json
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import annotated_types
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from trainers.common.errors import InputError, reason, show

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Strict(BaseModel):
    """Settings that take nothing for what it is not."""

    # Strict: "8", 8.0 and True are no whole numbers. A wrong type is a mistake to show, not one to guess
    # away.
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class TrainingSettings(Strict):
    """What any program is told that trains by optimizer steps. Times are seconds."""

    seed: int = Field(42, ge=0, le=2**32 - 1, description="seed of weights, dropout and order of rows")
    max_epochs: int = Field(2, ge=1, le=10_000, description="passes over the training rows")
    max_steps: int | None = Field(
        None,
        ge=1,
        le=100_000_000,
        description="end after this many optimizer steps on this data, whatever max_epochs says",
    )
    warmup_steps: int = Field(100, ge=0, le=10_000_000, description="steps in which the learning rate rises linearly")
    decay_steps: int | None = Field(
        None,
        ge=1,
        le=100_000_000,
        description="step at which the learning rate has fallen to a tenth, where it stays; left out: the "
        "last step of max_epochs. Never max_steps, so that a run in two halves equals the run in one",
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's weight decay, on matrices only")
    max_gradient_norm: float = Field(1.0, gt=0, le=1000, description="gradients are clipped to this norm")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is one, else the CPU")
    num_workers: int = Field(0, ge=0, le=256, description="processes that prepare batches; 0: the program itself")
    hang_timeout: float = Field(600.0, gt=0, le=86_400, description="seconds in which a step must end")
    eval_every: int = Field(500, ge=1, le=100_000_000, description="steps between two validations")
    save_every: int = Field(500, ge=1, le=100_000_000, description="steps between two checkpoints")
    log_every: int = Field(10, ge=1, le=100_000_000, description="steps between two training records in metrics.jsonl")
    keep_last: int = Field(3, ge=1, le=10_000, description="newest checkpoints that are kept, beside the best")
    divergence_factor: float = Field(
        2.0,
        gt=1,
        le=1000,
        description="stop when the smoothed loss exceeds its best (or chance) this many times",
    )
    collapse_window: int = Field(5, ge=1, le=1000, description="steps that are judged together for a collapse")
    collapse_patience: int = Field(3, ge=1, le=1000, description="stop when so many windows in a row show a collapse")
    vanishing_norm: float = Field(1e-7, ge=0, le=1, description="gradient norms under this have vanished")
    exploding_norm: float = Field(100.0, gt=0, le=1e9, description="gradient norms over this explode")


Model = TypeVar("Model", bound=BaseModel)


def with_default(model: type[BaseModel], name: str, default: Any) -> Any:
    """A field of another model, for a model that inherits it, with another default."""
    field = copy.copy(model.model_fields[name])
    field.default = default
    return field


def check(model: type[Model], values: Mapping[str, Any]) -> Model:
    """The settings that ``values`` make, every field checked.

    Raises:
        InputError: one line for each wrong field, naming field, value and range.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(*dict.fromkeys(_line(model, fault) for fault in error.errors())) from None


def _line(model: type[BaseModel], fault: Any) -> str:
    if not fault["loc"]:  # a check over several fields
        return str(fault["ctx"]["error"])
    name, value = fault["loc"][0], fault["input"]
    field = model.model_fields.get(str(name))
    if field is None:
        near = difflib.get_close_matches(str(name).replace("-", "_"), model.model_fields, n=1, cutoff=0.5)
        return f"unknown setting {show(str(name))}" + (f"; did you mean {near[0]}?" if near else "")
    return f"{name} = {_shown(value)} is not {expectation(field)}"


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):  # no JSON type, or a number of over 4,300 digits
        text = f"a {type(value).__name__}" if isinstance(value, int) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def expectation(field: FieldInfo) -> str:
    """The values that a field takes, in words: ``a whole number from 1 to 4096``."""
    kinds = _kinds(field)
    if typing.get_origin(kinds[0]) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kinds[0])))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kinds[0], "valid")
    limits = {type(limit): limit for limit in field.metadata}
    low, over = limits.get(annotated_types.Ge), limits.get(annotated_types.Gt)
    high, under = limits.get(annotated_types.Le), limits.get(annotated_types.Lt)
    lower = f" from {low.ge}" if low else f" over {over.gt}" if over else ""
    joint = " to" if low else " and up to"
    upper = f"{joint} {high.le}" if high else f"{joint} below {under.lt}" if under else ""
    return words + lower + upper


def _kinds(field: FieldInfo) -> list[Any]:
    """A field's type, or the members of its union without None."""
    if typing.get_origin(field.annotation) in (typing.Union, types.UnionType):
        return [kind for kind in typing.get_args(field.annotation) if kind is not type(None)]
    return [field.annotation]


def read_file(path: str | Path) -> dict[str, Any]:
    """The values in a ``.toml`` or ``.json`` file.

    Raises:
        InputError: the file is missing, unreadable or no such file; bad syntax is named with its line and
            column.
    """
    path, name = Path(path), show(path)
    if path.suffix.lower() not in (".toml", ".json"):
        raise InputError(f"settings file {name}: the suffix must be .toml or .json")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"settings file {name}: {reason(error)}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"settings file {name}: not UTF-8 at byte {error.start}") from None
    except ValueError as error:  # a NUL in the name
        raise InputError(f"settings file {name}: {error}") from None
    try:
        values = _parse_toml(text) if path.suffix.lower() == ".toml" else _parse_json(text)
    except _BadSyntax as error:
        raise InputError(f"settings file {name}, {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"settings file {name}: must hold an object of settings, not {_shown(values)}")
    return values


class _BadSyntax(Exception):
    def __init__(self, text: str, position: int, message: str) -> None:
        line = text.count("\n", 0, position) + 1
        column = position - (text.rfind("\n", 0, position) + 1) + 1
        super().__init__(f"line {line}, column {column}: {message}")


def _parse_json(text: str) -> Any:
    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, _ in pairs:
            if sum(name == other for other, _ in pairs) > 1:
                raise _BadSyntax(text, max(text.rfind(json.dumps(name)), 0), f"{name} is set twice")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=no_repeats)
    except json.JSONDecodeError as error:
        raise _BadSyntax(text, error.pos, f"bad JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number of over 4,300 digits; nested too deep
        raise _BadSyntax(text, 0, f"bad JSON: {error}") from None


def _parse_toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, where = str(error).rpartition(" (at ")
        place = where.rstrip(")").replace("line ", "").split(", column ")
        if len(place) != 2:  # "at end of document"
            raise _BadSyntax(text, len(text), f"bad TOML: {message}") from None
        start = sum(len(line) + 1 for line in text.replace("\r\n", "\n").split("\n")[: int(place[0]) - 1])
        raise _BadSyntax(text.replace("\r\n", "\n"), start + int(place[1]) - 1, f"bad TOML: {message}") from None
    except (ValueError, RecursionError) as error:
        raise _BadSyntax(text, 0, f"bad TOML: {error}") from None


def add_flags(parser: argparse._ActionsContainer, model: type[BaseModel]) -> None:
    """One flag for each field of ``model``: ``learning_rate`` becomes ``--learning-rate``.

    A flag that is not given leaves nothing in the namespace, so that the settings file's value stands.
    """
    for name, field in model.model_fields.items():
        default = "" if field.default is None else f"; default {field.default}"
        text = f"{field.description} ({expectation(field)}{default})".replace("%", "%%")
        flag = "--" + name.replace("_", "-")
        if _kinds(field) == [bool]:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            parser.add_argument(flag, metavar="VALUE", default=argparse.SUPPRESS, help=text)


def from_flags(model: type[BaseModel], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``model`` among parsed flags, as numbers where they are; `check` does the rest."""
    return {name: _number(model.model_fields[name], flags[name]) for name in _common(flags, model.model_fields)}


def _common(first: Iterable[str], second: Iterable[str]) -> list[str]:
    wanted = set(second)
    return [name for name in first if name in wanted]


def _number(field: FieldInfo, value: Any) -> Any:
    for kind in _kinds(field):
        if kind in (int, float) and isinstance(value, str):
            try:
                return kind(value)
            except ValueError:
                return value
    return value
