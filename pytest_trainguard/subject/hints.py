"""Why an undisturbed run may fail here and not elsewhere: runs have no network and no secrets."""

from __future__ import annotations

import os
import re
import sys

from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.isolation import environment
from pytest_trainguard.isolation.policy import Reach

# What the hubs' libraries say in their offline modes.
_OFFLINE = re.compile(r"HF_HUB_OFFLINE|TRANSFORMERS_OFFLINE|HF_DATASETS_OFFLINE|offline mode|OfflineModeIsEnabled")


def explain_isolation(outcome: Outcome, reach: Reach) -> str:
    """What a run that failed was kept from, and the setting that opens it: a sentence each; empty where nothing was.

    Args:
        outcome: of the run.
        reach: what is open to runs.
    """
    hints = []
    wanted = outcome.recording.reached("network")
    if wanted and not reach.allows_all:
        address, place = next(iter(wanted.items()))
        host = address.rpartition(":")[0] or address
        at = f" ({place})" if place else ""
        hints.append(f"it wanted {address}{at}, and runs have no network: trainguard_network = {host} opens it")
    elif not reach.network and _OFFLINE.search(outcome.output):
        hints.append("hubs are offline for runs: download first, or trainguard_network = allow")
    taken = [name for name in environment.list_taken(os.environ, reach.keep) if name in outcome.output]
    if taken:
        hints.append(f"{taken[0]} is taken out of its environment as a secret: trainguard_keep = {taken[0]} leaves it")
    return "; ".join(hints)


def tell_missing_module(name: str) -> str:
    """Where a module is looked for that is not there, and what to do."""
    package = name.partition(".")[0]
    return f"install {package} where pytest runs ({sys.prefix}), or run the pytest of the environment that trains"
