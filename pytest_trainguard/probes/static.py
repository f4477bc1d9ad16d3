"""`static_check`: the trainer's own source, read by a type checker before anything runs.

The checker is ty. What decided: of six checkers that were tried on the two bugs of the post-mortem, two see them all (a
name used before assignment, also when one branch only assigns it, and `None` where a number belongs), and ty does so in
about a second. The figures are those of that trial; `tests/test_static.py` holds ty to a dozen relatives of the bugs:

    checker               used before    assigned on   None for    seconds,
                          assignment     one branch    a float     small file
    ruff (F821)           yes            no            no          0.1
    ty                    yes            yes           yes         1.1
    pyrefly               no             no            no          1.4
    basedpyright          yes            yes           yes         17
    mypy                  no             yes           yes         45
    pylint                yes            yes           no          120
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pytest_trainguard.expect import CannotJudge, Finding, NotApplicable
from pytest_trainguard.probes.guard import Guard

TIME_LIMIT = 300.0  # seconds
_LINE = re.compile(r"^(?P<path>.+?):(?P<line>\d+):(?P<column>\d+): \w+\[(?P<rule>[\w-]+)\] (?P<text>.*)$")
_NAME = re.compile(r"Name `(\w+)`")
_UNBOUND = ("unresolved-reference", "possibly-unresolved-reference")
_CALLS = (
    "missing-argument",
    "unknown-argument",
    "too-many-positional-arguments",
    "parameter-already-assigned",
)
# A number is wanted, and what is given is plainly none; not a union that the program may have narrowed. Other types
# are left out: libraries declare `name: str = None` and mean it.
_PLAINLY = re.compile(
    r"Expected `(?:int|float|int \| float)`, "
    r"found `(?:None|str|Literal\[\"[^|]*\"\]|bytes|list\[[^|]*\]|dict\[[^|]*\])`"
)


@dataclass(frozen=True)
class Problem:
    """One place in the trainer's source, and the exception that it leads to."""

    path: Path
    line: int
    exception: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


class StaticCheck:
    """Reads the modules of the project that the trainer's undisturbed run imported. Read once for each trainer."""

    def __init__(self, guard: Guard):
        self.guard = guard

    def __call__(self) -> list[Problem]:
        """All problems that lead to an exception.

        Raises:
            NotApplicable: the trainer has no Python module inside the project.
            CannotJudge: the checker failed.
        """
        subject = self.guard.subject
        return _checked(tuple(subject.own_modules), subject.pad.root)

    def free_of(self, exception: type[Exception]) -> None:
        """The source has no place that leads to `exception`.

        Raises:
            Finding: it has; with the file, the line and the name.
        """
        problems = [problem for problem in self() if problem.exception == exception.__name__]
        if problems:
            shown = "\n".join(str(problem) for problem in problems[:5])
            raise Finding("read the trainer's own modules with a type checker (ty)",
                          f"{len(problems)} place(s) that can end in {exception.__name__}:\n{shown}")  # fmt: skip


@functools.cache
def _checked(files: tuple[Path, ...], root: Path) -> list[Problem]:
    return check(list(files), root)


def check(files: list[Path], root: Path) -> list[Problem]:
    """Have ty read some files; see `StaticCheck`."""
    if not files:
        raise NotApplicable("no Python module of its own was imported in its undisturbed run")
    from ty import find_ty_bin

    rules = [flag for rule in (*_UNBOUND, *_CALLS, "invalid-argument-type") for flag in ("--error", rule)]
    command = [find_ty_bin(), "check", "--project", str(root), "--python", sys.prefix, "--output-format", "concise",
               "--color", "never", "--no-progress", "--exit-zero", *rules, *map(str, files)]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotJudge(f"the type checker failed: {error}") from error
    if done.returncode != 0:
        raise CannotJudge(f"the type checker failed with exit {done.returncode}", done.stderr[-2000:])
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    own = {
        node.name
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    problems = []
    for match in filter(None, map(_LINE.match, done.stdout.splitlines())):
        path = Path(match["path"])
        tree = trees.get(path if path.is_absolute() else root / path)
        exception = _exception(match, tree, own) if tree else None
        if exception:
            problems.append(Problem(path, int(match["line"]), exception, match["text"]))
    return problems


def _exception(match: re.Match[str], tree: ast.Module, own: set[str]) -> str | None:
    """The exception that a diagnostic leads to; None where that is not certain enough to be told."""
    rule, text, line = match["rule"], match["text"], int(match["line"])
    if rule in _UNBOUND:
        name = _NAME.search(text)
        return "UnboundLocalError" if name and _is_local(tree, line, name[1]) else "NameError"
    # Libraries take arguments that their signatures do not show; the project's own functions do not.
    if rule in _CALLS and _callee(tree, line, int(match["column"])) in own:
        return "TypeError"
    return "TypeError" if rule == "invalid-argument-type" and _PLAINLY.search(text) else None


def _callee(tree: ast.Module, line: int, column: int) -> str | None:
    """The name that is called by the innermost call around a place (lines and columns counted from 1)."""
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (node.lineno, node.col_offset) <= (line, column - 1) <= (node.end_lineno or 0, node.end_col_offset or 0)
    ]
    if not calls:
        return None
    called = max(calls, key=lambda node: (node.lineno, node.col_offset)).func
    return called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else None


def _is_local(tree: ast.Module, line: int, name: str) -> bool:
    """Whether the function around a line assigns the name: then a missing value is an UnboundLocalError."""
    functions = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    if not functions:
        return False
    innermost = max(functions, key=lambda node: node.lineno)
    return any(
        (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del) and node.id == name)
        or (isinstance(node, ast.alias) and (node.asname or node.name.partition(".")[0]) == name)
        or (isinstance(node, ast.ExceptHandler) and node.name == name)
        for node in ast.walk(innermost)
    )
