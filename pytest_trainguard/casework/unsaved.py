"""Whether a program saves nothing at all, which is a finding; that nothing was seen saved in a few steps is none."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.rows.suffixes import TEXT
from pytest_trainguard.subject.framework import PLAIN
from pytest_trainguard.verdicts import causes
from pytest_trainguard.verdicts.errors import Finding

__all__ = ["require_something_saved"]

_SAVES = re.compile(r"save|checkpoint|ckpt|pickle|joblib|export|to_?file|write_bytes|h5py|memmap", re.I)
_TRAINS = ("backward", "grad")


def require_something_saved(guard: Guard) -> None:
    """A run leaves something behind that a second start could carry on from; or it may, and was not seen to.

    A program that saves every 1000 steps leaves nothing after 8, either. So it is only said of one whose own sources
    have the loop in them and no name in them of anything that saves, and which begins again after a kill.

    Raises:
        Finding: it saves nothing, and all work is lost with the process.
    """
    reference = guard.reference.outcome
    left = [name for name in reference.left() if Path(name).suffix not in TEXT]
    if left or reference.elsewhere or guard.reference.framework != PLAIN:
        return
    sources = guard.reference.own_modules
    if not _trains_and_never_saves(sources):
        return
    killed = guard.checkpoints.killed_late()
    did = f"{killed.did}, then started again to resume"
    again = guard.run(did, output_dir=guard.copy(killed.output_dir), resume=True)
    taken, whole = len(again.recording.steps), len(reference.recording.steps)
    if again.exit != 0 or taken < whole:
        return
    shown = ", ".join(source.name for source in sources[:3])
    raise Finding(
        did,
        f"all work was lost: it began again at step 0 and took {taken} steps, for it saves nothing: no checkpoint "
        f"after a run, and nothing in {shown} that would save one. Save model, optimizer and step in the output folder "
        'now and then; where a run is short enough to be made anew, accept that: --accept "why"',
        again.last_words,
        grade="loses",
        cause=causes.NOTHING_SAVED,
    )


def _trains_and_never_saves(sources: Iterable[Path]) -> bool:
    """Whether sources have a training loop in them, and no name of anything that saves."""
    names: set[str] = set()
    for source in sources:
        try:
            names.update(_names_in(ast.parse(source.read_bytes())))
        except (OSError, SyntaxError, ValueError):
            return False
    return any(name in names for name in _TRAINS) and not any(map(_SAVES.search, names))


def _names_in(tree: ast.AST) -> Iterator[str]:
    """Every name in a program: of variables, attributes, arguments, functions, modules; not what texts say."""
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "module"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield name
