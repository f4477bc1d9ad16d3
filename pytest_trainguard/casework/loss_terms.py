"""Whether what the weight of a loss's term weighs is learnt from: a term that is cut off shows in the loss alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from pytest_trainguard.casework.effects import reaches
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.recorder.timeline import Step
from pytest_trainguard.verdicts.errors import Finding, NotApplicable

__all__ = ["find_cut_off"]

MOST = 3  # settings that are tried, each in a run
ENOUGH = 4  # steps in which the term is seen
STEADY = 1e-3  # of the term: what is the same in each step may be a floor or a margin, which has no gradient
ROUNDED = 1e-5  # of a loss in 32 bits, of which a term is the difference
_WEIGHT = re.compile(r"(?:^|_)(?:weight|coef|coeff|coefficient|lambda|lam)(?:_|$)", re.IGNORECASE)
_OTHERS = re.compile(r"decay|class|init|pos_weight|path|file|sampl", re.IGNORECASE)


def find_cut_off(guard: Guard) -> Iterator[Finding]:
    """What is weighed into the loss, changes from step to step, and changes no gradient.

    With another weight every step's loss is another one, and every gradient, weight and rate is as before, to the bit.
    So the weights of both runs are the same, and the difference of the losses is the term itself.
    """
    try:
        reference = guard.needs.repeatable_run()
    except NotApplicable:
        return
    for setting, value in list(_weights(guard))[:MOST]:
        before = guard.subject.settings.tiny(setting)
        did = f"set {setting.path} = {value!r} (before: {before!r})"
        (outcome,) = guard.run_all([RunRequest(did, settings={setting.path: value}, states=True)])
        terms = _terms(outcome, reference)
        if outcome.exit == 0 and terms and _learns_the_same(outcome, reference):
            shown = ", ".join(f"{term:.4g}" for term in terms[:3])
            yield Finding(
                did,
                f"what {setting.path} weighs is in the loss, and nothing is learnt from it: the loss of each step is "
                f"another one (by {shown}, ...), and every gradient and weight is as before, to the bit: no gradient "
                "comes back from that term; look in it for .detach(), .item(), no_grad, or a model that is frozen and "
                "given what was detached",
                outcome.last_words,
                grade="misleads",
            )


def _weights(guard: Guard) -> Iterator[tuple[Field, float]]:
    """The settings that weigh a term of the loss, by their names, each with another value for it."""
    settings = guard.subject.settings
    for setting in settings.fields:
        value = settings.tiny(setting)
        if setting.kind != "float" or not _is_weight(setting.path) or not reaches(guard, setting):
            continue
        if isinstance(value, float | int) and not isinstance(value, bool) and value > 0:
            usable = [other for other in (value * 2, value / 2) if setting.allows(other)]
            if usable:
                yield setting, usable[0]


def _is_weight(path: str) -> bool:
    name = path.rpartition(".")[2]
    return bool(_WEIGHT.search(name)) and not _OTHERS.search(name)


def _terms(outcome: Outcome, reference: Outcome) -> list[float]:
    """By how much the losses differ, of the steps whose does; none where that is always the same."""
    pairs = [(one.loss, other.loss) for one, other in zip(_steps(outcome), _steps(reference), strict=False)]
    found = [one - other for one, other in pairs if one != other and math.isfinite(one - other)]
    if len(found) < ENOUGH:
        return []
    rounded = ROUNDED * max(abs(one) for one, _ in pairs if math.isfinite(one))
    return found if max(found) - min(found) > STEADY * max(map(abs, found)) + rounded else []


def _steps(outcome: Outcome) -> Sequence[Step]:
    """Those whose losses are of 32 bits."""
    return [step for step in outcome.recording.steps if step.dtype == "torch.float32" and step.autocast is None]


def _learns_the_same(outcome: Outcome, reference: Outcome) -> bool:
    def learnt(one: Outcome) -> list[tuple[object, ...]]:
        return [(str(s.grad_norm), s.moved, s.lr, s.states.get("weights")) for s in one.recording.steps]

    ours, theirs = learnt(outcome), learnt(reference)
    return ours == theirs and any(step.moved for step in outcome.recording.steps)
