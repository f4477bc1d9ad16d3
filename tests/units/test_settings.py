"""Settings: their fields, types and ranges read from what people write, merged, built, and which plays which role."""

import dataclasses
import enum
from typing import Annotated, Literal

import annotated_types
import pydantic
import pytest

from pytest_trainguard.contract import settings


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Inner(pydantic.BaseModel):
    width: Annotated[int, pydantic.Field(ge=1, multiple_of=8)] = 8


class Model(pydantic.BaseModel):
    batch_size: int = pydantic.Field(8, ge=1, le=128)
    lr: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] = 0.1
    limit: Annotated[int, annotated_types.Interval(ge=2, le=5)] | None = None
    maybe: Annotated[float | None, pydantic.Field(ge=0)] = None
    flag: bool = False
    name: str = "x"
    mode: Literal["a", "b"] = "a"
    color: Color = Color.RED
    inner: Inner = Inner()
    either: int | str = 3
    items: list[int] = pydantic.Field(default_factory=list)


@dataclasses.dataclass
class Part:
    depth: Annotated[int, annotated_types.Ge(1)] = 2


@dataclasses.dataclass
class Data:
    batch_size: int = dataclasses.field(default=8, metadata={"ge": 1, "le": 128, "help": "rows"})
    lr: Annotated[float, annotated_types.Gt(0)] = 0.1
    width: Annotated[int, pydantic.Field(ge=4)] = 8
    part: Part = dataclasses.field(default_factory=Part)
    needed: str = dataclasses.field(kw_only=True)


def by_path(config):
    return {field.path: field for field in settings.fields_of(config)}


def test_fields_of_a_pydantic_model():
    found = by_path(Model)
    assert list(found) == [
        "batch_size", "lr", "limit", "maybe", "flag", "name", "mode", "color", "inner.width", "either", "items",
    ]  # fmt: skip
    kinds = "int float int float bool str choice choice int other other"
    assert [field.kind for field in found.values()] == kinds.split()
    assert found["batch_size"].bounds == {"ge": 1, "le": 128}
    assert found["batch_size"].range == "1 ≤ value ≤ 128"
    assert found["lr"].bounds == {"gt": 0, "lt": 1}
    assert found["lr"].range == "0 < value < 1"
    assert found["limit"].bounds == {"ge": 2, "le": 5}
    assert found["limit"].optional
    assert found["maybe"].bounds == {"ge": 0}
    assert found["maybe"].optional
    assert not found["batch_size"].optional
    assert found["mode"].choices == ("a", "b")
    assert found["mode"].range == "one of 'a', 'b'"
    assert found["color"].choices == ("red", "blue")
    assert found["inner.width"].bounds == {"ge": 1, "multiple_of": 8}
    assert found["name"].range == ""
    assert found["batch_size"].default == 8
    assert found["items"].default is None


def test_fields_of_a_dataclass():
    found = by_path(Data)
    assert list(found) == ["batch_size", "lr", "width", "part.depth", "needed"]
    assert found["batch_size"].bounds == {"ge": 1, "le": 128}
    assert found["lr"].bounds == {"gt": 0}
    assert found["width"].bounds == {"ge": 4}
    assert found["part.depth"].bounds == {"ge": 1}
    assert found["needed"].kind == "str"


def test_fields_of_a_mapping():
    found = by_path({"batch_size": 8, "on": True, "data": {"lr": 0.1, "names": ["a"]}, "name": "x", "none": None})
    assert {path: field.kind for path, field in found.items()} == {
        "batch_size": "int", "on": "bool", "data.lr": "float", "data.names": "other", "name": "str", "none": "other",
    }  # fmt: skip
    assert all(field.range == "" for field in found.values())
    assert settings.fields_of(None) == []
    assert settings.fields_of({}) == []


def test_settings_are_built():
    built = settings.build(Data, {"lr": 0.5, "part": {"depth": 7}, "needed": "x"})
    assert built == Data(lr=0.5, part=Part(7), needed="x")
    assert settings.build(Model, {"inner": {"width": 16}}).inner.width == 16
    assert settings.build({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}}) == {"a": 1, "b": {"c": 4, "d": 3}}
    assert settings.build(None, {"a": 1}) == {"a": 1}
    with pytest.raises(pydantic.ValidationError):
        settings.build(Model, {"batch_size": 0})
    with pytest.raises(TypeError, match="unknown"):
        settings.build(Data, {"unknown": 1})


def test_settings_are_merged():
    base = {"a": 1, "b": {"c": 2, "d": 3}}
    assert settings.merge(base, {"b.c": 4, "e.f.g": 5, "a": {"h": 6}}) == {
        "a": {"h": 6}, "b": {"c": 4, "d": 3}, "e": {"f": {"g": 5}},
    }  # fmt: skip
    assert base == {"a": 1, "b": {"c": 2, "d": 3}}, "not changed"


def test_roles():
    fields = settings.fields_of({"optim": {"lr": 0.1}, "data": {"bs": 4, "batch_size": 8}})
    assert settings.role("learning_rate", fields, {}).path == "optim.lr"
    assert settings.role("batch_size", fields, {}).path == "data.batch_size"
    assert settings.role("batch_size", fields, {"batch_size": "data.bs"}).path == "data.bs"
    assert settings.role("batch_size", fields, {"batch_size": "bs"}) is None, "a name that is told is the whole of it"
    assert settings.role("workers", fields, {}) is None


def test_ranges_are_read_in_the_spellings_that_people_use():
    import attrs

    @dataclasses.dataclass
    class Stated:
        a: int = dataclasses.field(default=1, metadata={"min": 1, "max": 8})
        b: float = dataclasses.field(default=0.5, metadata={"bounds": (0.0, 1.0)})
        c: float = dataclasses.field(default=0.5, metadata={"exclusive_minimum": 0, "upper": 2})
        d: str = dataclasses.field(default="x", metadata={"choices": ["x", "y"]})

    @attrs.define
    class Validated:
        a: int = attrs.field(default=1, validator=attrs.validators.and_(attrs.validators.ge(1), attrs.validators.lt(9)))
        d: str = attrs.field(default="x", validator=attrs.validators.in_(["x", "y"]))

    stated = {field.path: field for field in settings.fields_of(Stated)}
    assert stated["a"].bounds == {"ge": 1, "le": 8}
    assert stated["b"].bounds == {"ge": 0.0, "le": 1.0}
    assert stated["c"].bounds == {"gt": 0, "le": 2}
    assert (stated["d"].kind, stated["d"].choices) == ("choice", ("x", "y"))
    validated = {field.path: field for field in settings.fields_of(Validated)}
    assert validated["a"].bounds == {"ge": 1, "lt": 9}
    assert (validated["d"].kind, validated["d"].choices) == ("choice", ("x", "y"))
