"""The trace of a training run's device memory: births and deaths of storages, in order, and what is known of them.

It is written by whatever ran the trainer (fake tensors, today) and read by everything that follows from it. Sizes are
those that were requested; rounding, segments and fragmentation are the allocator model's business.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

VERSION = 1
How = Literal["fake cuda", "fake cpu"]
CATEGORIES = ("weight", "gradient", "optimizer state", "activation", "input", "temporary")
Kind = Literal["alloc", "free", "empty cache"]
KINDS: tuple[Kind, ...] = ("free", "alloc", "empty cache")  # by their numbers in JSON
PHASES = ("build", "forward", "backward", "optimizer step", "evaluation", "save")


@dataclass(frozen=True, slots=True)
class Event:
    """One birth or death of a storage on the device, or what the program does to the allocator's cache.

    Attributes:
        kind: `alloc`, `free`, or `empty cache` where the program gives back what is cached (`torch.cuda.empty_cache`).
        block: identity of the storage within the trace; never used again after its death. 0 where there is none.
        size: bytes requested, unrounded; the same at birth and death.
        stream: the CUDA stream it belongs to; 0 unless a side stream was used.
        category: one of `CATEGORIES`; a storage's last known one, the same at birth and death.
        op: the aten operation that made it, `aten::mm`.
        module: qualified name of the module under which it was made; empty outside any.
        phase: one of `PHASES`, at the time of this event.
        step: optimizer steps complete at the time of this event.
    """

    kind: Kind
    block: int
    size: int
    stream: int = 0
    category: str = "temporary"
    op: str = ""
    module: str = ""
    phase: str = "forward"
    step: int = 0


@dataclass(frozen=True, slots=True)
class Workspace:
    """A library's scratch memory that the allocator holds from its first use on; its size depends on the card.

    cuBLAS takes one for each thread and stream that multiplies matrices (autograd has a thread of its own).

    Attributes:
        library: `cublas`.
        thread: `main`, or `autograd`.
        stream: the CUDA stream; 0 unless a side stream was used.
        at: index in the trace's events before which it was first used.
    """

    library: str
    thread: str
    stream: int
    at: int


@dataclass
class Trace:
    """What one run did to device memory.

    Attributes:
        events: in order of time.
        notes: what is less certain than usual, and why; one line each.
        unknown: the operation that could not be traced, where there was one: the trace then ends there and no verdict
            can be given.
        torch: version of the torch that ran.
        how: `fake cuda`, or `fake cpu` where the former does not hold on this build of torch.
        workspaces: libraries' scratch memory, in order of first use.
        allocator: the run's settings of the allocator, as `PYTORCH_CUDA_ALLOC_CONF` holds them.
    """

    events: list[Event] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unknown: str | None = None
    torch: str = ""
    how: How = "fake cuda"
    workspaces: list[Workspace] = field(default_factory=list)
    allocator: str = ""

    def to_json(self) -> str:
        """As JSON text; events as rows, their names in a table, since each stands in thousands of them."""
        names: dict[str, int] = {}

        def number(name: str) -> int:
            return names.setdefault(name, len(names))

        rows = [
            [KINDS.index(e.kind), e.block, e.size, e.stream, number(e.category), number(e.op), number(e.module),
             number(e.phase), e.step]
            for e in self.events
        ]  # fmt: skip
        whole = {
            "version": VERSION, "torch": self.torch, "how": self.how, "unknown": self.unknown, "notes": self.notes,
            "workspaces": [asdict(workspace) for workspace in self.workspaces], "names": list(names), "events": rows,
            "allocator": self.allocator,
        }  # fmt: skip
        return json.dumps(whole, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Trace:
        """Read back what `to_json` wrote.

        Raises:
            ValueError: it is no trace, or one of another version; in one line.
        """
        try:
            whole: dict[str, Any] = json.loads(text)
            if whole["version"] != VERSION:
                raise ValueError(f"its version is {whole['version']}, this program reads {VERSION}")
            names = whole["names"]
            events = [
                Event(KINDS[kind], block, size, stream, names[category], names[op], names[module], names[phase], step)
                for kind, block, size, stream, category, op, module, phase, step in whole["events"]
            ]  # fmt: skip
            workspaces = [Workspace(**workspace) for workspace in whole["workspaces"]]
            told = (whole["notes"], whole["unknown"], whole["torch"], whole["how"], workspaces, whole["allocator"])
            return cls(events, *told)
        except KeyError as error:
            raise ValueError(f"no trace of device memory: it has no {error}") from None
        except (TypeError, IndexError, ValueError) as error:
            raise ValueError(f"no trace of device memory: {error}") from None
