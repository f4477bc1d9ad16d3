"""What a preflight of the repository's own trainers costs, beside a cold import of their libraries.

Set-up is done: the trainers' libraries are known from an earlier session, and all of Python is compiled.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).parent.parent
PROGRAMS = {
    "Transformer": "trainers.code.transformer",
    "Gnn": "trainers.code.gnn",
    "Fusion": "trainers.code.fusion",
    "LoraChat": "trainers.chat.lora",
}
Seconds = Callable[[list[str], Path, Path], float]


def libraries(trainer: str) -> list[str]:
    """What a trainer's runs import that is not the repository's own."""
    preload = importlib.import_module(PROGRAMS[trainer]).PRELOAD
    return list(dict.fromkeys(name for name in preload if not name.startswith("trainers.")))


def whole(seconds_of: Seconds, folder: Path, trainer: str) -> float:
    """Seconds for the whole catalogue against one trainer, with two workers."""
    _set_up(seconds_of, folder, trainer)
    return seconds_of(_command(folder, "-n", "2", "edge_cases", "--trainer", trainer), folder, PROJECT)


def fast(seconds_of: Seconds, folder: Path, trainer: str) -> float:
    """Seconds for the fast subset against one trainer, in one process."""
    _set_up(seconds_of, folder, trainer)
    return seconds_of(_command(folder, "--fast", "edge_cases", "--trainer", trainer), folder, PROJECT)


def everyone(seconds_of: Seconds, folder: Path) -> float:
    """Seconds for what `make preflight` runs: all trainers, with the repository's own cases."""
    return seconds_of(_command(folder, "-n", "2"), folder, PROJECT)


def _set_up(seconds_of: Seconds, folder: Path, trainer: str) -> None:
    done = folder / f"set-up-{trainer}"
    if not done.exists():
        seconds_of(_command(folder, "--fast", "edge_cases", "--trainer", trainer), folder, PROJECT)
        done.touch()


def _command(folder: Path, *options: str) -> list[str]:
    cache = f"cache_dir={folder / 'cache'}"
    return [sys.executable, "-m", "pytest", "-q", "-m", "preflight", "-o", cache, *options]
