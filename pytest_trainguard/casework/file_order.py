"""Whether the order in which a file system lists the files of the data goes into training."""

from __future__ import annotations

from pytest_trainguard import faults
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.verdicts import causes
from pytest_trainguard.verdicts.errors import Finding, NotApplicable

__all__ = ["require_one_order"]


def require_one_order(guard: Guard) -> None:
    """Training is the same where the folder of the data is listed in another order, as on another machine.

    Nothing is said of data that is one file, of a program that lists no folder of it, or that does not repeat itself.

    Source: ByteDance-Seed/VeOmni#330.

    Raises:
        Finding: it is another one.
    """
    data = guard.subject.data
    if data is None or not data.is_dir():
        return
    try:
        reference = guard.needs.repeatable_run()
        outcome = guard.run("listed the files of the data in another order", fault=faults.list_otherwise())
    except NotApplicable:
        return
    if outcome.exit == 0 and outcome.losses != reference.losses:
        raise Finding(
            outcome.did,
            "it is another training: the order of os.listdir, glob or iterdir is the file system's, and another "
            "machine has another; a resume there goes on with other rows: sort what is listed",
            outcome.last_words,
            grade="misleads",
            cause=causes.FILE_ORDER,
        )
