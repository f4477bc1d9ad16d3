"""The exit code with which a program would end that is run as a function."""

from __future__ import annotations

import sys
from collections.abc import Callable


def run_to_exit_code(work: Callable[[], object], report: Callable[[BaseException], None]) -> int:
    """Run a program, and find its exit code as the interpreter does.

    Args:
        work: the program; a whole number that it returns is its exit code.
        report: is told of an exception that leaves it, other than `SystemExit`, while it is being handled.
    """
    try:
        code = work()
        return code if isinstance(code, int) else 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:
        report(error)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
