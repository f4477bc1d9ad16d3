"""Learning rates that were found, kept in a file for a week."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainers.common import files
from trainers.common.errors import InputError, reason, show

EXPIRES_HOURS = 168.0
KEPT = 32
"""So many entries are kept, the newest."""


def fingerprint(data: str, settings: Mapping[str, Any]) -> str:
    """One key for the data (their fingerprint) and the settings that decide which learning rate is right."""
    text = json.dumps([data, dict(settings)], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class RateCache:
    """One entry of the file: ``{fingerprint: {"rate": float, "found_at": seconds since 1970}}``."""

    def __init__(self, path: Path, key: str, *, writes: bool = True, now: Callable[[], float] = time.time) -> None:
        """The entry of ``key``.

        Args:
            path: the file; need not be there.
            key: see `fingerprint`.
            writes: whether `put` writes (of several processes, one does).
            now: the clock, in seconds since 1970.
        """
        self.path, self._key, self._writes, self._now = path, key, writes, now

    def get(self, lowest: float, highest: float, say: Callable[[str], None]) -> float | None:
        """The rate, if it is there and sane; else why not is said (nothing, where there is none).

        Args:
            lowest: of the range that is allowed,
            highest: and its upper end.
            say: is told.
        """
        entries = _entries(self.path)
        if isinstance(entries, str):
            say(f"learning-rate cache {show(self.path)} is not used: {entries}")
            return None
        entry = entries.get(self._key)
        if entry is None:
            return None
        fault = _fault(entry, lowest, highest, self._now())
        if fault:
            say(f"learning-rate cache {show(self.path)}: the entry is not used: {fault}")
            return None
        return float(entry["rate"])

    def put(self, rate: float) -> None:
        """Keep a rate that was found, beside the newest others that are well-formed.

        Raises:
            TrainingFailed: the file cannot be written.
        """
        if not self._writes:
            return
        entries = _entries(self.path)
        others = {} if isinstance(entries, str) else entries
        sound = {key: entry for key, entry in others.items() if not _fault(entry, 0.0, math.inf, self._now())}
        sound[self._key] = {"rate": rate, "found_at": self._now()}
        newest = sorted(sound.items(), key=lambda item: item[1]["found_at"])[-KEPT:]
        files.write_json(self.path, dict(newest))


def require_place(path: Any) -> None:
    """Reject a setting ``rate_cache`` that no file can be kept under; what is no text is not judged here.

    Raises:
        InputError: its folder is not there, or it is a folder itself.
    """
    if not isinstance(path, str):
        return
    try:
        is_folder, has_folder = os.path.isdir(path), os.path.isdir(os.path.dirname(path) or ".")
    except ValueError as error:  # a NUL in the name
        raise InputError(f"rate_cache {show(path)}: {error}") from None
    if is_folder or not has_folder:
        raise InputError(f"rate_cache {show(path)}: {'a folder' if is_folder else 'no such folder'}")


def problems(path: Path, lowest: float, highest: float, now: float) -> list[str]:
    """What is not sane in a cache file: the pre-launch check of the post-mortem. None, where it is not there.

    Args:
        path: the file.
        lowest: of the range that is allowed,
        highest: and its upper end.
        now: seconds since 1970.
    """
    entries = _entries(path)
    if isinstance(entries, str):
        return [entries]
    faults = {key: _fault(entry, lowest, highest, now) for key, entry in entries.items()}
    return [f"entry {key[:12]}: {fault}" for key, fault in faults.items() if fault]


def _entries(path: Path) -> dict[str, Any] | str:
    """All entries, or what is wrong with the file."""
    try:
        entries = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        return reason(error)
    except (ValueError, RecursionError):
        return "bad JSON"
    return entries if isinstance(entries, dict) else "no JSON object"


def _fault(entry: Any, lowest: float, highest: float, now: float) -> str | None:
    """What is wrong with one entry, if anything is."""
    rate = entry.get("rate") if isinstance(entry, dict) else None
    found_at = entry.get("found_at") if isinstance(entry, dict) else None
    if type(rate) not in (int, float) or type(found_at) not in (int, float):
        return "it is no rate with its time"
    if not (math.isfinite(rate) and math.isfinite(found_at)):
        return "not finite"
    if not lowest <= rate <= highest:
        return f"rate {rate:g} is outside {lowest:g} to {highest:g}"
    hours = (now - found_at) / 3600
    if hours < 0:
        return f"it is from {-hours:.1f} hours ahead: the clock went backwards"
    if hours >= EXPIRES_HOURS:
        return f"it is {hours:.0f} hours old, over {EXPIRES_HOURS:g}"
    return None
