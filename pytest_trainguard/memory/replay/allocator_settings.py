"""The allocator's own settings, as torch reads them from the environment, and the model that goes with them."""

from __future__ import annotations

import os
import re

from pytest_trainguard.memory.replay.allocator import Action, Allocator
from pytest_trainguard.memory.replay.expandable_allocator import ExpandableAllocator

# The first that is set counts; the second is the older name.
ENVIRONMENT_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
EXPANDABLE_SEGMENTS = "expandable_segments:True"
# These change nothing of the peaks: when cached memory is given back before it has to be, host memory, locks.
_HARMLESS = re.compile(r"garbage_collection_threshold|pinned_\w+|release_lock_on_\w+|per_process_memory_fraction")


def read_environment() -> str:
    """What this process's environment says; empty where it says nothing."""
    return next((os.environ[name] for name in ENVIRONMENT_VARIABLES if os.environ.get(name)), "")


def make_allocator(text: str, cap: int | None = None, log: list[Action] | None = None) -> Allocator:
    """The model of the allocator under such settings (`expandable_segments`, `max_split_size_mb`)."""
    found = _parsed(text)
    if found.get("expandable_segments", "").lower() == "true":
        return ExpandableAllocator(cap, log=log)
    size = found.get("max_split_size_mb", "")
    return Allocator(cap, int(size) << 20 if size.isdigit() else None, log)


def find_unmodelled(text: str) -> list[str]:
    """What of the settings the model passes over; one line each."""
    return [
        f"{name}:{value} of {ENVIRONMENT_VARIABLES[1]} is not in the allocator's model"
        for name, value in _parsed(text).items()
        if name not in ("expandable_segments", "max_split_size_mb")
        and (name, value) != ("backend", "native")
        and not _HARMLESS.fullmatch(name)
    ]


def _parsed(text: str) -> dict[str, str]:
    """`name:value,name:[a:1,b:2]` by name."""
    return {name: value.strip() for name, value in re.findall(r"(\w+)\s*:\s*(\[[^\]]*\]|[^,\[\]]+)", text)}
