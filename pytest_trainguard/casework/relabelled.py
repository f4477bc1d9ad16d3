"""Training and validation that are made to disagree, and what the program made of it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean

from pytest_trainguard.casework.silent import modes
from pytest_trainguard.casework.silent.look import Look
from pytest_trainguard.contract import settings
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.contract.validation import Validated
from pytest_trainguard.damage import labels, row_values, wrong_values
from pytest_trainguard.launch import questions
from pytest_trainguard.probes.close_look import CloseLook
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["RELABELLED_STEPS", "Relabelled"]

RELABELLED_STEPS = 24  # optimizer steps: three passes over 64 rows in batches of 8
EVAL_EVERY = 4  # steps between validations, where there is a setting for that
LAST = 4  # steps whose mean is the final loss
LABELS = ("label", "labels", "class", "target", "category", "y")  # what the field to be learnt is usually called
LEARNT = 0.35  # a training loss below half of that of a coin: what is right has most of the weight in every row


@dataclass
class RelabelledRuns:
    """The runs of one trainer with other labels, by name: each is made once."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)


class Relabelled:
    """Runs of one trainer on its own rows with other labels: one label to train on, others to validate on.

    They have the trainer's `overfit` settings over its tiny ones, but for the share of rows that is held out.
    """

    LEARN_FASTER = "give `overfit` settings that learn faster"

    def __init__(self, guard: Guard):
        self.guard = guard
        self._findings = guard.subject.findings.get(RelabelledRuns, RelabelledRuns)

    def run_opposed(self) -> Outcome:
        """Trained on rows of one label and validated on rows of another: what is learnt is wrong there.

        Raises:
            NotApplicable: the trainer does not tell what a label is or what it validates on, with what to add.
        """
        first, second = self._two_labels
        return self._run_once(
            "opposed", f"trained on rows of {first!r} only, validated on rows of {second!r} only", second
        )

    def run_one_sided(self) -> Outcome:
        """Trained on rows of one label and validated on rows of two, by turns. Raises as `run_opposed`."""
        first, second = self._two_labels
        did = f"trained on rows of {first!r} only, validated on rows of {first!r} and {second!r} by turns"
        return self._run_once("one_sided", did, first, second)

    def read_validations(self, outcome: Outcome) -> Validated:
        """What a run told of its validations."""
        return self.guard.subject.server.ask(questions.validated, outcome.output_dir)

    def require_one_answer(self, outcome: Outcome) -> None:
        """The last validation of a run did give every row the label that was trained on.

        Raises:
            Finding: no evaluation is seen because it evaluates in training mode, which is why.
            NotApplicable: it did not, or cannot be seen.
        """
        predictions = outcome.recording.predictions
        if not predictions:
            with contextlib.suppress(NotApplicable):
                CloseLook(self.guard).judge(lambda recording: modes.find_wrong_modes(Look(recording)))
            raise NotApplicable(
                "no prediction is seen in evaluation mode: this case is for models whose output is a score for each "
                "class, of shape [rows, classes]"
            )
        last, loss = predictions[max(predictions)], fmean(outcome.losses[-LAST:])
        if len(last) > 1 or loss > LEARNT:
            raise NotApplicable(
                f"its training loss is still {loss:.2f} after {len(outcome.losses)} steps on rows of one label: "
                "give `overfit` settings that learn faster",
                self.LEARN_FASTER,
            )

    @cached_property
    def _field(self) -> str:
        field = self.guard.subject.description.labels
        if field is None:
            name = self._find_labels()
            to_add = f'labels = "{name or "label"}"'
            said = f"what is to be learnt is not known: name the field of a row, {to_add}"
            raise NotApplicable(said, f"name the field of a row that is to be learnt, {to_add}" if name else "")
        return field

    def _find_labels(self) -> str:
        """A field of the rows that looks like their labels; empty where none does, as where there are no labels."""
        data = self.guard.subject.data
        try:
            rows = row_values.read_named_rows(data) if data else []
        except NotApplicable:
            return ""
        places = row_values.common_places(rows) if rows else []
        names = [place for place in places if wrong_values.unknown_values(rows, place)]
        return next((name for name in map(row_values.field_of_place, names) if name.lower() in LABELS), "")

    @cached_property
    def _labels(self) -> list[object]:
        return labels.read_labels(self.guard.needs.data(), self._field)

    @cached_property
    def _two_labels(self) -> tuple[object, object]:
        """The two labels that most rows have."""
        counted = Counter(map(repr, self._labels)).most_common(2)
        if len(counted) < 2:
            raise NotApplicable(f"every row of its data has one label, {counted[0][0]}: give it a sample with two")
        first, second = (next(label for label in self._labels if repr(label) == name) for name, _ in counted)
        return first, second

    def _run_once(self, name: str, did: str, *held_out: object) -> Outcome:
        """The outcome of a run, made once for each trainer."""
        known = self._findings.outcomes
        if name not in known:
            known[name] = self._run(name, did, held_out)
        return known[name]

    def _run(self, name: str, did: str, turns: Sequence[object]) -> Outcome:
        """A run; the rows to validate on have these labels, by turns."""

        def label(nth: int) -> object:
            return turns[nth % len(turns)]

        subject, first = self.guard.subject, self._two_labels[0]
        values, file = self._settings(), subject.settings.role("validation_data")
        rows = len(self._labels)
        if file is not None:
            values[file.path] = str(self._write_labels(f"{name}-validation", [label(nth) for nth in range(rows)]))
            data = self._write_labels(name, [first] * rows)
        elif self.guard.needs.data().is_dir():
            folder = self.guard.folder / name
            data = labels.write_split_labels(self.guard.needs.data(), folder, self._field, first, turns)
        else:
            held_out = subject.server.ask(questions.held_out, self.guard.needs.data())
            if not held_out:
                raise NotApplicable(
                    "what it validates on is not known: say which rows with held_out(self, data), or name the setting "
                    'for its validation data, fields = {"validation_data": "..."}'
                )
            places = {row: nth for nth, row in enumerate(sorted(held_out))}
            data = self._write_labels(name, [label(places[row]) if row in places else first for row in range(rows)])
        return self.guard.run(did, data=data, settings=values, steps=RELABELLED_STEPS)

    def _settings(self) -> dict[str, object]:
        """What learns by heart, with validations: `overfit` may well have turned them off."""
        subject = self.guard.subject
        values = dict(subject.description.overfit)
        eval_every, fraction = subject.settings.role("eval_every"), subject.settings.role("validation_fraction")
        if fraction is not None:
            tiny = settings.value_at(subject.settings.base, fraction.path)
            values[fraction.path] = fraction.default if tiny is None else tiny
        return settings.merge(values, {eval_every.path: EVAL_EVERY} if eval_every else {})

    def _write_labels(self, name: str, values: list[object]) -> Path:
        return labels.write_labels(self.guard.needs.data(), self.guard.folder / name, self._field, values)
