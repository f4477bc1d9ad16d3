"""Taking out of what was collected the tests that were not asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def take_out_preflights(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Leave no test that needs a preflight."""
    keep(session, items, lambda item: item.get_closest_marker("preflight") is None)


def keep(session: pytest.Session, items: list[pytest.Item], wanted: Callable[[pytest.Item], bool]) -> None:
    """Leave the tests that are wanted, and tell pytest of the others."""
    kept = {item: wanted(item) for item in items}
    items[:] = [item for item, stays in kept.items() if stays]
    out = [item for item, stays in kept.items() if not stays]
    if out:
        session.config.hook.pytest_deselected(items=out)
