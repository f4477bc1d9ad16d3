"""A trainer's table, `[tool.trainguard.trainers.NAME]`: its keys, and what is wrong with it before anything runs."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytest_trainguard.adapters.known import (
    PLACE,
    PLACEHOLDERS,
    faults_in_known,
    needs_help,
    places_in,
    read_known,
    unknown_roles,
)
from pytest_trainguard.adapters.launchers import split_variables
from pytest_trainguard.adapters.options import FORMS
from pytest_trainguard.contract import queues, settings
from pytest_trainguard.contract.nearest import did_you_mean, nearest

# Keys that name a function, `module:function`: each takes what the method of `Trainer` takes, but for `self`.
FUNCTIONS = (
    "make_data", "make_longest", "make_varied", "make_model", "checkpoints", "resume_from", "held_out",
    "validation_losses", "best_checkpoint",
)  # fmt: skip
# Keys of other kinds than text.
_KINDS: Mapping[str, tuple[type, ...]] = {
    "production": (Mapping,), "tiny": (Mapping,), "overfit": (Mapping,), "fields": (Mapping,), "queue": (object,),
    "overfit_below": (int, float), "rows": (int,), "steps_per_epoch": (int,),
    "preload": (str, list, tuple), "logs": (str, list, tuple),
}  # fmt: skip
_TEXTS = ("command", "settings", "settings_form", "settings_name", "resume", "sample", "labels")
CLASS = "class"  # `module:Class`: a trainer that Python presents; with it a table holds nothing else
KEYS = (*_TEXTS, *_KINDS, *FUNCTIONS)
_CALLED: Mapping[type, str] = {Mapping: "a table", int: "a number", float: "a number", str: "a text", list: "a list"}


def faults_in(table: Mapping[str, Any], root: Path = Path()) -> str | None:
    """What is wrong with a trainer's table, in one line; None where nothing is.

    Args:
        table: as the team wrote it.
        root: the folder in which the path of its settings file starts.
    """
    for key, value in table.items():
        if key not in KEYS:
            return f"unknown key {key!r}{did_you_mean(key, KEYS) or known_are((*KEYS, CLASS))}"
        kinds = _KINDS.get(key, (str,))
        if key != "command" and (not isinstance(value, kinds) or isinstance(value, bool)):
            wanted = " or ".join(dict.fromkeys(_CALLED[kind] for kind in kinds if kind in _CALLED))
            return f"{key} is {wanted}, not {value!r}"
    wrong = faults_in_command(table.get("command")) or _faults_in_placeholders(table)
    return wrong or _faults_in_values(table) or _find_untold_data(table) or _faults_in_settings(table, root)


def faults_in_class(table: Mapping[str, Any]) -> str | None:
    """What is wrong with a table that names a class, in one line; None where nothing is."""
    named = table[CLASS]
    others = [key for key in table if key != CLASS]
    if others:
        return f"has {CLASS}, and so no other key: {others[0]} stands in the class"
    module, colon, name = named.partition(":") if isinstance(named, str) else ("", "", "")
    return None if module and colon and name else f"{CLASS} is 'module:Class', not {named!r}"


def faults_in_command(command: object) -> str | None:
    """What is wrong with a command, whatever its placeholders are."""
    if not isinstance(command, str) or not command.strip():
        return "has no command"
    try:
        shlex.split(command)
    except ValueError as error:
        return f"command cannot be split: {error}"
    return None


def find_missing_program(table: Mapping[str, Any], root: Path) -> str | None:
    """That a command's program, or the script that Python is to run, is not there, in one line; None where it is.

    Args:
        table: without faults.
        root: the folder in which the command is started.
    """
    program, *rest = split_variables(shlex.split(table["command"]))[1] or [""]
    script = rest[0] if rest and "python" in Path(program).name and rest[0].endswith(".py") else ""
    if script and not PLACE.search(script) and not (root / script).is_file():
        here = [path.name for path in root.glob("*.py")]
        return f"command: no such file {script!r}{did_you_mean(script, here)} (looked for in {root})"
    beside = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    named = str(root / program) if os.sep in program else program
    if not PLACE.search(program) and "python" not in Path(program).name and shutil.which(named, path=beside) is None:
        return f"command: {program}: no such program: looked for in {os.path.dirname(sys.executable)} and PATH"
    return None


def faults_in_class_command(command: str) -> str | None:
    """What is wrong with the command of a `Trainer` subclass, whose settings are in a file alone."""
    known = [place for place in PLACEHOLDERS if place not in ("settings", "resume", "epochs")]
    wrong = faults_in_command(command)
    for place in [] if wrong else places_in(command):
        if place not in known:
            return _unknown_place(place, known)
    return wrong or _lacks(places_in(command), ("output_dir", "max_steps"))


def _faults_in_placeholders(table: Mapping[str, Any]) -> str | None:
    places = places_in(table["command"])
    for place in places:
        mistyped = not place or (nearest(place, PLACEHOLDERS) and not _is_setting(place, table))
        if place not in PLACEHOLDERS and mistyped:
            return _unknown_place(place, PLACEHOLDERS)
    if "steps_per_epoch" in table and "epochs" not in places:
        return "has steps_per_epoch, but its command lacks {epochs}"
    if "settings" in places and "{settings}" not in shlex.split(table["command"]):
        return "command has {settings} inside a word: it becomes several, and stands alone"
    if "config" in places and not (table.get("settings") or table.get("settings_name")):
        return 'command has {config}, and no settings = "base.yaml" says which file (or settings_name, a new one)'
    if table.get("settings") and not {"config", "settings"}.intersection(places):
        return "has settings, but its command lacks {config} (a file) and {settings} (options)"
    return None


def _find_untold_data(table: Mapping[str, Any]) -> str | None:
    """That data are made, or cut, for a program that is not told of them; a queue has them put into its folder."""
    places = places_in(table["command"])
    for key in ("sample", "make_data"):
        if key in table and "queue" not in table and "data" not in places and "output_dir" in places:
            return f"has {key}, but its command lacks {{data}}: the program would train on something else"
    return None


def _is_setting(place: str, table: Mapping[str, Any]) -> bool:
    """Whether a placeholder is a role, a name that is known for one, or a setting that the table itself names."""
    if place in settings.ROLES or any(place in names for names in settings.ROLES.values()):
        return True
    return any(place in table.get(key, {}) for key in ("production", "tiny", "overfit", "fields"))


def _unknown_place(place: str, known: tuple[str, ...] | list[str]) -> str:
    return f"command has an unknown placeholder {{{place}}}{did_you_mean(place, known) or known_are(known)}"


def known_are(names: Iterable[str]) -> str:
    """All names that are known, to end a message about one that is not."""
    return f"; known are {', '.join(names)}"


def _lacks(places: list[str], needed: tuple[str, ...]) -> str | None:
    for place in needed:
        if place not in places:
            return f"command lacks {{{place}}}: without it a run cannot be bounded"
    return None


def _faults_in_values(table: Mapping[str, Any]) -> str | None:
    form, resume = table.get("settings_form"), table.get("resume", "checkpoint")
    if form is not None and form not in FORMS:
        return f"settings_form is one of {', '.join(map(repr, FORMS))}, not {form!r}"
    if resume not in ("checkpoint", "folder") and not (resume.startswith("-") or "=" in resume):
        return (
            "resume is 'checkpoint' (the newest one's path), 'folder' (the output folder), or the words that are added "
            f"on a resume, as '--resume'; not {resume!r}"
        )
    wrong = faults_in_command(resume)
    if wrong:
        return f"resume: {wrong}"
    for key in ("rows", "steps_per_epoch"):
        if table.get(key, 1) < 1:
            return f"{key} is {table[key]}, and has to be 1 or more"
    for key in FUNCTIONS:
        module, colon, name = table.get(key, "module:function").partition(":")
        if not (module and colon and name):
            return f"{key} is 'module:function', not {table[key]!r}"
    if "queue" in table:
        queue = table["queue"]
        wrong = queues.faults_in(queue) if isinstance(queue, Mapping) else "is not a table"
        return f"queue: {wrong}" if wrong else None
    return None


def _faults_in_settings(table: Mapping[str, Any], root: Path) -> str | None:
    """What can be told of the settings before the program was asked for its `--help`."""
    wrong = unknown_roles(table.get("fields", {}))
    if wrong or needs_help(table, root):
        return wrong
    try:
        known = read_known(table, root)
    except (OSError, ValueError):
        return None  # the trainer itself says so, when it is loaded
    return faults_in_known(table, known)
