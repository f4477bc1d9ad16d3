"""The house as ARCHITECTURE.md draws it: no circle between files, and every import runs down its list of rooms."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"pytest_trainguard": "pytest_trainguard", "edge_cases": "pytest_trainguard.edge_cases",
           "trainers": "trainers", "examples": "examples"}  # fmt: skip


@cache
def files():
    """The project's modules by name. A package's `__init__` bears the package's name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


def imports(path):
    """The project's modules that a file imports, anywhere in it: for type checkers only, and inside functions, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files())
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in files() or node.module in files():
                    yield full if full in files() else node.module


@cache
def arrows():
    return {module: sorted(set(imports(path)) - {module}) for module, path in files().items()}


def room_of(module):
    """The room that a module is in: its folder, or of the package's own files their name."""
    first, *rest = module.split(".")
    return rest[0] if rest and first == "pytest_trainguard" else first


def rooms():
    """The rooms in the order of ARCHITECTURE.md's table: each may import those below it."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    return [name.strip("/").removesuffix(".py") for name in re.findall(r"^\| `([\w/.]+)` \|", text, re.M)]


def circles(graph):
    """Modules that import each other in a circle, one circle for each that a walk meets."""
    found, done = [], set()

    def walk(module, trail):
        if module in trail:
            found.append(" → ".join([*trail[trail.index(module) :], module]))
        elif module not in done:
            for following in graph.get(module, ()):
                walk(following, [*trail, module])
            done.add(module)

    for module in graph:
        walk(module, [])
    return found


def test_no_files_import_each_other():
    assert circles(arrows()) == []


def test_a_circle_would_be_found():
    assert circles({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}) == ["a → b → c → a"]
    assert circles({"a": ["b", "c"], "b": ["c"], "c": []}) == []


def test_every_room_is_on_the_map():
    assert set(rooms()) == {room_of(module) for module in files()}
    assert len(rooms()) == len(set(rooms()))


@pytest.mark.parametrize("room", sorted({room_of(module) for module in files()}))
def test_imports_run_down_the_map(room):
    order = {name: place for place, name in enumerate(rooms())}
    upwards = [
        f"{module} imports {other}"
        for module, imported in arrows().items()
        if room_of(module) == room
        for other in imported
        if order[room_of(other)] < order[room]
    ]
    assert upwards == []
