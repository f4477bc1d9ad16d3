"""`gpu_budget`: whether the job fits the GPU that it will be given, found out without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pytest_trainguard.memory.answers import present_gpu
from pytest_trainguard.memory.answers.measure import measure_on_gpu
from pytest_trainguard.memory.answers.prediction import Prediction
from pytest_trainguard.memory.answers.search import Largest
from pytest_trainguard.memory.answers.verdict import format_headline
from pytest_trainguard.memory.replay.budget import Limit, parse_budget, resolve_budget
from pytest_trainguard.memory.replay.cards import find_card
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.verdicts.errors import CannotJudge, Finding, NotApplicable


@dataclass
class BudgetFindings:
    """What is known of one trainer's GPU memory.

    Attributes:
        predictions: by budget.
        drawn: the pictures of it that this session has drawn.
    """

    predictions: dict[Limit, Prediction] = field(default_factory=dict)
    drawn: set[Path] = field(default_factory=set)


class GpuBudget:
    """Holds a trainer's production settings against `--gpu-budget`; each trainer is traced once for all cases.

    Attributes:
        limit: the budget; None where none was given.
        others: further budgets, which decide nothing and are told beside it.
        timeline: where memory over the trace is drawn, with the trainer's name put in; None for nowhere.
    """

    def __init__(
        self, guard: Guard, limit: Limit | None, note: Callable[[dict[str, object]], None],
        timeline: Path | None = None, others: Sequence[Limit] = (),
    ):  # fmt: skip
        """`note` is given what is to be reported."""
        self.guard, self.limit, self.timeline, self._note, self.others = guard, limit, timeline, note, others
        self._findings = guard.subject.findings.get(BudgetFindings, BudgetFindings)

    @property
    def prediction(self) -> Prediction:
        """What is predicted for this trainer.

        Raises:
            NotApplicable: no budget was given.
        """
        if self.limit is None:
            raise NotApplicable("no GPU budget to hold it against: give one, --gpu-budget 40GiB or a card's name")
        return self.under(self.limit)

    def under(self, limit: Limit) -> Prediction:
        """What is predicted for this trainer under another budget than that of the command line."""
        known = self._findings.predictions
        if limit not in known:
            known[limit] = self._predict(limit)
        return known[limit]

    def largest(self, role: str, budget: str | None = None) -> Largest:
        """The largest value of a setting with which two optimizer steps fit, its rows the longest ones together.

        Each trial is a trace of the very value; those before only say which one to try next.

        Args:
            role: the setting (`settings.ROLES`); a whole number at production.
            budget: as for `--gpu-budget`; by default that one.

        Returns:
            `value`: the largest; None where none fits. `exact`: the next one does not fit; else it is `beyond`. And
            the `judgement` of it: the peak, and what takes it.

        Raises:
            NotApplicable: no budget was given, or no setting plays the role.
            CannotJudge: the program could not be traced; with the operation.
            ValueError: the budget is none, in one line.
        """
        field = self.guard.needs.setting(role)
        prediction = self.under(resolve_budget(parse_budget(budget))) if budget else self.prediction
        found = prediction.find_largest(role)
        if found is None:
            raise NotApplicable(f"{field.path} is no whole number at the production settings, {self._value(role)!r}")
        if found[1].unknown:
            raise CannotJudge(f"GPU memory: {found[1].unknown}")
        return found[1]

    def _predict(self, limit: Limit) -> Prediction:
        """On a machine with a GPU, unless a card was named, measured as well; not on one that is busy."""
        from pytest_trainguard.memory.answers.tracing import Tracing

        traced = Tracing(self.guard.subject, limit.device)
        present = present_gpu.find_gpu() if find_card(limit.text) is None else None
        if present is not None and (why := present_gpu.find_obstacle(present, limit)):
            raise CannotJudge(f"GPU memory: {why}")
        on_gpu = partial(measure_on_gpu, traced, limit.cap) if present is not None else None
        others = self.others if limit == self.limit else ()
        return Prediction(self.guard.subject.settings, traced.trace, limit, measure=on_gpu, others=others,
                          trace_on=traced.trace_on)  # fmt: skip

    def fits(self, role: str) -> None:
        """Two optimizer steps at the production settings, on the longest rows, fit the budget.

        Args:
            role: the setting whose largest fitting value is named where they do not (`settings.ROLES`).

        Raises:
            NotApplicable: no budget was given, or no setting plays the role.
            CannotJudge: the program could not be traced; with the operation.
            Finding: it does not fit.
        """
        prediction, field = self.prediction, self.guard.needs.setting(role)
        judgement = prediction.judgement
        did = f"predicted the GPU memory of the production settings ({field.path} = {self._value(role)})"
        try:
            if prediction.verdict == "UNKNOWN":
                raise CannotJudge(f"GPU memory: {judgement.reason}", "\n".join(judgement.notes))
            if prediction.verdict == "OUT OF MEMORY":
                prediction.find_alternatives()  # for the report
                found = prediction.find_largest(role)
                largest = f"\nthe largest {field.path} that fits: {found[1].words}" if found else ""
                how = "measured on the GPU, predicted: " if prediction.measured else ""
                raise Finding(did, f"{how}{format_headline(judgement)}\n{judgement.reason}{largest}", grade="wastes")
        finally:
            drawn = {"timeline": self._draw(prediction), "over_time": prediction.over_time}
            self._note({**prediction.as_dict(), **drawn})

    def _draw(self, prediction: Prediction) -> str | None:
        trace = prediction.trace({})
        if self.timeline is None or not trace.events:
            return None
        from pytest_trainguard.memory.answers import timeline

        path = self.timeline.with_name(f"{self.timeline.stem}-{self.guard.subject.name}{self.timeline.suffix}")
        if not path.exists() or path not in self._findings.drawn:
            timeline.draw_timeline(path, trace, prediction.limit, prediction.judgement)
            self._findings.drawn.add(path)
        return str(path)

    def _value(self, role: str) -> object:
        return self.guard.subject.settings.production(self.guard.needs.setting(role))
