"""The settings of the ini file. Each is read as a text, a number or a list, whichever a team wrote.

An ini file and `[tool.pytest.ini_options]` know texts and lists alone; the native `[tool.pytest]` of pytest 9 has
types, and pytest refuses what is not of the registered one. `60` and `"60"` are both sixty seconds.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import pytest

Kind = Literal["string", "float", "linelist", "bool"]
KINDS: tuple[Kind, ...] = ("string", "float")  # tried where a value is not of the setting's own
NUMBER: Kind = "float" if pytest.version_tuple >= (8, 4) else "string"  # pytest 8.2 knows no numbers


class Setting(NamedTuple):
    """One setting, as pytest registers it."""

    help: str
    kind: Kind
    default: Any


SETTINGS = {
    "trainguard_trainers": Setting("training programs to put through a preflight, as 'module:Class'", "linelist", []),
    "trainguard_bar": Setting(
        "the mildest grade that is NO-GO: loses, misleads, wastes (default) or unclear", "string", "wastes"
    ),
    "trainguard_strict": Setting("as --trainguard-strict", "bool", False),
    "trainguard_timeout": Setting(
        "seconds that one run of a trainer may take before the harness ends it (default: 60)", NUMBER, 60.0
    ),
    "trainguard_gpu_headroom": Setting(
        "share of --gpu-budget that a job should leave free (default: 10%)", "string", "10%"
    ),
    "trainguard_network": Setting(
        "hosts that runs may reach, or 'allow' for every one (default: none, nor this machine's other services)",
        "linelist",
        [],
    ),
    "trainguard_keep": Setting(
        "environment variables, by name or pattern, and files that runs have although they are taken for secrets",
        "linelist",
        [],
    ),
    "trainguard_writable": Setting(
        "folders, from the project's root, that runs write to for real: a cache of the team's own", "linelist", []
    ),
    "trainguard_isolation": Setting(
        "what keeps runs from the world: namespaces (default), or hooks where those stand in a program's way",
        "string",
        "namespaces",
    ),
}


def register(parser: pytest.Parser) -> None:
    """Have pytest know the settings."""
    for name, setting in SETTINGS.items():
        parser.addini(name, setting.help, type=setting.kind, default=setting.default)


def read_text(config: pytest.Config, name: str) -> str:
    """A setting that is one text; a number as it is written.

    Raises:
        pytest.UsageError: it is neither.
    """
    return str(_read(config, name))


def read_list(config: pytest.Config, name: str) -> list[str]:
    """A setting that is a list; a text as its lines.

    Raises:
        pytest.UsageError: it is neither.
    """
    value = _read(config, name)
    return [str(each) for each in value] if isinstance(value, list) else str(value).split("\n")


def read_flag(config: pytest.Config, name: str) -> bool:
    """A setting that is true or false.

    Raises:
        pytest.UsageError: it is neither.
    """
    value = _read(config, name)
    if isinstance(value, bool):
        return value
    raise pytest.UsageError(f"{name}: {value!r} is neither true nor false")


def read_seconds(config: pytest.Config, name: str) -> float:
    """A setting that is a time, in seconds.

    Raises:
        pytest.UsageError: it is no number, or not above 0.
    """
    value = _read(config, name)
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise pytest.UsageError(f"{name}: {value!r} is no number of seconds above 0")
    return seconds


def _read(config: pytest.Config, name: str) -> Any:
    """A setting as its own kind, or as another."""
    setting = SETTINGS[name]
    for kind in (setting.kind, *KINDS):
        config._parser.addini(name, setting.help, type=kind, default=setting.default)
        try:
            return config.getini(name)
        except (TypeError, ValueError, pytest.UsageError):  # which, depends on pytest's version
            continue
    raise pytest.UsageError(f"{name}: a text, a number or a list of texts is wanted")
