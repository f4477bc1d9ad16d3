"""`static_check`: the trainer's own source, read by a type checker before anything runs."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.static.checker import Problem, check
from pytest_trainguard.subject.shared import find_once
from pytest_trainguard.verdicts.errors import Finding
from pytest_trainguard.verdicts.gathering import note


class StaticCheck:
    """Reads the modules of the project that the trainer's undisturbed run imported. Read once, for all workers."""

    def __init__(self, guard: Guard):
        self.guard = guard

    def __call__(self) -> list[Problem]:
        """All problems that lead to an exception.

        Raises:
            NotApplicable: no Python file of the trainer lies inside the project.
            CannotJudge: the checker failed.
        """
        subject = self.guard.subject
        return _checked(self.guard.reference.own_modules, subject.root, subject.shared)

    def free_of(self, exception: type[Exception]) -> None:
        """The source has no place that leads to `exception`.

        Raises:
            Finding: it has; with the file, the line and the name.
        """
        problems = [problem for problem in self() if problem.exception == exception.__name__]
        if problems:
            shown = "\n".join(str(problem) for problem in problems[:5])
            told = f"{len(problems)} place(s) that can end in {exception.__name__}:\n{shown}"
            note(Finding("read the trainer's own modules with a type checker (ty)", told, grade="wastes"))


@functools.cache
def _checked(files: tuple[Path, ...], root: Path, shared: Path | None) -> list[Problem]:
    name = hashlib.blake2b(repr((files, root)).encode(), digest_size=8).hexdigest()
    return find_once(shared, f"static-{name}", list[Problem], lambda: check(list(files), root))
