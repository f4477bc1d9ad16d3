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

DID = "read the trainer's own modules with a type checker (ty)"


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
        certain = [problem for problem in problems if not problem.of_a_loop]
        of_a_loop = [problem for problem in problems if problem.of_a_loop]
        if certain:
            told = f"{len(certain)} place(s) that can end in {exception.__name__}:\n{_shown(certain)}"
            note(Finding(DID, told, grade="wastes"))
        if of_a_loop:
            told = (
                f"{len(of_a_loop)} place(s) that end in {exception.__name__} where the loop that assigns the name has "
                f"no turn: assign it before the loop, or reject what gives it none\n{_shown(of_a_loop)}"
            )
            note(Finding(DID, told, grade="unclear"))


def _shown(problems: list[Problem]) -> str:
    return "\n".join(str(problem) for problem in problems[:5])


@functools.cache
def _checked(files: tuple[Path, ...], root: Path, shared: Path | None) -> list[Problem]:
    name = hashlib.blake2b(repr((files, root)).encode(), digest_size=8).hexdigest()
    return find_once(shared, f"static-{name}", list[Problem], lambda: check(list(files), root))
