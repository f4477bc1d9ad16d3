"""Settings files in JSON, TOML and YAML: read and written in the form that the suffix names."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

WRITABLE = (".json", ".toml", ".yaml", ".yml")  # forms of a settings file


def read_settings(path: Path) -> dict[str, object]:
    """A settings file in JSON, TOML or YAML.

    Raises:
        OSError: it cannot be read.
        ValueError: it cannot be parsed, is of an unknown kind, or holds no mapping.
    """
    try:
        content = _parsed(path.read_text(encoding="utf-8"), path.suffix)
    except ValueError as error:
        raise ValueError(f"settings {path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"settings {path}: holds no table of names and values")
    return content


def _parsed(text: str, suffix: str) -> object:
    if suffix == ".json":
        return json.loads(text)
    if suffix == ".toml":
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        return tomllib.loads(text)
    if suffix not in (".yaml", ".yml"):
        raise ValueError(f"unknown kind {suffix!r}; known are .json, .toml, .yaml")
    try:
        import yaml
    except ImportError as error:
        raise ValueError("reading YAML needs pytest-trainguard[yaml]") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def write_settings(path: Path, values: Mapping[str, object]) -> None:
    """Write settings in the form that the suffix names."""
    if path.suffix == ".json":
        path.write_text(json.dumps(values))
    elif path.suffix == ".toml":
        import tomli_w

        path.write_text(tomli_w.dumps(_without_none(values)))
    else:
        import yaml

        path.write_text(yaml.safe_dump(dict(values)))


def _without_none(values: Mapping[str, object]) -> dict[str, object]:
    """TOML has no null: a setting that is None is left out."""
    return {
        name: _without_none(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if value is not None
    }
