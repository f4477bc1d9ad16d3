"""Programs that are Python scripts by their first line, and which of them are launchers that start another."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

_PYTHON = re.compile(r"(^|/)python(3(\.\d+)?)?$")
_LONG = re.compile(rb"""'''exec' "?([^"]+?)"? "\$0" "\$@"$""")  # how a path too long for a first line is written
_VARIABLE = re.compile(r"([A-Za-z_]\w*)=(.*)", re.S)
# The words that such a command begins with; `python -m MODULE` by the module.
_LAUNCHERS = (
    ("accelerate", "launch"),
    ("accelerate-launch",),
    ("torchrun",),
    ("accelerate.commands.accelerate_cli", "launch"),
    ("accelerate.commands.launch",),
    ("torch.distributed.run",),
    ("torch.distributed.launch",),
)


def is_this_python(program: str) -> bool:
    """Whether a command's program is the interpreter that the harness runs in: `python`, or its own path."""
    if not _PYTHON.search(program):
        return False
    return os.path.dirname(program) in ("", os.path.dirname(sys.executable))


def split_variables(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The environment variables that a command sets before its program, with or without `env`, and the rest of it."""
    rest = list(words)
    if len(rest) > 1 and os.path.basename(rest[0]) == "env" and not rest[1].startswith("-"):
        rest = rest[1:]
    found: dict[str, str] = {}
    while rest and (variable := _VARIABLE.fullmatch(rest[0])):
        found[variable[1]] = variable[2]
        rest = rest[1:]
    return found, rest


def find_script(program: str) -> Path | None:
    """The file of a program that this interpreter would run, as installers make them for entry points; else None."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            first, second = file.readline(4096).strip(), file.readline(4096).strip()
    except OSError:
        return None
    long = _LONG.match(second) if first == b"#!/bin/sh" else None
    told = long[1] if long else first.removeprefix(b"#!") if first.startswith(b"#!") else b""
    words = os.fsdecode(told).split()
    if words[:1] == ["/usr/bin/env"]:
        words = words[1:]
    return Path(path) if len(words) == 1 and is_this_python(words[0]) else None


def is_launcher(words: Sequence[str]) -> bool:
    """Whether a command is one that starts a program given to it: `accelerate launch`, `torchrun`."""
    _, own = split_variables(words)
    if own and is_this_python(own[0]):
        own = own[2:] if own[1:2] == ["-m"] else []
    elif own:
        own[0] = os.path.basename(own[0])
    return any(tuple(own[: len(known)]) == known for known in _LAUNCHERS)
