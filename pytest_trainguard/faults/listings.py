"""Inside a run: the files of its data in another order than the file system's, wherever Python lists a folder.

No order is promised (`os.listdir`, `os.scandir`, and with these `glob`, `os.walk` and `Path.iterdir`), and another file
system has another one. Only what is listed below the data is turned round; nothing else of what is listed changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from pytest_trainguard.recorder.writer import Recorder

__all__ = ["turn_round"]


class _Listing:
    """What `os.scandir` gives, in another order."""

    def __init__(self, entries: list[os.DirEntry[Any]]):
        self._entries = iter(entries)

    def __iter__(self) -> Iterator[os.DirEntry[Any]]:
        return self

    def __next__(self) -> os.DirEntry[Any]:
        return next(self._entries)

    def __enter__(self) -> _Listing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is open any more."""


def turn_round(data: Path, recorder: Recorder) -> None:
    """From now on folders in `data` are listed from their end; the first time is recorded as a fault."""
    below = os.path.realpath(data)
    told = False

    def is_ours(folder: object) -> bool:
        nonlocal told
        if isinstance(folder, int) or folder is None:  # an open folder, or the working one
            return False
        place = os.path.realpath(os.fsdecode(folder))  # type: ignore[arg-type]
        ours = place == below or place.startswith(below + os.sep)
        if ours and not told:
            told = True
            recorder.write("fault", step=recorder.steps, kind="listing", where="read")
        return ours

    _replace("listdir", lambda plain: _listdir(plain, is_ours))
    _replace("scandir", lambda plain: _scandir(plain, is_ours))


def _replace(name: str, make: Callable[[Any], Any]) -> None:
    setattr(os, name, make(getattr(os, name)))


def _listdir(plain: Callable[..., list[Any]], is_ours: Callable[[object], bool]) -> Callable[..., list[Any]]:
    def listdir(path: object = None) -> list[Any]:
        names = plain() if path is None else plain(path)
        return sorted(names, reverse=_falls(names)) if is_ours(path) else names

    return listdir


def _scandir(plain: Callable[..., Any], is_ours: Callable[[object], bool]) -> Callable[..., Any]:
    def scandir(path: object = None) -> Any:
        entries = plain() if path is None else plain(path)
        if not is_ours(path):
            return entries
        with entries:
            found = list(entries)
        falls = _falls([entry.name for entry in found])
        return _Listing(sorted(found, key=lambda entry: entry.name, reverse=falls))

    return scandir


def _falls(names: list[Any]) -> bool:
    """Whether falling order is the one that differs from what the file system gives."""
    return bool(names != sorted(names, reverse=True))
