"""Inside a run: what loaders give is changed, in place, during some of its optimizer steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from pytest_trainguard.faults.other_documents import replace_first_documents
from pytest_trainguard.faults.padded_rows import Padder
from pytest_trainguard.faults.turned_rows import reorder
from pytest_trainguard.recorder.doors import Observer

__all__ = ["ChangedBatches"]


class ChangedBatches(Observer):
    """Changes batches as a plan says. Its events are `look turned`, `look padded` and `look replaced`."""

    def __init__(self, write: Callable[..., None], plan: Sequence[str], rows: int):
        """Stand at the doors of one run.

        Args:
            write: appends one event to the recording.
            plan: what is done to batches that are fetched before the first step, between it and the second, and so on:
                `turned`, `padded`, `padded twice`, `replaced`, or nothing.
            rows: of a batch, as the settings say; 0 where nobody knows.
        """
        self._write, self._plan, self._rows = write, plan, rows
        self._steps = 0  # that are done
        self._padder = Padder()
        self._sizes: set[int] = set()  # of batches, as the loaders have them
        self._whole = False  # some loader gives what its data set gives, which may be one sequence
        self._stacked = True  # each loader stacks what its data set gives: all in a batch has a part for each row

    def opened(self, loader: torch.utils.data.DataLoader[Any]) -> None:
        self._whole = self._whole or loader.batch_sampler is None
        self._stacked = self._stacked and loader.collate_fn is torch.utils.data.default_collate
        sizes = (loader.batch_size, getattr(loader.batch_sampler, "batch_size", None))
        self._sizes.update(size for size in sizes if isinstance(size, int))

    def fetched(self, batch: object) -> None:
        if self._steps >= len(self._plan):
            return
        self._padder.see(batch)
        done = self._plan[self._steps]
        if done == "turned":
            rows = 0 if self._whole else reorder(batch, self._sizes, self._rows, stacked=self._stacked)
            self._write("look turned", step=self._steps, rows=rows)
        elif done.startswith("padded"):
            padded = self._padder.pad(batch, 2 if done == "padded twice" else 1)
            self._write("look padded", step=self._steps, **asdict(padded))
        elif done == "replaced":
            self._write("look replaced", step=self._steps, **asdict(replace_first_documents(batch)))

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        self._steps += 1
