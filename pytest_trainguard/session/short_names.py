"""The short names of the options: `--fast` is `--trainguard-fast`, as long as nobody else has an option of that name.

Short ones are never registered: a conftest or another plugin that wants one, whenever it is loaded, finds it free.
Before pytest reads the command line, those that nobody else has are replaced by their full names.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Sequence

import pytest
from _pytest.config import ConftestImportFailure

PREFIX = "--trainguard-"
SHORT = (
    "--accept",
    "--catalogue",
    "--category",
    "--edge-case",
    "--explain",
    "--fast",
    "--gpu-budget",
    "--memory-timeline",
    "--preflight-report",
    "--trainer",
)
TAKEN = pytest.StashKey[frozenset[str]]()  # the short names that are somebody else's in this session


def spell_out(args: Sequence[str], taken: frozenset[str]) -> list[str]:
    """A command line with the full names in place of the short ones.

    Args:
        args: as they were given; what comes after `--` is no option.
        taken: short names that are somebody else's.
    """
    spelled: list[str] = []
    for place, arg in enumerate(args):
        if arg == "--":
            return [*spelled, *args[place:]]
        name, equals, value = arg.partition("=")
        ours = name in SHORT and name not in taken
        spelled.append(f"{full_name(name)}{equals}{value}" if ours else arg)
    return spelled


def full_name(short: str) -> str:
    """An option's full name."""
    return PREFIX + short.removeprefix("--")


def name_option(config: pytest.Config, short: str) -> str:
    """The name by which an option is to be given in this session: the short one, where that is ours."""
    return full_name(short) if short in config.stash.get(TAKEN, ()) else short


def read_command_line(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str], forgives: Callable[[pytest.Config], bool]
) -> Generator[None, object, object]:
    """Around the loading of the first conftests, which may take short names: the others become full names in `args`.

    Args:
        early_config: pytest's, before the command line is read for good.
        parser: of the command line.
        args: the command line; changed in place, as pytest lets a plugin do here.
        forgives: whether the session goes on without the conftests, where one fails to load.
    """
    # Pytest has read the command line without the short names: `--trainer NAME` may have become an option that it does
    # not know and a test's path, and it would look for conftests there.
    known = spell_out(args, _find_taken(parser))
    paths = parser.parse_known_args(known, namespace=copy.copy(early_config.option)).file_or_dir
    early_config.known_args_namespace.file_or_dir = paths
    try:
        result = yield
    except ConftestImportFailure:
        if not forgives(early_config):
            raise
        result = None
    taken = early_config.stash[TAKEN] = _find_taken(parser)
    args[:] = spell_out(args, taken)
    return result


def explain_taken(config: pytest.Config) -> list[str]:
    """What is said of the short names that are not ours in this session: one line; none where all are."""
    taken = sorted(config.stash.get(TAKEN, ()))
    if not taken:
        return []
    verb = "are options" if len(taken) > 1 else "is an option"
    instead = ", ".join(map(full_name, taken))
    return [f"trainguard: {', '.join(taken)} {verb} of another plugin or conftest here: use {instead}"]


def _find_taken(parser: pytest.Parser) -> frozenset[str]:
    groups = [parser._anonymous, *parser._groups]  # pytest has no public way to ask for an option without a default
    return frozenset(SHORT).intersection(
        name for group in groups for option in group.options for name in option.names()
    )
