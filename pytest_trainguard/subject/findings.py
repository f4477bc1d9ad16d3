"""What was found out about one trainer, and need not be found out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Findings:
    """One object of each kind: whoever finds something out has a class of its own for it, with named fields."""

    def __init__(self) -> None:
        self._by_kind: dict[type, object] = {}

    def get(self, kind: type[T], make: Callable[[], T]) -> T:
        """The one of a kind, made when it is first asked for."""
        found = self._by_kind.get(kind)
        if not isinstance(found, kind):
            found = self._by_kind[kind] = make()
        return found
