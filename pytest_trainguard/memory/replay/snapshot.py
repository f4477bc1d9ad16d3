"""A trace as a memory snapshot of torch's: what pytorch.org/memory_viz and `torch.cuda._memory_viz` read.

The form is that of `torch.cuda.memory._snapshot()`, pickled as `_dump_snapshot` does. Where torch puts a stack, each
entry has one frame: the operation as its function, phase and module as its file, the optimizer step as its line.
"""

from __future__ import annotations

import pickle
from itertools import chain
from pathlib import Path
from typing import Any

from pytest_trainguard.memory.replay.allocator import Action, Allocator, Block, OutOfMemory
from pytest_trainguard.memory.replay.allocator_settings import make_allocator
from pytest_trainguard.memory.replay.expandable_allocator import ExpandableAllocator
from pytest_trainguard.memory.replay.trace import Event, Trace
from pytest_trainguard.memory.replay.trace_replay import add_workspaces

DEFAULT_POOL = (0, 0)  # the default one


def write_snapshot(path: Path, trace: Trace, workspace: int = 0, cap: int | None = None) -> None:
    """Pickle the snapshot.

    Raises:
        OSError: the path cannot be written to.
    """
    with path.open("wb") as out:
        pickle.dump(make_snapshot(trace, workspace, cap), out)


def make_snapshot(trace: Trace, workspace: int = 0, cap: int | None = None) -> dict[str, Any]:
    """The snapshot at the end of a trace, or where it runs out of memory under a cap."""
    log: list[Action] = []
    allocator = make_allocator(trace.allocator, cap, log)
    used: dict[int, tuple[Block, Event]] = {}
    entries: list[dict[str, Any]] = []
    for _, event in add_workspaces(trace, workspace):
        log.clear()
        try:
            if event.kind == "alloc" and event.size:
                used[event.block] = allocator.malloc(event.size, event.stream), event
            elif event.block in used:
                allocator.free(used.pop(event.block)[0])
            elif event.kind == "empty cache":
                allocator.flush()
        except OutOfMemory:
            entries += [_entry(action, event) for action in log]
            free = (cap or 0) - allocator.reserved
            entries.append({**_entry(Action("oom", 0, event.size, event.stream), event), "device_free": free})
            break
        entries += chain.from_iterable(_entries(action, event) for action in log)
    return {"segments": _segments(allocator, list(used.values())), "device_traces": [entries]}


def _entries(action: Action, event: Event) -> list[dict[str, Any]]:
    asked = [_entry(action._replace(action="free_requested"), event)] if action.action == "free_completed" else []
    return [*asked, _entry(action, event)]


def _entry(action: Action, event: Event) -> dict[str, Any]:
    return {
        "action": action.action, "addr": action.address, "size": action.size, "stream": action.stream,
        "frames": _frames(event), "pool_id": DEFAULT_POOL,
    }  # fmt: skip


def _frames(event: Event) -> list[dict[str, Any]]:
    place = f"{event.phase} {event.module}".strip()
    return [{"name": event.op or event.category, "filename": place, "line": event.step + 1}]


def _segments(allocator: Allocator, used: list[tuple[Block, Event]]) -> list[dict[str, Any]]:
    """Every segment with its blocks in order of address; of one that can be expanded, each stretch that is mapped."""
    owners = {block.address: event for block, event in used}
    blocks = [block for block, _ in used] + allocator.free_blocks()
    firsts = [block for block in blocks if block.before is None or not block.before.mapped]
    expandable = isinstance(allocator, ExpandableAllocator)
    return [_segment(first, owners, expandable) for first in sorted(firsts, key=lambda block: block.address)]


def _segment(first: Block, owners: dict[int, Event], expandable: bool) -> dict[str, Any]:
    chain: list[Block] = []
    block: Block | None = first
    while block is not None and block.mapped:
        chain.append(block)
        block = block.next
    in_use = sum(block.size for block in chain if not block.free)
    return {
        "device": 0, "address": first.address, "total_size": sum(block.size for block in chain),
        "stream": first.stream, "segment_type": "small" if first.small else "large", "segment_pool_id": DEFAULT_POOL,
        "allocated_size": in_use, "active_size": in_use, "is_expandable": expandable, "frames": [],
        "requested_size": sum(block.requested for block in chain if not block.free),
        "blocks": [_block(block, owners.get(block.address)) for block in chain],
    }  # fmt: skip


def _block(block: Block, owner: Event | None) -> dict[str, Any]:
    in_use = not block.free and owner is not None
    return {
        "address": block.address, "size": block.size, "requested_size": block.requested if in_use else block.size,
        "state": "active_allocated" if in_use else "inactive",
        "frames": _frames(owner) if in_use and owner else [],
    }  # fmt: skip
