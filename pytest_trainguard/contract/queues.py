"""The contract between a team's training queue and the harness: `Queue`.

A queue works by folders: files are dropped into one, a command trains what waits there, and each file ends in a folder
for the done or in one for the failed. That is all that every queue must tell. What only some queues have (priorities,
a retry, metadata) is named where it is there; a case that is about it says so where it is not.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import PurePath

COMMANDS = {"once": (), "add": ("file",), "retry": (), "status": ()}  # and the placeholders that each must have
PLACEHOLDERS = ("root", "file", "priority", "config")
_FOLDERS = ("inbox", "done", "failed", "processing")
_PLACE = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class Queue:
    """A training queue that works by folders. Only `once` is needed where the folders have the usual names.

    Commands are split into words as a shell would, and started without one. `{root}` in them stands for the queue's
    folder, and `{config}` for a JSON file with the trainer's tiny settings (of a command-line trainer, in the form of
    its own settings file), so that what the queue trains is small too.

    Attributes:
        once: the command that trains what waits, and ends.
        inbox: the folder that files are dropped in; like all of them, below the root.
        done, failed: the folders that they end in. Folders inside these count as part of them.
        processing: the folder that a file is in while it is trained, where there is one.
        add: the command that takes in a file, `{file}`, where dropping it in is not all; also with a `{priority}`.
        retry: the command that puts the failed files back.
        status: the command that tells what became of the files.
        priorities: from the most urgent to the least: what `{priority}` stands for in `add`, or folders to drop into.
        starvation_bound: a file of the least priority runs after at most so many others.
        attempts: how often a file that fails is trained at the most.
        files: small files that a new root has, as where the queue's settings are: name to content. The placeholders
            of the commands stand in them too.
        metadata: the files in which the queue keeps its memory, as a pattern below the root: `ledger.sqlite*`.

    Raises:
        ValueError: one of them cannot be; the message names it.
    """

    once: str
    inbox: str = "inbox"
    done: str = "done"
    failed: str = "failed"
    processing: str | None = None
    add: str | None = None
    retry: str | None = None
    status: str | None = None
    priorities: tuple[str, ...] = ()
    starvation_bound: int | None = None
    attempts: int | None = None
    metadata: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "priorities", tuple(self.priorities))
        wrong = faults_in(vars(self))
        if wrong:
            raise ValueError(f"queue: {wrong}")

    @property
    def folders(self) -> list[str]:
        """Every folder that is named, once each."""
        by_folder = () if self.add and "{priority}" in self.add else self.priorities
        named = [self.inbox, self.processing, self.done, self.failed, *by_folder]
        return list(dict.fromkeys(name for name in named if name))

    def argv(self, command: str, values: Mapping[str, object]) -> list[str]:
        """The words of one of its commands, the placeholders filled in."""
        return [filled(word, values) for word in shlex.split(getattr(self, command))]


def filled(text: str, values: Mapping[str, object]) -> str:
    """A text with its placeholders filled in; other braces stay as they are."""
    return _PLACE.sub(lambda place: str(values.get(place[1], place[0])), text)


def faults_in(table: Mapping[str, object]) -> str | None:
    """What is wrong with a queue's table, in one line; None where nothing is."""
    known = [one.name for one in fields(Queue)]
    unknown = [key for key in table if key not in known]
    if unknown:
        return f"unknown key {unknown[0]!r}; known are {', '.join(known)}"
    if not table.get("once"):
        return 'has no command: name the one that trains what waits and ends, once = "..."'
    wrong = [_wrong_command(name, table[name]) for name in COMMANDS if table.get(name) is not None]
    wrong += [_wrong_folder(name, table[name]) for name in _FOLDERS if table.get(name) is not None]
    wrong += [
        _wrong_number(name, table[name]) for name in ("starvation_bound", "attempts") if table.get(name) is not None
    ]
    priorities = table.get("priorities", ())
    if not isinstance(priorities, list | tuple) or not all(isinstance(name, str) and name for name in priorities):
        wrong.append(f"priorities is {priorities!r}, not a list of names")
    elif len(priorities) == 1 or len(set(priorities)) < len(priorities):
        wrong.append(f"priorities is {list(priorities)!r}: two names at least, from the most urgent to the least")
    files = table.get("files", {})
    if not isinstance(files, Mapping) or not all(isinstance(part, str) for item in files.items() for part in item):
        wrong.append("files is not a table of names and contents")
    return next(filter(None, wrong), None)


def _wrong_command(name: str, command: object) -> str | None:
    if not isinstance(command, str) or not command.strip():
        return f"{name} is {command!r}, not a command"
    places = _PLACE.findall(command)
    for place in places:
        if place not in PLACEHOLDERS:
            return f"{name} has an unknown placeholder {{{place}}}; known are {', '.join(PLACEHOLDERS)}"
    for place in ("root", *COMMANDS[name]):
        if place not in places:
            return f"{name} lacks {{{place}}}"
    try:
        shlex.split(command)
    except ValueError as error:
        return f"{name} cannot be split: {error}"
    return None


def _wrong_folder(name: str, folder: object) -> str | None:
    if not isinstance(folder, str) or not folder or PurePath(folder).is_absolute() or ".." in PurePath(folder).parts:
        return f"{name} is {folder!r}, not a folder below the root"
    return None


def _wrong_number(name: str, number: object) -> str | None:
    return None if type(number) is int and number >= 1 else f"{name} is {number!r}, not a whole number from 1 on"
