"""Which state a resumed run began with that the undisturbed run did not have there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trainguard.contract.outcome import Outcome


def find_differing_states(resumed: Outcome, reference: Outcome) -> list[str]:
    """The states that differ at the first step where both runs recorded them."""
    return []
