"""`guard`: start runs of the trainer, disturbed or not, and look at what came of them."""

from __future__ import annotations

from pathlib import Path

from pytest_trainguard import folders
from pytest_trainguard.probes.checkpoints import Checkpoints
from pytest_trainguard.probes.needs import Needs
from pytest_trainguard.probes.runs import Runs
from pytest_trainguard.subject.subject import Subject


class Guard(Runs):
    """One trainer in one test.

    Attributes:
        needs: what the case needs of the trainer, or it is not applicable.
        checkpoints: those that runs leave.
    """

    def __init__(self, subject: Subject, folder: Path):
        super().__init__(subject, folder)
        self.needs = Needs(subject, folder)
        self.checkpoints = Checkpoints(self, self.needs)
        self._copies = 0

    def copy(self, output_dir: Path) -> Path:
        """A copy of an output folder, to be tampered with."""
        self._copies += 1
        return folders.copy(output_dir, self.folder / f"copy-{self._copies}" / "output")
