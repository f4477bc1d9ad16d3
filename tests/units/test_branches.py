"""What a type checker takes for possibly unbound, where one branch ends the program in a function of its own."""

import ast

import pytest

from pytest_trainguard.static.branches import assigned_or_left, never_returning

ENDS = """
import sys
def die(message):
    print(message)
    raise SystemExit(2)
def usage(message):
    die(message)
def leave(code):
    with open("log") as log:
        sys.exit(code)
def warn(message):
    print(message)
def perhaps(code):
    if code:
        sys.exit(code)
def first(code):
    def inner():
        return 1
    raise ValueError(inner())
"""


def test_functions_that_never_return():
    assert never_returning([ast.parse(ENDS)]) == {"die", "usage", "leave", "first"}
    assert "die" not in never_returning([ast.parse(ENDS), ast.parse("def die(message): print(message)")])


@pytest.mark.parametrize(
    ("branch", "bound"),
    [
        ("usage(1)", True),
        ("self.die(1)", True),
        ("raise", True),
        ("return", True),
        ("x = 0", True),
        ("with contextlib.suppress(OSError):\n            x = int(open(a).read())", False),
        ("warn(1)", False),
        ("perhaps(1)", False),
        ("if x1:\n            die(1)", False),
        ("if x1:\n            die(1)\n        else:\n            x = 2", True),
    ],
)
def test_a_branch_that_ends_or_assigns(branch, bound):
    source = (
        f"{ENDS}\ndef main(a):\n    try:\n        x = int(a)\n    except ValueError:\n        {branch}\n    return x\n"
    )
    tree = ast.parse(source)
    line = source.splitlines().index("    return x") + 1
    assert assigned_or_left(tree, line, "x", never_returning([tree])) is bound
