"""Who imports whom in `trainers/`: no circles, and no arrow against the order of the folders."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from trainer_runs import ROOT

ALLOWED = {
    "common": {"common"},
    "code": {"code", "common"},
    "chat": {"chat", "common"},
    "queue": {"queue", "chat", "common"},
    "preflight": {"code", "chat", "common", "queue"},
}
"""What the modules of each folder may import; imports for type checking alone, and those in functions, count too."""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in (ROOT / "trainers").rglob("*.py")}


def imported(name: str) -> set[str]:
    """The modules of `trainers/` that one names in its import statements."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (whole & MODULES.keys()) or {str(node.module)}
    return (found & MODULES.keys()) - {name}


def test_no_circles() -> None:
    order = list(TopologicalSorter({name: imported(name) for name in MODULES}).static_order())
    assert order.index("trainers.common.errors") < order.index("trainers.code.loop") < order.index("trainers.preflight")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_order_of_the_folders(name: str) -> None:
    folder = name.split(".")[1] if "." in name else None
    reached = {other.split(".")[1] for other in imported(name)}
    assert folder in ALLOWED or not reached, f"{name} stands in no folder of the order"
    assert reached <= ALLOWED.get(folder or "", set())
