"""Text that others wrote, as it may be printed: neither a terminal nor a runner of GitHub Actions obeys any of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

# Colours and cursor movements of a terminal, titles of its window, and what else is not to be read: control characters
# (but for tab and new line), marks that turn the direction of what follows, halves of surrogate pairs.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
UNREADABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
COMMAND = re.compile(r"^([^\S\n]*)::", re.M)  # of GitHub's runner, which passes over blanks before it
OLD_COMMAND = "##["  # it looks for these anywhere in a line


def printable(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """A text of any origin as it may be printed here.

    Args:
        text: what a trainer, a file or a name says.
        environment: the process's own, which says whether GitHub Actions reads along.
    """
    plain = strip_escapes(text)
    return disarm(plain) if is_in_actions(environment) else plain


def strip_escapes(text: str) -> str:
    """A text without what a terminal would have obeyed."""
    return UNREADABLE.sub("", ESCAPES.sub("", re.sub("\r\n?", "\n", text)))


def disarm(text: str) -> str:
    """A text without anything that a runner of GitHub Actions would take for a command."""
    return COMMAND.sub(r"\1: :", text).replace(OLD_COMMAND, "## [")


def is_in_actions(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether what is printed is read by a runner of GitHub Actions."""
    return environment.get("GITHUB_ACTIONS", "").lower() == "true"
