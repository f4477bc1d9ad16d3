"""`python -m pytest_trainguard.static FILE...`: what a type checker sees that can only end in an exception.

The checker is ty. What decided was a trial of six on the examples of `tests/test_static.py`: the post-mortem's bugs (a
name used before its assignment, also where one branch only assigns it, and `None` where a number belongs), 18
relatives, and 12 sound files. It is repeated by `python -m benchmarks.checkers`, and came to:

    checker               bugs    relatives   false alarms   seconds
    ruff 0.17             1/3     5/18        0/12           0.0
    ty 0.0.107            3/3     18/18       4/12           0.1
    pyrefly 1.4           3/3     17/18       4/12           0.5
    basedpyright 1.40     3/3     17/18       4/12           3.1
    mypy 2.4              3/3     16/18       4/12           1.4
    pylint 4.1            2/3     10/18       1/12           2.5

All type checkers alarm on the same four (attributes set from outside, by a sibling class, or asked for in a `try`; a
default of `None`). So of what ty says only what can end in nothing but an exception is taken: see `check`.
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_trainguard.printing import printable
from pytest_trainguard.static import attributes, branches, canary
from pytest_trainguard.verdicts.errors import CannotJudge, NotApplicable

TIME_LIMIT = 300.0  # seconds
_LINE = re.compile(r"^(?P<path>.+?):(?P<line>\d+):(?P<column>\d+): \w+\[(?P<rule>[\w-]+)\] (?P<text>.*)$")
_NAME = re.compile(r"Name `(\w+)`")
_POSSIBLY_UNBOUND = "possibly-unresolved-reference"
_UNBOUND = ("unresolved-reference", _POSSIBLY_UNBOUND)
_ATTRIBUTES = ("missing-attribute", "unresolved-attribute")  # the rule's name in newer and in older versions
_SIMPLE = {
    "division-by-zero": "ZeroDivisionError",
    "index-out-of-bounds": "IndexError",
    "invalid-typed-dict-key": "KeyError",
    "invalid-key": "KeyError",
}
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

_UNBOUND_ERRORS = ("NameError", "UnboundLocalError")


@dataclass(frozen=True)
class Problem:
    """One place in the trainer's source, and the exception that it leads to.

    Attributes:
        path: the file.
        line: counted from 1.
        exception: the exception's name.
        text: what is wrong there.
        of_a_loop: it leads there only where a loop before it has no turn, of which nothing is known.
    """

    path: Path
    line: int
    exception: str
    text: str
    of_a_loop: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def check(files: list[Path], root: Path, python: Path | None = None) -> list[Problem]:
    """Have ty read some files, and a program with known faults beside them.

    Args:
        files: the files.
        root: the project's folder.
        python: the environment whose libraries the files import; by default this interpreter's own.

    Raises:
        NotApplicable: there is no file.
        SyntaxError, ValueError: one of them is no Python.
        CannotJudge: the checker failed, or no longer says what is understood here: it overlooks known faults.
    """
    if not files:
        raise NotApplicable("no Python file of its own was seen in its undisturbed run")
    trees = {file: ast.parse(file.read_text(encoding="utf-8"), str(file)) for file in files}
    with tempfile.TemporaryDirectory(prefix="trainguard-") as folder:
        known = Path(folder).resolve() / "known_faults.py"
        known.write_text(canary.SOURCE, encoding="utf-8")
        said = _ask_checker([*files, known], root, python or Path(sys.prefix))
    _require_known_faults(_read_findings(said, {known: ast.parse(canary.SOURCE)}, root))
    return _read_findings(said, trees, root)


def _ask_checker(files: list[Path], root: Path, python: Path) -> str:
    """What ty prints of some files, one finding a line."""
    from ty import find_ty_bin

    asked = (*_UNBOUND, *_CALLS, "invalid-argument-type", _ATTRIBUTES[0], "division-by-zero", "index-out-of-bounds")
    rules = [flag for rule in asked for flag in ("--error", rule)]
    command = [find_ty_bin(), "check", "--project", str(root), "--python", str(python), "--output-format", "concise",
               "--color", "never", "--no-progress", "--exit-zero", *rules, *map(str, files)]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotJudge(f"the type checker failed: {error}") from error
    if done.returncode != 0:
        raise CannotJudge(f"the type checker failed with exit {done.returncode}", done.stderr[-2000:])
    return done.stdout


def _require_known_faults(found: list[Problem]) -> None:
    overlooked = canary.overlooked((problem.line, problem.exception) for problem in found)
    if overlooked:
        raise CannotJudge(
            f"the type checker, ty {importlib.metadata.version('ty')}, overlooks {len(overlooked)} of "
            f"{len(canary.FAULTS)} known faults, so that its silence says nothing: install another version of ty",
            "\n".join(overlooked),
        )


def _read_findings(said: str, trees: Mapping[Path, ast.Module], root: Path) -> list[Problem]:
    """What ty said of the files in `trees`, as far as it can only end in an exception."""
    own = {
        node.name
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    project = attributes.Project(trees)
    ends = branches.never_returning(trees.values())
    problems = []
    for match in filter(None, map(_LINE.match, said.splitlines())):
        path = Path(match["path"])
        tree = trees.get(path if path.is_absolute() else root / path)
        exception = _exception(match, tree, own, project) if tree else None
        if tree and exception:
            name = _NAME.search(match["text"]) if match["rule"] == _POSSIBLY_UNBOUND else None
            if name and branches.assigned_or_left(tree, int(match["line"]), name[1], ends):
                continue
            of_a_loop = name is not None and branches.assigned_by_a_loop(tree, int(match["line"]), name[1])
            problems.append(Problem(path, int(match["line"]), exception, match["text"], of_a_loop))
    return problems


def _exception(match: re.Match[str], tree: ast.Module, own: set[str], project: attributes.Project) -> str | None:
    """The exception that a diagnostic leads to; None where that is not certain enough to be told."""
    rule, text, line = match["rule"], match["text"], int(match["line"])
    if rule in _UNBOUND:
        name = _NAME.search(text)
        if _is_expected(tree, line):
            return None
        if name and rule == _POSSIBLY_UNBOUND and branches.assigned_where_used(tree, line, name[1]):
            return None
        return "UnboundLocalError" if name and _is_local(tree, line, name[1]) else "NameError"
    if rule in _SIMPLE:
        counted = rule == "division-by-zero" and branches.divided_by_a_count(tree, line, int(match["column"]))
        return None if counted else _SIMPLE[rule]
    if rule in _ATTRIBUTES:
        certain = attributes.certainly_missing(text, tree, line, int(match["column"]), project)
        return "AttributeError" if certain else None
    # Libraries take arguments that their signatures do not show; the project's own functions do not.
    if rule in _CALLS and _callee(tree, line, int(match["column"])) in own:
        return "TypeError"
    return "TypeError" if rule == "invalid-argument-type" and _PLAINLY.search(text) else None


def _is_expected(tree: ast.Module, line: int) -> bool:
    """Whether a line is tried, and a NameError there caught by its name, as where a notebook's script asks for IPython.

    One that is caught with every other exception was not thought of.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(one.lineno <= line <= (one.end_lineno or 0) for one in node.body):
            caught = [name for handler in node.handlers if handler.type for name in ast.walk(handler.type)]
            if any(isinstance(name, ast.Name) and name.id in _UNBOUND_ERRORS for name in caught):
                return True
    return False


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
    functions = [node for node in attributes.around(tree, line) if isinstance(node, attributes.FUNCTIONS)]
    if not functions:
        return False
    innermost = max(functions, key=lambda node: node.lineno)
    return any(
        (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del) and node.id == name)
        or (isinstance(node, ast.alias) and (node.asname or node.name.partition(".")[0]) == name)
        or (isinstance(node, ast.ExceptHandler) and node.name == name)
        for node in ast.walk(innermost)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Read the files that are named; one line for each finding.

    Returns:
        0 where nothing was found, or only what an empty loop would lead to; 1 where something was, 2 where a file
        cannot be read.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pytest_trainguard.static",
        description="finds what can only end in an exception (cases 71 to 80)",
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="Python files, below the current folder")
    files = parser.parse_args(argv).files
    if not files:
        return 0
    environment = Path(".venv")
    try:
        # The checker would take `-x.py` for an option, and a relative path for one below the project.
        found = check([file.resolve() for file in files], Path.cwd(), environment if environment.is_dir() else None)
    except SyntaxError as error:
        print(printable(f"{_shown(Path(error.filename or ''))}:{error.lineno}: SyntaxError: {error.msg}"))
        return 1
    except (OSError, ValueError, CannotJudge) as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 2
    for problem in found:
        unless = " (where the loop that assigns it has no turn)" if problem.of_a_loop else ""
        print(printable(f"{_shown(problem.path)}:{problem.line}: {problem.exception}: {problem.text}{unless}"))
    return 1 if any(not problem.of_a_loop for problem in found) else 0


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
