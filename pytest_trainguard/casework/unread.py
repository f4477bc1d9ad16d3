"""Settings that a program takes, and no line of it reads: by its sources, and by a run in which they are others."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_trainguard.casework.effects import differs, reaches
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.verdicts.errors import Finding, NotApplicable

__all__ = ["find_unread", "require_read"]

LARGEST = 1 << 20  # bytes of a source that is read
SHOWN = 4  # names in a message
MOST_FILES = 1000  # that are looked at beside what was imported
_ELSEWHERE = {"site-packages", "node_modules", "__pycache__", "build", "dist"}
_BASES = {"object", "BaseModel", "BaseSettings", "NamedTuple", "TypedDict"}  # of classes whose fields nobody else reads


def require_read(guard: Guard) -> None:
    """Each number that can be set is read somewhere, or changes something.

    Nothing is said of a program that hands settings on as a whole (`Model(**settings)`), or most of whose settings are
    read where it is not seen.

    Raises:
        Finding: one is taken, stands in no line that reads it, and changes nothing that is recorded.
    """
    fields = [one for one in guard.subject.settings.fields if one.kind in ("int", "float") and reaches(guard, one)]
    names = {one.path.rpartition(".")[2]: one for one in fields}
    sources = guard.reference.own_modules
    others = _beside(sources)
    unread = find_unread(sources, names, others) if len(others) <= MOST_FILES else []
    if not unread or 2 * len(unread) > len(names):
        return
    changed = {names[name].path: value for name in unread if (value := _another(guard, names[name])) is not None}
    if not changed:
        return
    try:
        reference = guard.needs.repeatable_run()
    except NotApplicable:
        return
    told = ", ".join(f"{path} = {value!r}" for path, value in changed.items())
    (outcome,) = guard.run_all([RunRequest(f"set {told}", settings=changed, states=True)])
    if outcome.exit != 0 or differs(outcome, reference):
        return
    shown = ", ".join(list(changed)[:SHOWN]) + (f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else "")
    where = ", ".join(source.name for source in sources[:SHOWN])
    raise Finding(
        outcome.did,
        f"{shown}: taken, and read nowhere: in its sources ({where}) no line uses it, and every loss, gradient norm "
        "and file is as before, to the bit. A constant stands in its place, or it is left over: use it, or take it out",
        outcome.last_words,
        grade="unclear",
    )


def _another(guard: Guard, field: Field) -> object:
    """Another value for a setting; None where none is allowed."""
    value = guard.subject.settings.tiny(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    tried: list[int | float] = [value * 2, value + 1] if field.kind == "int" else [value / 2, value * 2, 0.5]
    return next((one for one in tried if one != value and field.allows(one)), None)


def _beside(sources: Iterable[Path]) -> list[Path]:
    """The other sources in the folders of a program's own, and below: it may import one of them another time.

    Of very many, one more than are looked at.
    """
    own = set(sources)
    found: set[Path] = set()
    for folder in {source.parent for source in own}:
        for place, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if not name.startswith(".") and name not in _ELSEWHERE]
            found.update(Path(place, name) for name in files if name.endswith(".py") and Path(place, name) not in own)
            if len(found) > MOST_FILES:
                return sorted(found)[: MOST_FILES + 1]
    return sorted(found)


def find_unread(sources: Iterable[Path], names: Iterable[str], others: Iterable[Path] = ()) -> list[str]:
    """The names that sources define as a setting, and never read, in their order.

    They are defined as a key (`{"width": 32}`, `dict(width=32)`), an option (`add_argument("--width")`) or an annotated
    field of a class that is nobody else's. Any other mention counts as one that reads it.

    Args:
        sources: what a run imported.
        names: of the settings.
        others: sources that may read them, too.

    Returns:
        none where a source cannot be read, or hands on what it does not name (`**settings`).
    """
    defined: set[str] = set()
    read: set[str] = set()
    trees = [_parse(source) for source in sources]
    known = [tree for tree in trees if tree is not None]
    closed = _takes_what_it_names(known)
    if len(known) < len(trees) or any(handed for tree in known for handed in _hands_on(tree, closed)):
        return []
    own = _own_classes(known)
    for tree in known:
        places = set(map(id, _places_of_definition(tree, defined, own)))
        read.update(_mentions(tree, places))
    for more in map(_parse, others):
        read.update(_mentions(more, set()) if more is not None else ())
    return [name for name in names if name in defined and name not in read]


def _parse(source: Path) -> ast.Module | None:
    try:
        content = source.read_bytes()
        return ast.parse(content) if len(content) <= LARGEST else None
    except (OSError, SyntaxError, ValueError):
        return None


def _takes_what_it_names(trees: Iterable[ast.Module]) -> set[str]:
    """The program's own functions and classes that take no argument but those that they name."""
    closed: set[str] = {"dict"}
    others: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            (others if node.args.kwarg else closed).add(node.name)
        elif isinstance(node, ast.ClassDef):
            open_ended = any(isinstance(one, ast.FunctionDef) and one.args.kwarg for one in node.body)
            (others if open_ended else closed).add(node.name)
    return closed - others


def _hands_on(tree: ast.Module, closed: set[str]) -> Iterator[bool]:
    """Whether each call gives what it does not name, to what is not `closed`: not of what it was given so itself."""
    given = {node.kwarg.arg for node in ast.walk(tree) if isinstance(node, ast.arguments) and node.kwarg}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name_of(node.func) not in closed:
            for keyword in node.keywords:
                passed = keyword.value
                if keyword.arg is None and not isinstance(passed, ast.Dict):
                    yield not (isinstance(passed, ast.Name) and passed.id in given)


def _own_classes(trees: Iterable[ast.Module]) -> set[str]:
    """The program's own classes, of whose fields no library reads one: all that they are made of are such, too."""
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    own: set[str] = set()
    for _ in classes:  # as often as one may be made of another
        own = {one.name for one in classes if {_name_of(base) for base in one.bases} <= _BASES | own}
    return own


def _places_of_definition(tree: ast.Module, defined: set[str], own: set[str]) -> Iterator[ast.AST]:
    """The keys in a tree that are names of settings; adds these, and all other names that are defined, to `defined`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = [key for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
            defined.update(str(key.value) for key in keys)
            yield from keys
        elif isinstance(node, ast.Call) and _name_of(node.func) == "dict":
            defined.update(keyword.arg for keyword in node.keywords if keyword.arg)
        elif isinstance(node, ast.Call) and _name_of(node.func) in ("add_argument", "option"):
            options = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            defined.update(one.lstrip("-").replace("-", "_") for one in options if one.startswith("--"))
        elif isinstance(node, ast.ClassDef) and node.name in own:
            targets = [one.target for one in node.body if isinstance(one, ast.AnnAssign)]
            defined.update(target.id for target in targets if isinstance(target, ast.Name))


def _name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _mentions(tree: ast.Module, definitions: set[int]) -> Iterator[str]:
    """Every name that is read, every attribute, and every text, but those of definitions."""
    for node in ast.walk(tree):
        if id(node) in definitions:
            continue
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
