"""`close_look`: a run in which nothing is disturbed, looked at closely, for what goes wrong without a word."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_trainguard.contract import checkpoints, settings
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.damage import labels
from pytest_trainguard.damage.weights import digests_of, turn_weights
from pytest_trainguard.faults import kill, undo_steps
from pytest_trainguard.harm import Problem
from pytest_trainguard.launch.protocol import SEED, RunRequest
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.rows import suffixes
from pytest_trainguard.verdicts.errors import CannotJudge, Finding, NotApplicable

BATCHES = 3  # of an epoch, so that a run crosses the ends of two
STEPS = 9  # optimizer steps: three epochs
EVAL_EVERY = 2  # steps between evaluations, so that some steps have none before them
CUT_SHORT = 40  # optimizer steps of a program that cannot be held to a number of them
RARELY = 10 * STEPS  # steps between evaluations, where there are to be none
MANY = 4  # batches of an optimizer step, where gradients are accumulated
WORKERS = 2  # processes that read data
ARRIVED = 2  # tensors of a base model that are seen in a model: one may be computed alike in both, as positions are
MOST_ROWS = 1024  # that are made for an epoch
# What is done to the batches that are fetched before each step, in a run of which every step is undone, and in the one
# that it is held against: a program may fetch one batch ahead, so that of two steps the second one is compared.
COMPARED = ("", "", "", "", "", "padded", "padded", "", "")
CHANGED = ("turned", "", "", "padded", "padded", "padded twice", "padded twice", "replaced", "replaced")
HELD_OUT = 8  # rows of an evaluation, at least: fewer may be alike by chance
LARGEST_SHARE = 0.5  # of the rows that are held out
ODD = (7, 5)  # batch sizes that hardly any other dimension of a tensor is as long as


@dataclass
class CloseRuns:
    """The runs of one trainer that were looked at closely, by name, on which data and by which settings: each once."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    data: dict[str, Path | None] = field(default_factory=dict)
    settings: dict[str, Mapping[str, object]] = field(default_factory=dict)


class CloseLook:
    """Runs of one trainer in which nothing goes wrong that anybody would notice.

    Each is made once for all cases: in most of them the very same run is judged.
    """

    def __init__(self, guard: Guard):
        self.guard = guard
        self._runs = guard.subject.findings.get(CloseRuns, CloseRuns)

    def judge(self, *finds: Callable[[Recording], list[Problem]], accumulating: bool = False) -> None:
        """Hold the plain run against what a case knows.

        Args:
            finds: each tells what it found in a recording; may be nothing.
            accumulating: look at the run that accumulates gradients, too, where there is a setting for that.

        Raises:
            Finding: of all that was found.
            NotApplicable, CannotJudge: what `finds` raises; the run failed.
        """
        outcomes = [self.plain(), *([self.accumulated()] if accumulating and self._accumulation else [])]
        problems: dict[str, Problem] = {}
        for outcome in outcomes:
            for find in finds:
                for found in find(outcome.recording):
                    one = Problem(found.grade, found.said, outcome.did)
                    problems.setdefault(found.said, one)
            if any(one.grade != "unclear" for one in problems.values()):
                break  # the second run would say the same
        if problems:
            raise Finding.joined(list(problems.values()))

    def plain(self) -> Outcome:
        """The undisturbed run on three batches an epoch, with evaluations between some steps where there are any.

        Of a program that takes no notice of the steps that it is asked for, as many as are looked at: then it is ended.

        Raises:
            CannotJudge: it fails, though the undisturbed run does not.
        """
        if self._is_endless():
            return self._cut_short()
        return self._once("plain", "trained undisturbed, looked at closely", {})

    def _is_endless(self) -> bool:
        """Whether the program cannot be held to a number of steps, which its undisturbed run shows."""
        reference = self.guard.reference
        try:
            reference.make()
        except CannotJudge:
            if not reference.endless:
                raise
        return bool(reference.endless) or self.guard.subject.unbounded

    def _cut_short(self) -> Outcome:
        """A run that the harness ends itself: what was seen until then may be judged, all else of the program not."""
        did = f"trained undisturbed, looked at closely, and to be ended after {CUT_SHORT} optimizer steps"
        self._runs.data["plain"], self._runs.settings["plain"] = None, {}  # the trainer's own piece
        return self._require_end(self._beside("plain", did))

    def accumulated(self) -> Outcome:
        """The same with several batches to an optimizer step. Raises as `plain`."""
        many = self._accumulation
        if many is None:
            return self.plain()
        value = self._parts(many)
        did = f"trained with {many.path} = {value}, looked at closely"
        return self._once("accumulated", did, {many.path: value}, value, still=True)

    def in_parts_and_whole(self) -> tuple[Outcome, Outcome]:
        """The run that accumulates gradients, and one that takes the rows of its first step at once; without dropout.

        Raises:
            NotApplicable: there is no setting for the accumulation or for the batch size, or not for so many rows.
            CannotJudge: as `plain`.
        """
        needs = self.guard.needs
        many, size = needs.setting("accumulation"), needs.setting("batch_size")
        parts = self.accumulated()
        rows = parts.recording.steps[0].examples if parts.recording.steps else 0
        given = self.guard.subject.settings.tiny(size)
        if isinstance(given, int):
            rows = min(rows, given * self._parts(many))  # of a batch of graphs the inputs' rows are nodes
        if not rows or not size.allows(rows):
            raise NotApplicable(f"{size.path} may not be {rows}, the rows of a step")
        did = f"trained with {many.path} = 1 and {size.path} = {rows}, and with the same rows in parts"
        values = settings.merge({many.path: 1}, {size.path: rows})
        whole = self._beside("whole", did, values, like="accumulated", still=True)
        if not _ended_well(whole):
            raise NotApplicable(f"it does not take {size.path} = {rows}: {whole.how}")
        return parts, whole

    def with_workers(self) -> tuple[Outcome, Outcome]:
        """The plain run without worker processes, and with two. Raises as `plain`.

        Raises:
            NotApplicable: there is no setting for them.
        """
        field = self.guard.needs.setting("workers")
        if field.bounds.get("le", WORKERS) < WORKERS:
            raise NotApplicable(f"{field.path} may not be {WORKERS}")
        return self._with_workers(field.path, 0), self._with_workers(field.path, WORKERS)

    def with_and_without_evaluations(self) -> tuple[Outcome, Outcome]:
        """The plain run, with evaluations between some steps, and the same in which the first would come far later.

        Raises:
            NotApplicable: there is no setting for how often it evaluates, or not for so rarely.
            CannotJudge: as `plain`.
        """
        field = self.guard.needs.setting("eval_every")
        if field.kind != "int" or not field.allows(RARELY):
            raise NotApplicable(f"{field.path} may not be {RARELY}")
        with_them = self.plain()
        did = f"trained with {field.path} = {EVAL_EVERY} and with {RARELY}, looked at closely"
        rarely = self._make("rarely", did, {field.path: RARELY})
        if not _ended_well(rarely):
            raise NotApplicable(f"it does not take {field.path} = {RARELY}: {rarely.how}")
        return with_them, rarely

    def with_changed_batches(self) -> tuple[Outcome, Outcome]:
        """The plain run without dropout, and the same with batches that are changed, every step of both undone.

        Since each step begins with the weights of the start, what is done to the batches of one step shows in no other:
        their rows come in another order, are padded further, and stand beside another document. Of a program that does
        not take what is padded further, only the rows of the first step come in another order.

        Both have a batch size, where there is a setting for it and the program takes it, that is not by chance as large
        as heads or channels are many: what is of rows x rows is told by its shape.

        Raises:
            CannotJudge: as `plain`.
        """
        self._data_of_the_plain_run()
        odd = self._odd_batch()
        for values in (odd, {}) if odd else ({},):  # it may take even batches only, or those of pairs
            still = self._undone("of which some are padded further", values, COMPARED)
            if self._went_well(still):
                changed = self._undone(
                    "in another order, padded further, or with another document in them", values, CHANGED
                )
                if self._went_well(changed):
                    return still, changed
            still, turned = (
                self._undone("as they are", values, ("",)),
                self._undone("in another order", values, CHANGED[:1]),
            )
            if self._went_well(still) and self._went_well(turned):
                break
        return self._require_end(still), self._require_end(turned)

    def _undone(self, what: str, values: dict[str, object], changes: tuple[str, ...]) -> Outcome:
        """A run without dropout of which every step is undone; it may have failed."""
        did = f"trained without dropout, each step undone, on batches {what}"
        fault = undo_steps(CUT_SHORT if self._is_endless() else None)
        return self._beside(f"{what} {values}", did, values, changes=changes, still=True, fault=fault)

    def _odd_batch(self) -> dict[str, object]:
        field = self.guard.subject.settings.role("batch_size")
        size = self.guard.subject.settings.tiny(field) if field else None
        if field is None or not isinstance(size, int):
            return {}
        usable = [odd for odd in ODD if odd < 2 * size and field.allows(odd)]
        return {field.path: usable[0]} if usable else {}

    def _data_of_the_plain_run(self) -> Path | None:
        """What the plain run is trained on, for one beside it; None for the trainer's own piece.

        Raises:
            CannotJudge: as `plain`.
        """
        self.plain()
        return self._runs.data["plain"]

    def with_another_seed(self) -> tuple[Outcome, Outcome]:
        """The plain run, and the same with another seed.

        Raises:
            NotApplicable: the program is not handed the seed of a run.
            CannotJudge: as `plain`.
        """
        if not self.guard.subject.description.takes_seed:
            raise NotApplicable("it is not handed the seed of a run: {seed} in its command, run.seed in its class")
        plain = self.plain()
        seeded = self._beside("seed", f"trained with the seed {SEED + 1}, looked at closely", seed=SEED + 1)
        return plain, self._require_end(seeded)

    def with_other_labels(self) -> tuple[Outcome, Outcome, int]:
        """The plain run, the same with labels exchanged between its rows, and how many rows there are.

        Raises:
            NotApplicable: what is to be learnt is not known, stands in data of another form, or is alike in most rows.
            CannotJudge: as `plain`.
        """
        subject = self.guard.subject
        name = subject.description.labels
        if name is None:
            raise NotApplicable('what is to be learnt is not known: name the field of a row, labels = "label"')
        data = self._data_of_the_plain_run() or self.guard.needs.data()
        plain = self.plain()
        before = labels.read_labels(data, name)
        turns = [before[shift:] + before[:shift] for shift in range(len(before))]
        turned = max(turns, key=lambda after: _differing(before, after))
        if 2 * _differing(before, turned) < len(before):
            raise NotApplicable(f"most of its {len(before)} rows have the same {name}")
        other = labels.write_labels(data, subject.server.new_folder("labels") / "rows", name, turned)
        did = f"trained with the values of {name} exchanged between rows, looked at closely"
        return plain, self._require_end(self._beside("labels", did, data=other)), len(before)

    def with_base_models(self) -> tuple[Outcome, Outcome | None]:
        """A run from a small base model, and one from the same with every other weight's sign turned.

        There is no second one where tensors of the base model's files are parameters of the model that trains. That is
        looked for in the changed one: what is made anew from a seed may by chance be the base model itself, which
        somebody made from the same configuration and seed.

        Raises:
            NotApplicable: there is no setting for the model, none at hand, or the program does not start from it.
            CannotJudge: its weights could not be changed.
        """
        guard = self.guard
        field = guard.needs.base_model_setting()
        model = guard.needs.base_model(field)
        weights = [str(file) for file in checkpoints.files(model) if suffixes.weights(file)]
        before = {Path(file): Path(file).read_bytes() for file in weights}
        if not guard.subject.server.call(turn_weights, weights):
            sound = self._start_from(field.path, model, "base", "a small base model")
            if self._arrives(sound, weights):
                return sound, None
            raise CannotJudge(f"the weights of {model.name} could not be changed")
        try:
            turned = self._start_from(field.path, model, "turned", "the same with other weights")
        except NotApplicable as reason:
            turned, refused = None, reason  # it may well check what it loads
        if turned is not None and self._arrives(turned, weights):
            return turned, None
        for file, content in before.items():  # the very bytes: a program may hold them against a checksum
            file.write_bytes(content)
        sound = self._start_from(field.path, model, "base", "a small base model")
        if turned is not None:
            return sound, turned
        if self._arrives(sound, weights):
            return sound, None
        raise refused

    def _arrives(self, outcome: Outcome, weights: list[str]) -> bool:
        """Whether tensors of these files are parameters of a model as the run began."""
        known = self.guard.subject.server.call(digests_of, weights)
        begun = {event["start"] for event in outcome.recording.of("look tensor") if event["sort"] == "parameter"}
        return len(begun & set(known)) >= ARRIVED

    def _start_from(self, path: str, model: Path, name: str, what: str) -> Outcome:
        known = self._runs.outcomes
        if name not in known:
            request = RunRequest(f"set {path} to {what}", settings={path: str(model)}, closely=True)
            (known[name],) = self.guard.run_all([request])
        if not _ended_well(known[name]):
            mend = self.guard.needs.BASE_MODEL if name == "base" else ""  # it may well check what it loads
            raise NotApplicable(f"it does not start from {model.name}, {what}: {known[name].how}", mend)
        return known[name]

    def _with_workers(self, path: str, count: int) -> Outcome:
        if count == 0 and self.guard.subject.settings.tiny(self.guard.needs.setting("workers")) == 0:
            return self.plain()
        return self._once(f"workers-{count}", f"trained with {path} = {count}, looked at closely", {path: count})

    @property
    def holds_out(self) -> bool:
        """In the plain run it is given other rows to evaluate on, or told which share to hold out."""
        found = self.guard.subject.settings
        fraction = found.role("validation_fraction")
        return found.role("validation_data") is not None or bool(fraction and found.tiny(fraction))

    @property
    def _accumulation(self) -> Any:
        return self.guard.subject.settings.role("accumulation")

    def _once(self, name: str, did: str, values: Mapping[str, object], times: int = 1, **options: Any) -> Outcome:
        return self._require_end(self._make(name, did, values, times, **options))

    def _went_well(self, outcome: Outcome) -> bool:
        """Whether a run ended as a success; of one that the harness ends itself, whether it took a step."""
        return bool(outcome.recording.steps) if self._is_endless() else _ended_well(outcome)

    def _require_end(self, outcome: Outcome) -> Outcome:
        if not self._went_well(outcome):
            if self._is_endless():
                raise CannotJudge(f"{outcome.did}: it took no step: {outcome.how}")
            raise CannotJudge(
                f"{self.guard.subject.name}: {outcome.did}: {outcome.how}, though the undisturbed run ends well",
                outcome.output[-4000:],
            )
        return outcome

    def _beside(
        self, name: str, did: str, values: Mapping[str, object] | None = None, like: str = "plain", **options: Any
    ) -> Outcome:
        """A run by the settings of another one, on its data where no other is given, and cut short where that is.

        It may have failed. `values` are settings beside those; `options` are a `RunRequest`'s.
        """
        known = self._runs
        if name not in known.outcomes:
            given = settings.merge(known.settings[like], values or {})
            end = {"fault": kill(CUT_SHORT + 1)} if self._is_endless() else {"steps": STEPS}
            request = RunRequest(
                did, settings=given, closely=True, rows=self._rows(given), states=True,
                **{"data": known.data[like], **end, **options},
            )  # fmt: skip
            # Not by `run_all`: a program that stops before its first step is then tried with less of a change.
            known.outcomes[name] = self.guard.subject.start(request).outcome()
        return known.outcomes[name]

    def _make(self, name: str, did: str, values: Mapping[str, object], times: int = 1, **options: Any) -> Outcome:
        """A run of this name, made the first time; it may have failed. `options` are a `RunRequest`'s."""
        known = self._runs
        if name not in known.outcomes:
            evaluating = settings.merge(self._evaluating(), values)
            share = self._held_out(times)
            epoch = self._epoch(times)
            tries = [(epoch, settings.merge(share, evaluating)), *([(epoch, evaluating)] if share else [])]
            # On the trainer's own piece of data, and then with its own settings, where it needs more rows.
            for data, given in (*tries, (None, evaluating), (None, dict(values))):
                known.outcomes[name] = self._start(did, data, given, **options)
                known.data[name], known.settings[name] = data, given
                if _ended_well(known.outcomes[name]):
                    break
        return known.outcomes[name]

    def _start(self, did: str, data: Path | None, given: Mapping[str, object], **options: Any) -> Outcome:
        request = RunRequest(
            did, data=data, steps=STEPS, settings=given, states=True, closely=True, rows=self._rows(given), **options
        )
        (outcome,) = self.guard.run_all([request])
        return outcome

    def _rows(self, given: Mapping[str, object]) -> int:
        """The batch size of a run with these settings; 0 where nobody knows."""
        field = self.guard.subject.settings.role("batch_size")
        if field is None:
            return 0
        size = settings.value_at(given, field.path) or self.guard.subject.settings.tiny(field)
        return size if isinstance(size, int) else 0

    def _parts(self, field: Any) -> int:
        """How many batches of an optimizer step the setting is set to."""
        return int(min(MANY, field.bounds.get("le", MANY)))

    def _epoch(self, times: int) -> Path | None:
        """As many rows as three batches have; None, for the trainer's own piece, where these are not to be had."""
        subject = self.guard.subject
        size = self.guard.reference.rows_of_a_step
        if not size or subject.data is None:
            return None
        rows = min(BATCHES * size * times, MOST_ROWS)
        share = self._share_held_out()
        if self._held_out(times):
            rows += HELD_OUT
        elif share and share[1] * (rows + HELD_OUT) >= HELD_OUT:
            rows = math.ceil(rows / (1 - share[1]))
        with contextlib.suppress(CannotJudge):
            return subject.make_data(subject.server.new_folder("epoch"), rows)
        return None

    def _share_held_out(self) -> tuple[Any, float] | None:
        """The setting for the share of the rows to hold out, and what it is; None where there is none."""
        found = self.guard.subject.settings
        share = found.role("validation_fraction")
        usual = found.tiny(share) if share else None
        return (share, usual) if isinstance(usual, float) and 0 < usual < 1 else None

    def _held_out(self, times: int) -> dict[str, object]:
        """The share of the rows of an epoch to hold out, so that rows are recognised in an evaluation.

        Nothing where no share is held out, or one that is large enough, or where so large a one may not be.
        """
        found, size = self._share_held_out(), self.guard.reference.rows_of_a_step
        if found is None or not size:
            return {}
        share, usual = found
        rows = min(BATCHES * size * times, MOST_ROWS) + HELD_OUT
        larger = round((HELD_OUT + 0.5) / rows, 4)  # rounded down by some programs, and up by others
        fits = usual * rows < HELD_OUT and larger <= LARGEST_SHARE and share.allows(larger)
        return {share.path: larger} if fits else {}

    def _evaluating(self) -> dict[str, object]:
        """The settings for evaluations between some of the steps, on other rows."""
        subject = self.guard.subject
        every, file = subject.settings.role("eval_every"), subject.settings.role("validation_data")
        found: dict[str, object] = {every.path: EVAL_EVERY} if every else {}
        if file is not None and subject.data is not None:
            other = subject.make_validation(subject.server.new_folder("validation"))
            found = settings.merge(found, {file.path: str(other)})
        return found


def _ended_well(outcome: Outcome) -> bool:
    return outcome.exit == 0 and not outcome.timed_out


def _differing(before: list[object], after: list[object]) -> int:
    """How many rows have another label than before."""
    return sum(one != other for one, other in zip(before, after, strict=True))
