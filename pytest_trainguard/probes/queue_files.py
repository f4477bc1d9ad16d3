"""The folders of a training queue: what is put into them, and where each file is by now, known by its content."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pytest_trainguard.contract.queues import Queue
from pytest_trainguard.rows import suffixes

AGE = 3600  # seconds since a dropped file was written: many queues leave alone what may still be growing
RECORD_LIMIT = 1 << 24  # bytes of one of the queue's own files that are read


class QueueFiles:
    """The files of one root of a queue.

    Attributes:
        root: the folder.
        contract: what the trainer says of its queue.
        suffix: of the data; a file with another one is the queue's own.
    """

    def __init__(self, root: Path, contract: Queue, suffix: str):
        self.root, self.contract, self.suffix = root, contract, suffix
        self._dropped = 0
        for name in contract.folders:
            (root / name).mkdir(parents=True, exist_ok=True)

    def drop(self, file: Path, name: str | None = None, folder: str | None = None) -> Path:
        """Put a copy of a file into the inbox (or another folder), whole at once, as `mv` does."""
        into = self.root / (folder or self.contract.inbox) / (name or file.name)
        self._dropped += 1
        beside = self.root.with_name(f"{self.root.name}-dropped-{self._dropped}")
        beside.write_bytes(file.read_bytes())
        old = time.time() - AGE + self._dropped
        os.utime(beside, (old, old))
        beside.rename(into)
        return into

    def present_folders(self) -> list[Path]:
        """The folders that are known by name and are there."""
        names = dict.fromkeys([*self.contract.folders, *self.contract.priorities])
        return [self.root / name for name in names if (self.root / name).is_dir()]

    def ended_folders(self) -> tuple[Path, Path]:
        """The folders for what is done and for what failed."""
        return self.root / self.contract.done, self.root / self.contract.failed

    def waiting(self) -> list[Path]:
        """The files that wait for their turn, by name."""
        ended = self.ended_folders()
        found = [path for folder in self.present_folders() if folder not in ended for path in folder.iterdir()]
        return sorted(path for path in found if path.is_file() and not path.is_symlink() and self.is_data(path.name))

    def is_data(self, name: str) -> bool:
        """Not a file of the queue's own, beside the data."""
        return suffixes.whole(Path(name)) == self.suffix

    def places(self, file: Path) -> list[str]:
        """Every path below the root that has the content of a file."""
        content = file.read_bytes()
        return [name for name, found in self.contents() if found == content]

    def describe_place(self, file: Path) -> str:
        """Where a file is, in words."""
        places = self.places(file)
        return f"at {', '.join(places)}" if places else "in no folder any more"

    def are_done(self, *files: Path) -> bool:
        """Whether each of the files is in the folder for what is done, and in no other."""
        return all(self._only_in(self.contract.done, file) for file in files)

    def has_failed(self, file: Path) -> bool:
        """Whether a file is in the folder for what failed, and in no other."""
        return self._only_in(self.contract.failed, file)

    def _only_in(self, folder: str, file: Path) -> bool:
        places = self.places(file)
        return bool(places) and all(place.startswith(f"{folder}/") for place in places)

    def contents(self) -> list[tuple[str, bytes]]:
        """Every file below the root: its path from there, and the beginning of what is in it."""
        found = []
        for folder, _, names in os.walk(self.root):
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    with path.open("rb") as content:
                        found.append((str(path.relative_to(self.root)), content.read(RECORD_LIMIT)))
        return found
