"""The rooms of `memory/` look one way: answers to replay, traced to replay; and no module comes back to itself."""

import ast
from pathlib import Path

import pytest

import pytest_trainguard.memory

PACKAGE = "pytest_trainguard.memory"
FOLDER = Path(pytest_trainguard.memory.__file__).parent
NOT_SEEN_FROM = {"replay": {"traced", "answers"}, "traced": {"answers"}}


def module_of(path):
    parts = path.relative_to(FOLDER).with_suffix("").parts
    return ".".join([PACKAGE, *(part for part in parts if part != "__init__")])


MODULES = {module_of(path): path for path in sorted(FOLDER.rglob("*.py"))}


def imported(path):
    """The modules of `memory/` that a file imports, anywhere in it: lazily and for type checking too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE):
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in MODULES)


ARROWS = {module: sorted(set(imported(path))) for module, path in MODULES.items()}


@pytest.mark.parametrize(("room", "others"), NOT_SEEN_FROM.items(), ids=NOT_SEEN_FROM)
def test_a_room_does_not_see_those_above_it(room, others):
    seen = {
        target.split(".")[2]
        for module, targets in ARROWS.items()
        if module.startswith(f"{PACKAGE}.{room}.")
        for target in targets
    }
    assert room in seen
    assert not seen & others


def test_no_module_comes_back_to_itself():
    done = set()

    def walk(module, way):
        assert module not in way, " → ".join([*way[way.index(module) :], module])
        if module not in done:
            for target in ARROWS[module]:
                walk(target, [*way, module])
            done.add(module)

    # The package's own names are resolved when they are used, so its arrows are no imports of it.
    for module in MODULES.keys() - {PACKAGE}:
        walk(module, [])
    assert len(done) > 30
