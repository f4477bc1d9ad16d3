"""What is known of the settings of a program with a command line: of its table, settings file and `--help`."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_trainguard.adapters.help_text import Help, Option, read_help
from pytest_trainguard.adapters.options import form_of, leaves
from pytest_trainguard.adapters.settings_files import read_settings
from pytest_trainguard.contract import settings
from pytest_trainguard.contract.nearest import did_you_mean, nearest
from pytest_trainguard.contract.settings import Field

HELP = "help_text"  # the key under which a table bears what the program said; no team writes it
RUNS_OWN = ("config", "data", "output_dir", "max_steps", "resume_from", "seed", "epochs")
PLACEHOLDERS = (*RUNS_OWN, "settings", "resume")
ALIKE = 0.82  # of the names of two settings: `hiden` and `hidden` are, `lr_min` and `lr_max` are not
PLACE = re.compile(r"\{(\w[\w.]*)\}|\{\}")
_FIXED = re.compile(r"(?:--?)?([A-Za-z][\w.\-]*)(?:=.*)?$", re.DOTALL)


@dataclass(frozen=True)
class Known:
    """What is known of a program's settings.

    Attributes:
        fields: the settings, with their defaults.
        options: of its command line, where it has told them.
        form: how settings are given as words; None where nobody said, and its `--help` does not tell.
        told: whether its `--help` said the form, and not the table.
        defaults: the values of its settings file.
    """

    fields: tuple[Field, ...]
    options: tuple[Option, ...]
    form: str | None
    told: bool
    defaults: Mapping[str, object] | None

    def find(self, name: str, roles: Mapping[str, str]) -> Field | None:
        """A setting by its own name, by another name of its option, or by the role that it plays."""
        path = self.paths.get(name, name)
        own = next((field for field in self.fields if field.path == path), None)
        return own or settings.role(name, self.fields, roles)

    @property
    def paths(self) -> Mapping[str, str]:
        """The path of the setting that each name of an option stands for."""
        return {name: option.field.path for option in self.options for name in option.names}


def places_in(command: str) -> list[str]:
    """The names of a command's placeholders; empty for `{}`."""
    return [found[1] or "" for found in PLACE.finditer(command)]


def counts_epochs(table: Mapping[str, Any]) -> bool:
    """Whether a program's runs are bounded by a number of epochs, which `{epochs}` then is."""
    places = places_in(table["command"])
    return "epochs" in places and ("max_steps" not in places or "steps_per_epoch" in table)


def needs_help(table: Mapping[str, Any], root: Path = Path()) -> bool:
    """Whether a program is to be asked for its `--help`: its settings are words that the table does not tell of."""
    places = [place for place in places_in(table["command"]) if place not in (*RUNS_OWN, "resume")]
    if "settings" in places or not places:
        return bool(places)
    try:
        known = read_known(table, root)
    except (OSError, ValueError):
        return False  # the trainer itself says so, when it is loaded
    return any(known.find(place, table.get("fields", {})) is None for place in places)


def help_command(command: str) -> list[str]:
    """The words that ask a program for its help: its command's own, without placeholders and their options."""
    words: list[str] = []
    for word in shlex.split(command):
        if not PLACE.search(word):
            words.append(word)
        elif word.startswith("{") and len(words) > 1 and words[-1].startswith("-"):
            words.pop()
    return [*words, "--help"]


def read_known(table: Mapping[str, Any], root: Path = Path()) -> Known:
    """What is known of the settings of the program that a table tells of.

    Args:
        table: with what the program's `--help` said, where it was asked.
        root: the folder in which the path of a settings file starts.

    Raises:
        OSError, ValueError: the settings file cannot be read.
    """
    told = read_help(table[HELP]) if HELP in table else Help()
    defaults = read_settings(root / table["settings"]) if table.get("settings") else None
    given = _given_in(table)
    options = tuple(option for option in told.options if not given.intersection(option.names))
    fields = {field.path: field for field in (*told.fields, *(option.field for option in options))}
    fields = {path: field for path, field in fields.items() if path not in given}
    aliases = {name: option.field.path for option in options for name in option.names}
    for field in settings.fields_of(defaults) if defaults else ():
        _take_in(fields, aliases.get(field.path, field.path), field)
    for values in (table.get("production", {}), table.get("tiny", {}), table.get("overfit", {})):
        for path, value in leaves(values):
            (field,) = settings.fields_of({path: value})
            _take_in(fields, aliases.get(path, path), dataclasses.replace(field, default=None))
    form = table.get("settings_form")
    return Known(tuple(fields.values()), options, form or form_of(told), form is None, defaults)


def _take_in(fields: dict[str, Field], path: str, field: Field) -> None:
    """Add what a value says of a setting to what is known of it."""
    there = fields.get(path)
    if there is None:
        fields[path] = field
        return
    kind = field.kind if there.kind == "other" else there.kind
    default = there.default if field.default is None else field.default
    fields[path] = dataclasses.replace(there, kind=kind, default=default)


def _given_in(table: Mapping[str, Any]) -> set[str]:
    """The names of the options that a command gives itself, and not as a setting's own: no run gives them again."""
    own = [place for place in RUNS_OWN if place != "epochs" or counts_epochs(table)]
    found = set()
    for words in map(shlex.split, (table["command"], table.get("resume", ""))):
        for word, following in zip(words, [*words, ""][1:], strict=True):
            name = _FIXED.match(word)
            if not name or not (word.startswith("-") or "=" in word):
                continue
            places = places_in(word if "=" in word else following if following.startswith("{") else "")
            if all(place in (*own, "settings", "resume") for place in places):
                found.add(name[1].replace("-", "_"))
    return found


def describe_known(known: Known) -> str:
    """How a program is given its settings, and what is known of them, in a few words."""
    form = f"as {known.form}" if known.form else "each in a place of its own"
    return f"its settings are given {form}{' (by its --help)' if known.told else ''}; {len(known.fields)} are known"


def faults_in_known(table: Mapping[str, Any], known: Known) -> str | None:
    """What is wrong with a table, now that the program's settings are known, in one line; None where nothing is."""
    names = [*(field.path for field in known.fields), *(name for option in known.options for name in option.names)]
    roles = table.get("fields", {})
    wrong = unknown_settings(roles, names)
    if wrong:
        return wrong
    told = read_help(table.get(HELP, "")).options
    for key in ("production", "tiny", "overfit") if known.options else ():
        for name in table.get(key, {}):
            meant = nearest(name, [name for option in told for name in option.names], ALIKE)
            if meant and meant != name:
                return f"{key}: its --help tells of no {name!r}; did you mean {meant!r}?"
    for place in places_in(table["command"]):
        if place not in PLACEHOLDERS and known.find(place, roles) is None:
            meant = did_you_mean(place, [*PLACEHOLDERS, *names])
            return f"command has an unknown placeholder {{{place}}}: no setting has that name{meant}"
    if "settings" in places_in(table["command"]) and known.form is None:
        return (
            "its --help does not tell how settings are given: say it, "
            'settings_form = "--key=value" ("--key value", "key=value")'
        )
    return None


def unknown_settings(roles: Mapping[str, str], names: Iterable[str]) -> str | None:
    """What is wrong with the settings that `fields` names: one that there is not, in one line; None where nothing is.

    An empty name says that no setting plays the role.
    """
    known: Sequence[str] = list(names)
    for role, path in roles.items():
        if path and path not in known:
            return f"fields: {role} is {path!r}, and there is no such setting{did_you_mean(path, known)}"
    return None


def unknown_roles(roles: Mapping[str, object]) -> str | None:
    """What is wrong with the roles that `fields` names, in one line; None where nothing is."""
    for role, path in roles.items():
        if role not in settings.ROLES:
            return f"fields: no case knows a role {role!r}{did_you_mean(role, settings.ROLES)}"
        if not isinstance(path, str):
            return f"fields: {role} is {path!r}, not the name of a setting"
    return None
