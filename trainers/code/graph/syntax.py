"""The syntax tree of Python code: its nodes, the tokens that they cover, and the scopes that names belong to."""

from __future__ import annotations

import ast
import bisect
from collections.abc import Callable
from typing import Any

from trainers.code.graph.kinds import NODE_KINDS, OTHER, STRING
from trainers.code.graph.tokens import Tokens

DEEPEST = 300
"""Syntax nodes in each other, at most: what is nested deeper is not analysed."""
LONGEST_CONSTANT = 32
"""Characters of a constant in an f-string that are its text."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPES = {*_FUNCTIONS, *COMPREHENSIONS, ast.ClassDef}
_TEXTS = {getattr(ast, name) for name in ("JoinedStr", "TemplateStr") if hasattr(ast, name)}
_KINDS = {
    getattr(ast, name): number for number, name in enumerate(NODE_KINDS) if number > STRING and hasattr(ast, name)
}
_NEVER_NODES = frozenset(
    {"ctx", "op", "ops", "id", "attr", "kind", "level", "module", "type_comment", "simple", "is_async", "type_ignores"}
)
_fields: dict[type[ast.AST], tuple[str, ...]] = {}


class Scope:
    """Where names are looked up: a module, function, class or comprehension."""

    def __init__(self, number: int, node: ast.AST | None, outer: Scope | None) -> None:
        self.number = number
        self.outer = outer
        self.of_class = isinstance(node, ast.ClassDef)
        self.of_comprehension = isinstance(node, COMPREHENSIONS)
        self.bound: set[str] = set()
        self.declared: dict[str, bool] = {}
        """Names declared elsewhere; whether ``global``, else ``nonlocal``."""
        self._variables: dict[str, tuple[int, str]] = {}

    def variable(self, name: str) -> tuple[int, str]:
        """The scope's number that the name belongs to, and the name."""
        known = self._variables.get(name)
        if known is None:
            known = self._variables[name] = (self._resolve(name), name)
        return known

    def _resolve(self, name: str) -> int:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.declared:
                if scope.declared[name]:
                    return 0
            elif name in scope.bound and (scope is self or not scope.of_class):
                return scope.number
            scope = scope.outer
        return 0


class Syntax:
    """The nodes of a syntax tree, parents before children, and where they stand.

    Attributes:
        kinds, texts, parents: of each node.
        covers: each node's first token, and the one after its last; none in an f-string.
        owners: for each token, the innermost node that covers it.
        inside: for the last token of an f-string, the nodes in it.
        children: of each node, those in the order in which they are evaluated, about.
        spans: each node's first token, and the one after its last; in an f-string ``~number`` twice.
        scopes: of the nodes that make one.
    """

    def __init__(self, tree: ast.Module, tokens: Tokens) -> None:
        self.kinds: list[int] = []
        self.texts: list[str] = []
        self.parents: list[int] = []
        self.covers: list[tuple[int, int]] = []
        self.owners: list[int] = [0] * len(tokens.kinds)
        self.inside: dict[int, list[int]] = {}
        self.children: dict[ast.AST, list[ast.AST]] = {}
        self.spans: dict[ast.AST, tuple[int, int]] = {}
        self.scopes: dict[ast.AST, Scope] = {}
        self._first = {start: number for number, start in enumerate(tokens.starts)}
        self._after = {end: number for number, end in enumerate(tokens.ends, 1)}
        self._tokens = tokens
        self._read(tree)

    def _read(self, tree: ast.Module) -> None:
        module = self.scopes[tree] = Scope(0, None, None)
        # node, number of its parent, levels above it, its scope, and the f-string's last token that it is in
        waiting: list[tuple[ast.AST, int, int, Scope, int]] = [(tree, -1, 0, module, -1)]
        while waiting:
            node, parent, depth, scope, within = waiting.pop()
            if depth > DEEPEST:
                raise RecursionError
            number = len(self.kinds)
            made_of = type(node)
            self.kinds.append(_KINDS.get(made_of, OTHER))
            self.parents.append(parent)
            if within >= 0:
                self.texts.append(_name_of(node))
                self.covers.append((0, 0))
                self.spans[node] = (~number, ~number)
                self.inside[within].append(number)
            else:
                self.texts.append("")
                first, after = self.spans[node] = self._span(node)
                self.covers.append((first, after))
                self.owners[first:after] = [number] * (after - first)
                if made_of in _TEXTS:
                    within = after - 1
                    self.inside[within] = []
            bind = _BINDS.get(made_of)
            if bind is not None:
                bind(scope, node)
            if made_of in _SCOPES:
                scope = self.scopes[node] = Scope(len(self.scopes), node, scope)
            children = self.children[node] = _children(node)
            for child in reversed(children):
                waiting.append((child, number, depth + 1, scope, within))

    def _span(self, node: ast.AST) -> tuple[int, int]:
        if isinstance(node, ast.Module):
            return 0, len(self._tokens.kinds)
        if not hasattr(node, "lineno"):  # arguments, a comprehension's clause, ...: as far as what they are made of
            spans = [self._span(child) for child in _children(node)]
            return (min(first for first, _ in spans), max(after for _, after in spans)) if spans else (0, 0)
        first = self._first_at((node.lineno, node.col_offset))  # type: ignore[attr-defined]
        if getattr(node, "decorator_list", None):
            decorator = self._span(node.decorator_list[0])[0]  # type: ignore[attr-defined]
            while decorator > 0 and self._tokens.texts[decorator] != "@":
                decorator -= 1
            first = min(first, decorator)
        end = (node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]
        after = self._after.get(end)
        if after is None:
            after = bisect.bisect_right(self._tokens.ends, end)
        return first, after

    def _first_at(self, start: tuple[int, int]) -> int:
        first = self._first.get(start)
        return bisect.bisect_left(self._tokens.starts, start) if first is None else first

    def place(self, node: ast.AST) -> int:
        """The token of a name, or in an f-string ``~number`` of the node."""
        return self.spans[node][0]

    def defined(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
        """The token of a function's or class's name."""
        first = self._first_at((node.lineno, node.col_offset))
        return first + (2 if isinstance(node, ast.AsyncFunctionDef) else 1)

    def named(self, text: str, node: ast.AST) -> int:
        """The last token of a node that is this name."""
        first, after = self.spans[node]
        if first < 0:
            return first
        return next((token for token in range(after - 1, first - 1, -1) if self._tokens.texts[token] == text), after)

    def caught(self, node: ast.ExceptHandler) -> int:
        """The token of the name of a handler's exception: the one after ``as``."""
        after_type = self.spans[node.type][1] if node.type is not None else 0
        texts = self._tokens.texts
        return next((token for token in range(after_type, len(texts)) if texts[token] == node.name), len(texts))


def _children(node: ast.AST) -> list[ast.AST]:
    made_of = type(node)
    if made_of is ast.Constant:
        return []
    names = _fields.get(made_of)
    if names is None:
        names = _fields[made_of] = tuple(name for name in node._fields if name not in _NEVER_NODES)
    found: list[ast.AST] = []
    for name in names:
        value = getattr(node, name, None)
        if isinstance(value, list):
            found += [child for child in value if isinstance(child, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    if made_of in _TEXTS:  # the token has the text between the values
        return [child for child in found if not isinstance(child, ast.Constant)]
    return found


def _name_of(node: ast.AST) -> str:
    for field in ("id", "attr", "arg"):
        name = getattr(node, field, None)
        if isinstance(name, str):
            return name
    return repr(node.value)[:LONGEST_CONSTANT] if isinstance(node, ast.Constant) else ""


def _bind_name(scope: Scope, node: Any) -> None:
    if not isinstance(node.ctx, ast.Load):
        scope.bound.add(node.id)


def _bind_assigned(scope: Scope, node: Any) -> None:
    while scope.of_comprehension and scope.outer is not None:  # a walrus binds outside of comprehensions
        scope.declared[node.target.id] = False
        scope = scope.outer
    scope.bound.add(node.target.id)


def _bind_named(scope: Scope, node: Any) -> None:
    if isinstance(node.name, str):  # that of a type alias is a Name
        scope.bound.add(node.name)


def _bind_import(scope: Scope, node: Any) -> None:
    scope.bound.add(node.asname or node.name.split(".")[0])


def _bind_rest(scope: Scope, node: Any) -> None:
    if node.rest is not None:
        scope.bound.add(node.rest)


def _declare(scope: Scope, node: Any) -> None:
    for name in node.names:
        scope.declared[name] = isinstance(node, ast.Global)


_BINDS: dict[type[ast.AST], Callable[[Scope, Any], None]] = {
    ast.Name: _bind_name,
    ast.arg: lambda scope, node: scope.bound.add(node.arg),
    ast.NamedExpr: _bind_assigned,
    ast.alias: _bind_import,
    ast.MatchMapping: _bind_rest,
    ast.Global: _declare,
    ast.Nonlocal: _declare,
    **{
        getattr(ast, name): _bind_named
        for name in (
            "FunctionDef", "AsyncFunctionDef", "ClassDef", "ExceptHandler", "MatchAs", "MatchStar",
            "TypeVar", "ParamSpec", "TypeVarTuple",
        )
        if hasattr(ast, name)
    },
}  # fmt: skip
