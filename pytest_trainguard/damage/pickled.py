"""What torch saved together with objects of a program's own classes, looked into and never unpickled.

Nothing that such a file names is imported or called, but for the few functions of torch that put a tensor together
(`OURS`): in the place of everything else stands a `StandIn`, which keeps what the file says is in the object.
`weights_only` with the classes that a file asks for would run their code.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

__all__ = ["StandIn", "look_into"]

OURS = {
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
    ("torch", "device"),
}


class StandIn(dict[object, object]):
    """In the place of an object of a class that is not imported: a table of its attributes, as far as they are told."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # it may be a key, or in a set

    def __init__(self, *args: object, **kwargs: object):
        super().__init__()

    def __setstate__(self, state: object) -> None:
        for told in state if isinstance(state, tuple) else (state,):
            if isinstance(told, Mapping):
                self.update(told)

    def append(self, item: object) -> None:
        """What it holds in order is not kept."""

    def extend(self, items: object) -> None:
        """What it holds in order is not kept."""

    def add(self, item: object) -> None:
        """What it holds in no order is not kept."""


def look_into(file: Path) -> tuple[object, list[str]]:
    """What stands in a file of torch's, and the classes that a `StandIn` stands for, `argparse.Namespace`.

    Raises:
        Exception: whatever torch makes of a file that is none of its own.
    """
    import torch

    foreign: dict[str, type[StandIn]] = {}

    class Inspector(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) == ("collections", "OrderedDict"):
                return OrderedDict
            if (module, name) in OURS or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
                return getattr(torch._utils if module == "torch._utils" else torch, name)
            whole = f"{module}.{name}"
            return foreign.setdefault(whole, type(name, (StandIn,), {}))

    def load(file: IO[bytes], **options: Any) -> object:
        return Inspector(file, **options).load()

    reader = SimpleNamespace(__name__="inspector", Unpickler=Inspector, load=load)
    content: object = torch.load(file, map_location="cpu", weights_only=False, pickle_module=reader)
    return content, list(foreign)
