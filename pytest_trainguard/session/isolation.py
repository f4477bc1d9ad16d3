"""What a report says of how the runs were kept from the world: one line."""

from __future__ import annotations

import os
from collections.abc import Iterable

from pytest_trainguard.isolation import environment
from pytest_trainguard.isolation.policy import Confined, Reach

_MOST_NAMED = 4


def describe_isolation(confined: Confined, reach: Reach, modules: Iterable[str]) -> str:
    """How runs were held, what was open to them, and what was taken from them or set offline.

    Args:
        confined: what could be had on this machine.
        reach: what the team opened.
        modules: that the runs loaded.
    """
    network = {
        "namespace": "runs had no network",
        "refused": "the network was refused to runs in Python and by a proxy (no namespace is to be had)",
        "open": "the network was open (trainguard_network = allow)",
    }[confined.network]
    if reach.hosts:
        network = f"of the network runs had {', '.join(reach.hosts)} (trainguard_network)"
    files = "what they wrote elsewhere is undone" if confined.covered else "what Python wrote in the project is undone"
    parts = [network, files]
    taken = environment.list_taken(os.environ, reach.keep)
    if taken:
        parts.append(f"secrets taken out: {_listed(taken)}")
    offline = environment.name_tools([*modules])
    if offline and not reach.allows_all:
        parts.append(f"offline: {_listed(offline)}")
    return "; ".join(parts)


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
