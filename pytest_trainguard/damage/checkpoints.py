"""Step counts, format versions and other entries of a checkpoint's files: read, changed, taken out.

A file is JSON, or what `torch.save` wrote, which is read with `weights_only=True`: never unpickled. A change is made as
if the program had saved it so; see `manifests`. These functions run in a process that has torch loaded: a case asks
for them with `Subject.call`.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeGuard

from pytest_trainguard.contract import checkpoints as names
from pytest_trainguard.contract.checkpoints import STEP_NAMES
from pytest_trainguard.damage.manifests import replace_file
from pytest_trainguard.damage.pickled import look_into
from pytest_trainguard.rows import suffixes
from pytest_trainguard.rows.suffixes import JSON

__all__ = [
    "drop_entry", "find_entries", "negate_step_counts", "own_classes", "read_content", "read_only", "read_step_count",
    "set_entry",
]  # fmt: skip

DEPTH = 2  # tables in tables that a step count is looked for in: an optimizer's own, of each parameter, lie deeper
_SETTINGS = re.compile(r"config|settings|args|hparams|hyper", re.I)  # what is to be done, not what was

Table = dict[str, object]


def find_entries(files: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, int]]:
    """The whole numbers that stand in files under one of some names, at the top: file to name to value."""
    found = {}
    for file in files:
        content = read_content(Path(file))
        table = content if _is_table(content) else {}
        entries = {name: value for name in names if type(value := table.get(name)) is int}
        if entries:
            found[file] = entries
    return found


def set_entry(file: str, name: str, value: object, within: str) -> None:
    """Another value under a name at the top of a file.

    Args:
        file: the checkpoint's file, with a table in it.
        name: of the entry.
        value: any that JSON can hold.
        within: the folder whose manifests are made to fit.
    """
    _rewrite(Path(file), Path(within), lambda table: table.update({name: value}))


def drop_entry(file: str, name: str, within: str) -> None:
    """Nothing under a name at the top of a file; see `set_entry`.

    Raises:
        KeyError: there is no such entry.
    """
    _rewrite(Path(file), Path(within), lambda table: table.pop(name))


def negate_step_counts(checkpoints: Sequence[str], within: str) -> dict[str, int]:
    """Make the step counts in checkpoints negative, in place.

    Args:
        checkpoints: their paths.
        within: the folder whose manifests are made to fit.

    Returns:
        each file that was changed, and the number that now stands in it; in the order of the checkpoints.
    """
    changed: dict[str, int] = {}
    for file in (file for checkpoint in checkpoints for file in names.files(Path(checkpoint))):
        content = read_content(file)
        steps = [(table, name, step) for table, name, step in _step_counts(content, DEPTH) if step > 0]
        for table, name, step in steps:
            table[name] = -step
        if steps:
            replace_file(file, _encode(file, content), Path(within))
            changed[str(file)] = -steps[0][2]
    return changed


def read_step_count(checkpoint: Path) -> int | None:
    """The step count that is saved in a checkpoint; None where none is found."""
    for file in names.files(checkpoint):
        for _, _, step in _step_counts(read_only(file), DEPTH):
            return step
    return None


def read_content(file: Path) -> object:
    """What stands in a JSON file or in one of torch's; None in any other, and where it cannot be read."""
    try:
        if file.suffix == JSON:
            return json.loads(file.read_bytes())
        return _load(file) if saved_by_torch(file) else None
    except Exception:  # whatever torch makes of a file that is none of its own, or that only unpickling would read
        return None


def read_only(file: Path) -> object:
    """What stands in a file as in `read_content`, objects of a program's own classes among it as tables.

    It is for looking: what is found cannot be saved again as the program saved it.
    """
    content = read_content(file)
    if content is not None or not saved_by_torch(file):
        return content
    try:
        return look_into(file)[0]
    except Exception:  # as in read_content
        return None


def own_classes(files: Sequence[str]) -> dict[str, list[str]]:
    """The files that torch saved with objects of a program's own classes, so that they cannot be changed, and these."""
    found: dict[str, list[str]] = {}
    for file in map(Path, files):
        if saved_by_torch(file) and read_content(file) is None:
            try:
                found[str(file)] = look_into(file)[1]
            except Exception:  # as in read_content
                continue
    return {file: classes for file, classes in found.items() if classes}


def saved_by_torch(file: Path) -> bool:
    """Whether a file is one that `torch.save` wrote, by its name."""
    return suffixes.weights(file) in suffixes.SAVED_BY_TORCH


def _load(file: Path) -> object:
    import torch

    content: object = torch.load(file, map_location="cpu", weights_only=True)
    return content


def _encode(file: Path, content: object) -> bytes:
    if file.suffix == JSON:
        return json.dumps(content, indent=2).encode()
    import torch

    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def _rewrite(file: Path, within: Path, change: Callable[[Table], object]) -> None:
    content = read_content(file)
    assert _is_table(content), f"{file}: no table"
    change(content)
    replace_file(file, _encode(file, content), within)


def _step_counts(value: object, depth: int) -> Iterator[tuple[Table, str, int]]:
    """The step counts in a table and those in it, outer ones first: the table, the name, the number."""
    if not _is_table(value) or depth == 0:
        return
    for name, step in value.items():
        if name in STEP_NAMES and type(step) is int:
            yield value, name, step
    for name, inner in value.items():
        if not _SETTINGS.search(str(name)):
            yield from _step_counts(inner, depth - 1)


def _is_table(value: object) -> TypeGuard[Table]:
    return isinstance(value, dict)
