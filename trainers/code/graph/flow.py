"""How values flow between the variables of Python code: where each was last read, and last written.

The flow takes the branches of ``if``, ``match``, ``try`` and conditional expressions as alternatives, leads the
end of a loop back to its start, and stops at ``return``, ``raise``, ``break`` and ``continue``. In ``try``, any
statement may be the one that fails. A nested function or lambda runs, once or not at all, where it is defined
or at the end of the function around it.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from trainers.code.graph.syntax import COMPREHENSIONS, Syntax
from trainers.code.graph.tokens import Tokens

MOST_ORIGINS = 16
"""An occurrence has at most so many last uses, and so many last writes: the nearest. Edges stay in proportion
to nodes, whatever the code."""


class Flow:
    """Where each occurrence of a variable was last read and last written.

    Code is cut into blocks that run from beginning to end. A block knows which may run just before it, and
    the last read and the last write of each variable in it. What an occurrence does not find before itself in
    its own block is looked up in the blocks before, nearest first, once all are known.

    Attributes:
        read: the places (see `Syntax.place`) that read a variable.
        written: those that bind one; one that does both is here only.
    """

    def __init__(self, syntax: Syntax, tokens: Tokens) -> None:
        self.read: list[int] = []
        self.written: list[int] = []
        self._syntax = syntax
        self._texts = tokens.texts
        self._before: list[list[int]] = []
        self._reads: list[dict[tuple[int, str], int]] = []
        self._writes: list[dict[tuple[int, str], int]] = []
        self._entered: dict[int, int] = {}  # first block of a scope that is made anew: its number
        self._occurrences: list[tuple[int, tuple[int, str], int, int | None, int | None]] = []
        self._now = self._block()
        self._breaks: list[list[int]] = []
        self._continues: list[list[int]] = []
        self._returns: list[list[int]] = []
        self._nested: list[list[int]] = []

    def edges(self, kept: Callable[[int], bool]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Last uses and last writes: pairs of an occurrence that is kept and one before it."""
        uses: list[tuple[int, int]] = []
        writes: list[tuple[int, int]] = []
        for place, variable, block, use, write in self._occurrences:
            if kept(place):
                for table, known, pairs in ((self._reads, use, uses), (self._writes, write, writes)):
                    if known is not None:
                        pairs.append((place, known))
                    else:
                        pairs += [(place, origin) for origin in self._origins(table, variable, block)]
        return uses, writes

    def _origins(self, table: list[dict[tuple[int, str], int]], variable: tuple[int, str], block: int) -> list[int]:
        found: dict[int, None] = {}
        seen = set()
        waiting = deque([block])
        while waiting and len(found) < MOST_ORIGINS:
            block = waiting.popleft()
            if self._entered.get(block) == variable[0]:
                continue  # here the variable begins
            for before in self._before[block]:
                if before not in seen:
                    seen.add(before)
                    origin = table[before].get(variable)
                    if origin is None:
                        waiting.append(before)
                    else:
                        found[origin] = None
        return list(found)[:MOST_ORIGINS]

    # Occurrences and blocks.

    def _block(self, *before: int) -> int:
        """A new block, which runs after any of those."""
        self._before.append(list(before))
        self._reads.append({})
        self._writes.append({})
        return len(self._before) - 1

    def _occurs(self, variable: tuple[int, str], place: int) -> None:
        now = self._now
        use, write = self._reads[now].get(variable), self._writes[now].get(variable)
        self._occurrences.append((place, variable, now, use, write))

    def _use(self, name: str, place: int) -> None:
        variable = self._scope.variable(name)
        self._occurs(variable, place)
        self._reads[self._now][variable] = place
        self.read.append(place)

    def _write(self, name: str, place: int) -> None:
        variable = self._scope.variable(name)
        self._occurs(variable, place)
        self._writes[self._now][variable] = place
        self.written.append(place)

    # The walk.

    def module(self, tree: ast.Module) -> None:
        """Follow the whole tree."""
        self._scope = self._syntax.scopes[tree]
        self._visit(*tree.body)

    def _visit(self, *nodes: ast.AST | None) -> None:
        children, visitors = self._syntax.children, _VISITORS
        waiting = [node for node in reversed(nodes) if node is not None]
        while waiting:
            node = waiting.pop()
            visitor = visitors.get(type(node))
            if visitor is None:
                waiting += reversed(children[node])
            else:
                visitor(self, node)

    def _name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self._write(node.id, self._syntax.place(node))
        else:
            self._use(node.id, self._syntax.place(node))

    def _assign(self, node: ast.Assign) -> None:
        self._visit(node.value, *node.targets)

    def _assign_annotated(self, node: ast.AnnAssign) -> None:
        self._visit(node.annotation, node.value)
        if node.value is not None or not isinstance(node.target, ast.Name):  # else it declares and assigns nothing
            self._visit(node.target)

    def _assign_augmented(self, node: ast.AugAssign) -> None:
        if not isinstance(node.target, ast.Name):
            self._visit(node.target, node.value)
            return
        variable, place = self._scope.variable(node.target.id), self._syntax.place(node.target)
        self._occurs(variable, place)
        self._reads[self._now][variable] = place
        self._visit(node.value)
        self._writes[self._now][variable] = place
        self.written.append(place)

    def _assign_inside(self, node: ast.NamedExpr) -> None:
        self._visit(node.value, node.target)

    def _if(self, node: ast.If) -> None:
        ends = []
        while True:
            self._visit(node.test)
            tested = self._now
            self._now = self._block(tested)
            self._visit(*node.body)
            ends.append(self._now)
            self._now = self._block(tested)
            if len(node.orelse) != 1 or not isinstance(node.orelse[0], ast.If):
                break
            node = node.orelse[0]  # no recursion for a long chain of elif
        self._visit(*node.orelse)
        self._now = self._block(*ends, self._now)

    def _if_expression(self, node: ast.IfExp) -> None:
        self._visit(node.test)
        tested = self._now
        self._now = self._block(tested)
        self._visit(node.body)
        end = self._now
        self._now = self._block(tested)
        self._visit(node.orelse)
        self._now = self._block(end, self._now)

    def _and_or(self, node: ast.BoolOp) -> None:
        ends = []
        for value in node.values:
            self._visit(value)
            ends.append(self._now)
            self._now = self._block(self._now)
        self._now = self._block(*ends)

    def _for(self, node: ast.For | ast.AsyncFor) -> None:
        self._visit(node.iter)
        head = self._block(self._now)
        self._now = self._block(head)
        self._visit(node.target)
        self._loop(node, head, head)

    def _while(self, node: ast.While) -> None:
        head = self._now = self._block(self._now)
        self._visit(node.test)
        tested = self._now
        self._now = self._block(tested)
        endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        self._loop(node, head, None if endless else tested)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While, head: int, left: int | None) -> None:
        """The body, which leads back to ``head``; where the loop ends by itself, it does so after ``left``."""
        self._breaks.append([])
        self._continues.append([])
        self._visit(*node.body)
        self._before[head] += [*self._continues.pop(), self._now]
        breaks = self._breaks.pop()
        self._now = self._block() if left is None else self._block(left)
        self._visit(*node.orelse)
        self._now = self._block(self._now, *breaks)

    def _break(self, node: ast.Break) -> None:
        self._leave(self._breaks)

    def _continue(self, node: ast.Continue) -> None:
        self._leave(self._continues)

    def _return(self, node: ast.Return) -> None:
        self._visit(node.value)
        self._leave(self._returns)

    def _raise(self, node: ast.Raise) -> None:
        self._visit(node.exc, node.cause)
        self._leave(self._returns)

    def _leave(self, ways: list[list[int]]) -> None:
        if ways:  # else "return" stands outside of a function: it parses all the same
            ways[-1].append(self._now)
        self._now = self._block()

    def _assert(self, node: ast.Assert) -> None:
        self._visit(node.test)
        tested = self._now
        if node.msg is not None:
            self._now = self._block(tested)
            self._visit(node.msg)
        self._now = self._block(tested)

    def _try(self, node: Any) -> None:
        begin = self._now
        first = len(self._before)
        for statement in node.body:
            self._now = self._block(self._now)
            self._visit(statement)
        failed = [begin, *range(first, len(self._before))]
        self._visit(*node.orelse)
        ends = [self._now]
        for handler in node.handlers:
            self._now = self._block(*failed)
            self._visit(handler.type)
            if handler.name is not None:
                self._write(handler.name, self._syntax.caught(handler))
            self._visit(*handler.body)
            ends.append(self._now)
        if node.finalbody:  # runs whatever happened
            ends += [begin, *range(first, len(self._before))]
        self._now = self._block(*ends)
        self._visit(*node.finalbody)

    def _match(self, node: ast.Match) -> None:
        self._visit(node.subject)
        ends = []
        for case in node.cases:
            before = self._now
            self._now = self._block(before)
            self._visit(case.pattern, case.guard)
            tested = self._now
            self._now = self._block(tested)
            self._visit(*case.body)
            ends.append(self._now)
            always = isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None
            self._now = self._block() if always else self._block(before, tested)
        self._now = self._block(*ends, self._now)

    def _pattern(self, node: Any) -> None:
        self._visit(*self._syntax.children[node])
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name is not None:
            self._write(name, self._syntax.named(name, node))

    def _import(self, node: ast.alias) -> None:
        if node.name != "*":
            name = node.asname or node.name.split(".")[0]
            self._write(name, self._syntax.named(name, node) if node.asname else self._syntax.place(node))

    def _type_parameter(self, node: Any) -> None:
        self._visit(*self._syntax.children[node])
        self._write(node.name, self._syntax.named(node.name, node))

    def _argument(self, node: ast.arg) -> None:
        self._write(node.arg, self._syntax.place(node))

    def _class(self, node: ast.ClassDef) -> None:
        self._visit(*node.decorator_list, *node.bases, *node.keywords)
        outer, self._scope = self._scope, self._syntax.scopes[node]
        self._visit(*getattr(node, "type_params", ()), *node.body)
        self._scope = outer
        self._write(node.name, self._syntax.defined(node))

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = _arguments(node.args)
        self._visit(*node.decorator_list, *node.args.defaults, *node.args.kw_defaults)
        self._visit(*(argument.annotation for argument in arguments), node.returns)
        self._write(node.name, self._syntax.defined(node))
        self._run(node, [*getattr(node, "type_params", ()), *arguments], node.body)

    def _lambda(self, node: ast.Lambda) -> None:
        self._visit(*node.args.defaults, *node.args.kw_defaults)
        self._run(node, _arguments(node.args), [node.body])

    def _run(self, node: ast.AST, arguments: Iterable[ast.AST], body: Iterable[ast.AST]) -> None:
        """A function's body: once, here or at the end of the function around it, or never."""
        outside = self._now
        outer, self._scope = self._scope, self._syntax.scopes[node]
        loops, self._breaks, self._continues = (self._breaks, self._continues), [], []
        entry = self._now = self._block(outside)
        self._entered[entry] = self._scope.number
        if self._nested:
            self._nested[-1].append(entry)
        self._nested.append([])
        self._returns.append([])
        self._visit(*arguments, *body)
        ends = [*self._returns.pop(), self._now]
        for nested in self._nested.pop():
            self._before[nested] += ends
        self._breaks, self._continues = loops
        self._scope = outer
        self._now = self._block(outside, *ends)

    def _comprehension(self, node: Any) -> None:
        outer, inner = self._scope, self._syntax.scopes[node]
        again: list[tuple[int, list[int]]] = []
        for number, clause in enumerate(node.generators):
            self._visit(clause.iter)  # the first in the scope around
            if number == 0:
                self._scope = inner
                self._now = self._block(self._now)
                self._entered[self._now] = inner.number
            head = self._block(self._now)
            self._now = self._block(head)
            self._visit(clause.target)
            skipped = []
            for test in clause.ifs:
                self._visit(test)
                skipped.append(self._now)
                self._now = self._block(self._now)
            again.append((head, skipped))
        self._visit(*([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]))
        for head, skipped in reversed(again):
            self._before[head] += [*skipped, self._now]
            self._now = self._block(head)
        self._scope = outer


def _arguments(node: ast.arguments) -> list[ast.arg]:
    found = [*node.posonlyargs, *node.args, node.vararg, *node.kwonlyargs, node.kwarg]
    return [argument for argument in found if argument is not None]


_VISITORS: dict[type[ast.AST], Callable[[Flow, Any], None]] = {
    ast.Name: Flow._name,
    ast.arg: Flow._argument,
    ast.alias: Flow._import,
    ast.Assign: Flow._assign,
    ast.AnnAssign: Flow._assign_annotated,
    ast.AugAssign: Flow._assign_augmented,
    ast.NamedExpr: Flow._assign_inside,
    ast.If: Flow._if,
    ast.IfExp: Flow._if_expression,
    ast.BoolOp: Flow._and_or,
    ast.For: Flow._for,
    ast.AsyncFor: Flow._for,
    ast.While: Flow._while,
    ast.Break: Flow._break,
    ast.Continue: Flow._continue,
    ast.Return: Flow._return,
    ast.Raise: Flow._raise,
    ast.Assert: Flow._assert,
    ast.Match: Flow._match,
    ast.ClassDef: Flow._class,
    ast.FunctionDef: Flow._function,
    ast.AsyncFunctionDef: Flow._function,
    ast.Lambda: Flow._lambda,
    **dict.fromkeys(COMPREHENSIONS, Flow._comprehension),
    **dict.fromkeys((ast.MatchAs, ast.MatchStar, ast.MatchMapping), Flow._pattern),
    **{getattr(ast, name): Flow._try for name in ("Try", "TryStar") if hasattr(ast, name)},
    **{
        getattr(ast, name): Flow._type_parameter
        for name in ("TypeVar", "ParamSpec", "TypeVarTuple")
        if hasattr(ast, name)
    },
}
