"""What a type checker takes for possibly unbound, looked at again: is it bound wherever it is used?

A checker holds each branch for possible with each other one. A program that asks the same question twice, once before
the assignment and once before the use, is sound; and where only a loop assigns a name, what is missing is a turn of
the loop, of which the checker knows nothing. So it is with what a loop counts: it is 0 only where that has no turn.
And a function that ends the program, which does not say so (`NoReturn`), ends the branch that calls it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

from pytest_trainguard.static.attributes import FUNCTIONS, around

__all__ = ["assigned_by_a_loop", "assigned_or_left", "assigned_where_used", "divided_by_a_count", "never_returning"]

_EXITS = {"exit", "quit", "_exit", "abort"}  # of `sys`, `os`, or by themselves
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_BLOCKS = ("body", "orelse", "finalbody")


def assigned_where_used(tree: ast.Module, line: int, name: str) -> bool:
    """Whether what stands before the use in a line assigns the name under a condition under which the use stands too.

    The condition is one that nothing in between changes: it calls nothing, and its names are not assigned again.
    """
    scope = _scope(tree, line)
    if _deletes(scope, name):
        return False
    before, conditions = _way_to(scope, line)
    holds = {part for test in conditions for part in _parts(test)}
    return any(
        isinstance(earlier, ast.If)
        and _parts(earlier.test) <= holds
        and _assigns(earlier.body, name)
        and not _changes(scope, earlier.test, earlier.lineno, line)
        for earlier in before
    )


def never_returning(trees: Iterable[ast.Module]) -> set[str]:
    """The names of a project's functions that always raise, or end the program: all that have one of these names."""
    by_name: dict[str, list[ast.FunctionDef]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                by_name.setdefault(node.name, []).append(node)
    found: set[str] = set()
    while True:
        more = {name for name, made in by_name.items() if all(_never_returns(one, found) for one in made)}
        if more == found:
            return found
        found = more


def _never_returns(function: ast.FunctionDef, known: set[str]) -> bool:
    inner = {id(node) for each in function.body for part in ast.walk(each) if isinstance(part, FUNCTIONS)
             for node in ast.walk(part)}  # fmt: skip
    own = [node for each in function.body for node in ast.walk(each) if id(node) not in inner]
    comes_back = any(isinstance(node, ast.Return | ast.Yield | ast.YieldFrom) for node in own)
    return not comes_back and _leaves(function.body, None, known)


def assigned_or_left(tree: ast.Module, line: int, name: str, known: set[str]) -> bool:
    """Whether some statement before the use in a line assigns the name in each of its branches that goes on.

    Args:
        tree: of the file.
        line: of the use.
        name: that is used.
        known: the project's functions that never return.
    """
    scope = _scope(tree, line)
    before, _ = _way_to(scope, line)
    return not _deletes(scope, name) and any(_leaves([earlier], name, known) for earlier in before)


def _leaves(block: Sequence[ast.stmt], name: str | None, known: set[str]) -> bool:
    """Whether nobody comes to the end of a block, but for those who have assigned the name on the way."""
    return any(_leaves_one(statement, name, known) for statement in block)


def _leaves_one(statement: ast.stmt, name: str | None, known: set[str]) -> bool:
    if isinstance(statement, ast.Raise | ast.Return | ast.Continue | ast.Break):
        return True
    if isinstance(statement, ast.If):
        return _leaves(statement.body, name, known) and _leaves(statement.orelse, name, known)
    if isinstance(statement, ast.With | ast.AsyncWith):
        if any("suppress" in ast.dump(item.context_expr) for item in statement.items):
            return False  # what is raised in it goes on behind it
        stored = name is not None and any(_stores(item, name) for item in statement.items)
        return stored or _leaves(statement.body, name, known)
    if isinstance(statement, ast.Try):
        tried = _leaves([*statement.body, *statement.orelse], name, known)
        handled = all(_leaves(handler.body, name, known) for handler in statement.handlers)
        return (tried and handled) or _leaves(statement.finalbody, name, known)
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        function = statement.value.func
        called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if called in known or called in _EXITS:
            return True
    return name is not None and not isinstance(statement, (ast.Match, *_LOOPS)) and _stores(statement, name)


def assigned_by_a_loop(tree: ast.Module, line: int, name: str) -> bool:
    """Whether every turn of a loop that stands before the use in a line assigns the name."""
    scope = _scope(tree, line)
    before, _ = _way_to(scope, line)
    return not _deletes(scope, name) and any(
        isinstance(earlier, _LOOPS) and _assigns(earlier.body, name) for earlier in before
    )


def divided_by_a_count(tree: ast.Module, line: int, column: int) -> bool:
    """Whether a division at a place (counted from 1) is by what a loop before it changes, as the mean of many is."""
    on_the_line = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and node.lineno == line]
    # Before Python 3.12 what stands in an f-string has no column of its own.
    there = [node for node in on_the_line if node.col_offset == column - 1] or on_the_line
    divisors = {name.id for node in there for name in ast.walk(node.right) if isinstance(name, ast.Name)}
    before, _ = _way_to(_scope(tree, line), line)
    loops = [inner for statement in before for inner in ast.walk(statement) if isinstance(inner, _LOOPS)]
    return any(_stores(inner, name) for loop in loops for inner in loop.body for name in divisors)


def _scope(tree: ast.Module, line: int) -> ast.AST:
    """The innermost function around a line, or the module."""
    functions = [node for node in around(tree, line) if isinstance(node, FUNCTIONS)]
    return functions[-1] if functions else tree


def _way_to(scope: ast.AST, line: int) -> tuple[list[ast.stmt], list[ast.expr]]:
    """The statements that have run before a line is reached, and the conditions of the branches that it is in."""
    before: list[ast.stmt] = []
    conditions = []
    block: Sequence[ast.stmt] = getattr(scope, "body", [])
    while block:
        inside = next((each for each in block if each.lineno <= line <= (each.end_lineno or 0)), None)
        if inside is None:
            break
        before += block[: block.index(inside)]
        block = next((inner for inner in _blocks(inside) if inner[0].lineno <= line <= (inner[-1].end_lineno or 0)), [])
        if isinstance(inside, ast.If) and block is inside.body:
            conditions.append(inside.test)
    return before, conditions


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for part in (statement, *getattr(statement, "handlers", []), *getattr(statement, "cases", [])):
        yield from (block for name in _BLOCKS if (block := getattr(part, name, None)))


def _parts(test: ast.expr) -> set[str]:
    """What holds where a test is passed: of `a and b` both."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return {part for value in test.values for part in _parts(value)}
    return {ast.dump(test)}


def _assigns(block: Sequence[ast.stmt], name: str) -> bool:
    """Whether whoever runs the block to its end, or to its next turn, has assigned the name."""
    for statement in block:
        if isinstance(statement, ast.If):
            if _assigns(statement.body, name) and _assigns(statement.orelse, name):
                return True
        elif isinstance(statement, ast.With | ast.AsyncWith):
            if _assigns(statement.body, name) or any(_stores(item, name) for item in statement.items):
                return True
        elif not isinstance(statement, (ast.Try, ast.Match, *_LOOPS)) and _stores(statement, name):
            return True
        if any(isinstance(node, ast.Continue | ast.Break) for node in ast.walk(statement)):
            return False
    return False


def _stores(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name == name
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any((alias.asname or alias.name.partition(".")[0]) == name for alias in node.names)
    return any(
        isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store) and inner.id == name
        for inner in ast.walk(node)
    )


def _deletes(scope: ast.AST, name: str) -> bool:
    return any(
        isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del) and node.id == name for node in ast.walk(scope)
    )


def _changes(scope: ast.AST, test: ast.expr, start: int, end: int) -> bool:
    """Whether a test could come to something else in a later line: it calls something, or what it looks at is set."""
    if any(isinstance(node, ast.Call | ast.Await | ast.NamedExpr) for node in ast.walk(test)):
        return True
    names = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(test) if isinstance(node, ast.Attribute)}
    return any(
        isinstance(getattr(node, "ctx", None), ast.Store)
        and start <= node.lineno <= end
        and (
            (isinstance(node, ast.Name) and node.id in names)
            or (isinstance(node, ast.Attribute) and node.attr in attributes)
        )
        for node in ast.walk(scope)
        if isinstance(node, ast.Name | ast.Attribute)
    )
