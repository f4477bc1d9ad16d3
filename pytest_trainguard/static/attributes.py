"""When a type checker's "has no attribute" is certain enough to be told.

Held against the sources of transformers, peft, accelerate, torch-geometric and Lightning, where nearly every such
finding is the checker's: a base class was declared and another one is passed, a mixin uses what its sibling has, a
module has the name in some versions only. What is left is what a changed or misspelt name leaves behind.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_MODULE = re.compile(r"^Module `([\w.]+)` has no member `(\w+)`")
_OBJECT = re.compile(r"^Object of type `(.+)` has no attribute `(\w+)`")
_PLAIN = re.compile(r"None|Literal\[.*\]|(?:list|dict|set|tuple)(?:\[.*\])?")


class Project:
    """What the files that are read have in them together.

    Attributes:
        modules: the last parts of their modules' names.
        classes: the classes by name.
        inherited: the names of classes that some other class is made from.
        bound: every name that some attribute, method or class is given: it may be there by another class's doing.
    """

    def __init__(self, trees: Mapping[Path, ast.Module]):
        nodes = [node for tree in trees.values() for node in ast.walk(tree)]
        self.modules = {path.parent.name if path.stem == "__init__" else path.stem for path in trees}
        self.classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
        bases = [base for node in nodes if isinstance(node, ast.ClassDef) for base in node.bases]
        self.inherited = {ast.unparse(base).rpartition(".")[2] for base in bases}
        self.bound = set(_bound(nodes))


def certainly_missing(text: str, tree: ast.Module, line: int, column: int, project: Project) -> bool:
    """Whether what the checker says of an attribute can only end in an AttributeError.

    Args:
        text: the checker's words.
        tree: the file.
        line: the place in it, counted from 1.
        column: counted from 1 as well.
        project: all the files.
    """
    if _is_caught(tree, line):
        return False
    if found := _MODULE.match(text):
        return found[1].rpartition(".")[2] in project.modules or _standard_library_lacks(*found.groups())
    found = _OBJECT.match(text)
    if not found:
        return False
    kind, name = found.groups()
    if _PLAIN.fullmatch(kind):
        return _is_a_local(tree, line, column)
    return name not in project.bound and _is_closed(kind, tree, line, project)


def _standard_library_lacks(module: str, name: str) -> bool:
    """Asked of the module itself. A module of another library may have the name in other versions, or elsewhere."""
    if module.partition(".")[0] not in sys.stdlib_module_names - {"antigravity", "this"}:
        return False
    try:
        return not hasattr(importlib.import_module(module), name)
    except ImportError:
        return False


def around(tree: ast.Module, line: int) -> list[ast.AST]:
    """The nodes that a line is in, from the outside in."""
    return [
        node
        for node in ast.walk(tree)
        if getattr(node, "lineno", line + 1) <= line <= (getattr(node, "end_lineno", None) or 0)
    ]


def _bound(nodes: list[ast.AST]) -> Iterator[str]:
    added_to = {id(node.target) for node in nodes if isinstance(node, ast.AugAssign)}  # which must be there before
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and id(node) not in added_to:
            yield node.attr
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


def _is_caught(tree: ast.Module, line: int) -> bool:
    """Whether the line is in a `try` that catches an AttributeError by its name."""
    return any(
        node.body[0].lineno <= line <= (node.body[-1].end_lineno or 0)
        and any(handler.type is not None and "AttributeError" in ast.unparse(handler.type) for handler in node.handlers)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
    )


def _is_a_local(tree: ast.Module, line: int, column: int) -> bool:
    """Whether the object is a plain name that is no parameter: what is declared of others need not be so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (node.lineno, node.col_offset) == (line, column - 1):
            functions = [outer for outer in around(tree, line) if isinstance(outer, FUNCTIONS)]
            parameters = {
                arg.arg for function in functions for arg in ast.walk(function.args) if isinstance(arg, ast.arg)
            }
            if isinstance(node.value, ast.Name) and node.value.id not in parameters:
                return True
    return False


def _is_closed(kind: str, tree: ast.Module, line: int, project: Project) -> bool:
    """Whether a type is a class of this file, or of one that it is imported from, that nothing else adds to."""
    if kind.startswith("Self@"):
        outer = [node for node in around(tree, line) if isinstance(node, ast.ClassDef)]
        found = outer[-1] if outer else None
    else:
        imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        origins = [node.module for node in imported if any((name.asname or name.name) == kind for name in node.names)]
        here = all((origin or "").rpartition(".")[2] in project.modules for origin in origins)
        found = project.classes.get(kind) if here else None
    if found is None or found.name in project.inherited:
        return False
    if not found.decorator_list and not any(
        isinstance(node, FUNCTIONS) and node.name == "__init__" for node in found.body
    ):
        return bool(found.bases) and _is_settings(found)  # else it may be a mixin, made whole elsewhere
    return not found.bases or _is_settings(found)


def _is_settings(node: ast.ClassDef) -> bool:
    return all(ast.unparse(base) in ("object", "BaseModel", "pydantic.BaseModel") for base in node.bases)
