"""Which cases a change touches: `python -m tests.changed_cases [COMMIT]` prints them as `pytest -k` takes them.

A case is touched where its test differs from that commit (by default what is committed last), or a function or constant
of its module that the test uses, or one of its saboteurs. `make check` proves these.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HUNK = re.compile(r"^@@ -\S+ \+(\d+)(?:,(\d+))? @@", re.M)
NOTHING = "no_case_has_changed"  # what `-k` finds nothing by


def changed_lines(path, commit):
    """The lines of a file that differ from a commit, counted from 1; all of them where it is new."""
    if subprocess.run(["git", "cat-file", "-e", f"{commit}:{path}"], cwd=ROOT, capture_output=True).returncode:
        return set(range(1, len((ROOT / path).read_text().splitlines()) + 1))
    command = ["git", "diff", "--unified=0", commit, "--", path]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = set()
    for first, count in HUNK.findall(told):
        # Where lines were only taken out, the line before stands for them.
        lines |= set(range(int(first), int(first) + max(1, int(count or 1))))
    return lines


def touched(source, lines):
    """The definitions of a module that a change of some lines reaches: they hold one, or use one that does."""
    defined = {name: node for node in ast.parse(source).body for name in names_of(node)}
    reached = {name for name, node in defined.items() if lines & set(range(first_line(node), node.end_lineno + 1))}
    uses = {
        name: {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)} for name, node in defined.items()
    }
    while more := {name for name in defined if name not in reached and uses[name] & reached}:
        reached |= more
    return {name: defined[name] for name in reached}


def uses_of(node):
    """The names that a definition reads."""
    return (inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))


def names_of(node):
    """What a statement of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def first_line(node):
    """Where a definition begins, its decorators included."""
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def keys(node):
    """The cases that a definition is about: the slug of a test, the `case` of a saboteur."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and getattr(inner.func, "id", "") == "edge_case" and inner.args:
            yield inner.args[0].value
        elif isinstance(inner, ast.Assign) and names_of(inner) == ["case"] and isinstance(inner.value, ast.Constant):
            yield inner.value.value


def changed_cases(commit="HEAD"):
    """The slugs and numbers of the cases that differ from a commit."""
    found = set()
    for path in [*ROOT.glob("edge_cases/test_*.py"), *ROOT.glob("tests/saboteurs/*.py")]:
        lines = changed_lines(path.relative_to(ROOT).as_posix(), commit)
        for node in touched(path.read_text(), lines).values() if lines else ():
            found |= set(keys(node))
    return found


def main(arguments):
    """Print them, joined by `or`."""
    found = sorted(map(str, changed_cases(*arguments)))
    print(" or ".join(f"{key}-" if key.isdigit() else key for key in found) or NOTHING)


if __name__ == "__main__":
    main(sys.argv[1:])
