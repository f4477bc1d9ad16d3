"""The name that was probably meant by one that is not known."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The one of the known names that is most like `name`; None where none is.

    Args:
        name: as it was written.
        known: what it might have been.
        likeness: from 0 to 1, as `difflib` counts it.
    """
    import difflib  # when it is needed: pytest's start is not to be slower for it

    return next(iter(difflib.get_close_matches(name, list(known), 1, likeness)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'sample'?`, to end a message about an unknown name; empty where no known one is like it."""
    meant = nearest(name, known)
    return f"; did you mean {meant!r}?" if meant else ""
