"""Whose fixtures a test gets: the catalogue's tests those of ours and of pytest's own, a team's what the team has.

A fixture of the team's may have the name of one of ours, `trainer` above all, and pytest asks a conftest of the root
folder for the catalogue's tests too. What is autouse there, or in another plugin, is not for these either: a case knows
what it needs, and names it.
"""

from __future__ import annotations

import pytest
from _pytest.fixtures import FixtureDef

from pytest_trainguard import catalog

OURS = ("pytest_trainguard.", "_pytest.")  # how the names of the modules begin


def is_of_catalogue(metafunc: pytest.Metafunc) -> bool:
    """Whether a test is one of the catalogue's."""
    return metafunc.definition.path.resolve().parent == catalog.catalogue_folder()


def leave_ours(metafunc: pytest.Metafunc) -> None:
    """Have a test get the fixtures that its arguments name, each from us or from pytest, and no other.

    Args:
        metafunc: of the test, before anything is parametrized.
    """
    info = metafunc.definition._fixtureinfo
    manager = metafunc.definition.session._fixturemanager
    found: dict[str, FixtureDef[object]] = {}
    names = list(info.argnames)
    for name in names:  # the list grows by what each fixture asks for itself
        ours = [each for each in manager.getfixturedefs(name, metafunc.definition) or () if _is_ours(each)]
        if ours:
            found[name] = ours[-1]
            names += [needed for needed in ours[-1].argnames if needed not in names]
    # In place: pytest, and other plugins' hooks, hold these very objects.
    info.names_closure[:] = names
    info.name2fixturedefs.clear()
    info.name2fixturedefs.update({name: [fixture] for name, fixture in found.items()})


def is_given(metafunc: pytest.Metafunc, name: str) -> bool:
    """Whether the team says itself what an argument of its test is: by a fixture, a mark, or a hook of its own."""
    if name in metafunc._arg2fixturedefs:
        return True
    return any(name in call.params for call in metafunc._calls)


def _is_ours(fixture: FixtureDef[object]) -> bool:
    return fixture.func.__module__.startswith(OURS)
