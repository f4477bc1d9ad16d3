"""Where runs start from: the trainers of one pytest process, each with what is known of it, and their servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_trainguard.contract.trainer import TrainerSpec
from pytest_trainguard.isolation.policy import Reach
from pytest_trainguard.subject.reference import Reference
from pytest_trainguard.subject.servers import NOTHING, Servers
from pytest_trainguard.subject.subject import Subject


class Launchpad:
    """The trainers of one pytest process.

    Attributes:
        servers: the servers that their runs are forked from.
    """

    def __init__(
        self, root: Path, folder: Path, paths: list[str], time_limit: float, cache: pytest.Cache | None = None,
        shared: Path | None = None, reach: Reach = NOTHING,
    ):  # fmt: skip
        """See `Servers`."""
        self.servers = Servers(root, folder, paths, time_limit, cache, shared, reach)
        self._subjects: dict[str, Subject] = {}

    def subject(self, name: str, spec: TrainerSpec) -> Subject:
        """The trainer that `spec` is, loaded once; names need not be unique."""
        key = repr(spec)
        if key not in self._subjects:
            self._subjects[key] = Subject(self.servers, name, spec)
        return self._subjects[key]

    def list_mistakes(self) -> list[str]:
        """What teams wrote of the trainers that were started, and have to mend, a line each."""
        subjects = self._subjects.values()
        return [subject.server.mistake for subject in subjects if subject.server.mistake]

    def list_forms(self) -> list[str]:
        """How programs are given their settings, and which are started in their output folder, a line each."""
        return [f"{subject.name}: {told}" for subject in self._subjects.values() for told in subject.list_forms()]

    def list_modules(self) -> list[str]:
        """The libraries that the undisturbed runs loaded, of all trainers that were started."""
        return sorted({name for subject in self._subjects.values() for name in Reference.shared(subject).modules})

    def close(self) -> None:
        """End every server, and remove what the runs left; runs end with their connections. Closing twice is fine."""
        while self._subjects:
            self._subjects.popitem()[1].close()
        self.servers.close()
