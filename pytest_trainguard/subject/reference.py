"""The undisturbed run that disturbed ones are held against, and what is read off it."""

from __future__ import annotations

import json
import math
import os
import re
from functools import cached_property
from pathlib import Path

from pytest_trainguard.contract import checkpoints
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.launch import child
from pytest_trainguard.launch.protocol import RUN_STEPS, LoadedModules, RunRequest, from_json
from pytest_trainguard.subject.framework import name_framework
from pytest_trainguard.subject.hints import explain_isolation, tell_missing_module
from pytest_trainguard.subject.subject import NO_STEPS, Subject
from pytest_trainguard.verdicts.causes import find_crash
from pytest_trainguard.verdicts.errors import CannotJudge

MANY_TIMES = 10  # as many optimizer steps as asked for: more than several optimizers can take for one step
_NO_MODULE = re.compile(r"^ModuleNotFoundError: No module named '([^']+)'")
# What argparse and click say of arguments that they do not know, or lack.
_USAGE = re.compile(r"^usage: ", re.IGNORECASE | re.MULTILINE)
_NO_PYTHON = (
    "the undisturbed run succeeds, and no Python process of it that has torch came to its end: the steps of a program "
    "in another language cannot be seen, and of such a one only its queue can be judged (queue = ...)"
)
_IGNORES = "it takes no notice of run.max_steps"


class Reference:
    """The undisturbed run of one trainer, made when it is first asked for.

    Attributes:
        endless: what to say of a program that takes more steps than it is asked for, and no notice of that or longer
            than the time limit; empty of any other. It may be started all the same, by whoever ends it.
    """

    def __init__(self, subject: Subject):
        self._subject = subject
        self.endless = ""
        self._made: tuple[Outcome, LoadedModules] | None = None

    @classmethod
    def shared(cls, subject: Subject) -> Reference:
        """The one that all tests of a trainer share."""
        return subject.findings.get(cls, lambda: cls(subject))

    @property
    def outcome(self) -> Outcome:
        """How it ended.

        Raises:
            CannotJudge: it fails, so that nothing can be said of disturbed ones.
        """
        return self.make()[0]

    def make(self) -> tuple[Outcome, LoadedModules]:
        """The run, made the first time, and what it imported. Raises as `outcome`."""
        if self._made is None:
            self._made = self._run()
        return self._made

    def _run(self) -> tuple[Outcome, LoadedModules]:
        """What it imports is loaded into the warm server, for all runs after it."""
        subject = self._subject
        subject.server.require_sound()
        if self.endless:
            raise CannotJudge(self.endless)
        request = RunRequest("trained undisturbed", states=True, tell_modules=True)
        started = subject.start(request)
        outcome = started.outcome()
        if subject.keep_from_project(outcome):
            started = subject.start(request)
            outcome = started.outcome()
        overrun = _ignored(outcome) if self._ignores_max_steps(outcome) else find_overrun(outcome)
        if overrun and len(outcome.recording.steps) > RUN_STEPS:
            self.endless = f"{subject.name}: {overrun}"
            if subject.unbounded:
                self.endless = f"{subject.name}: {_tell_unbounded(outcome)}"
            raise CannotJudge(self.endless)
        if overrun:  # neither its log nor its stacks say more
            raise subject.server.give_up(f"{subject.name}: {overrun}", "")
        problem = _what_is_wrong_with(outcome)
        if problem:
            evidence = outcome.stack if outcome.timed_out else outcome.output[-4000:]
            hint = explain_isolation(outcome, subject.reach) or _explain_working_folder(subject, outcome)
            told = f"{subject.name}: {problem}{_last_line(outcome)}{f'; {hint}' if hint else ''}"
            mend = _how_to_mend(outcome)
            if mend:
                raise subject.server.refuse(f"{told}: {mend}", evidence)
            if _ended_itself_at_once(outcome) or problem == _NO_PYTHON:
                raise subject.server.refuse(told, evidence)
            raise subject.server.give_up(told, evidence)
        modules = _read_modules(started.folder / child.MODULES_FILE)
        subject.server.load_libraries(modules.libraries)
        return outcome, modules

    def _ignores_max_steps(self, outcome: Outcome) -> bool:
        """Whether it takes as many steps when it is asked for more than it took; one of two optimizers takes more then.

        Only programs that took more steps than they were asked for are started for this, and not for much longer.
        """
        taken = len(outcome.recording.steps)
        if outcome.exit != 0 or outcome.timed_out or taken <= RUN_STEPS:
            return False
        if self._subject.unbounded:
            return True
        limit = 5 + 2 * outcome.seconds
        more = RunRequest(f"asked for {taken + 1} optimizer steps", steps=taken + 1, time_limit=limit)
        again = self._subject.start(more).outcome()
        return again.exit == 0 and not again.timed_out and len(again.recording.steps) == taken

    @cached_property
    def second_outcome(self) -> Outcome:
        """A second undisturbed run: whether it equals the first tells whether equality says anything.

        Whether it succeeded is for `require_second`.
        """
        return self._subject.start(RunRequest("trained undisturbed again")).outcome()

    def require_second(self) -> Outcome:
        """The second undisturbed run, where it succeeded like the first.

        Raises:
            CannotJudge: it failed, which says nothing of seeds: the program cannot be started twice.
        """
        outcome = self.second_outcome
        if outcome.exit == 0 and not outcome.timed_out:
            return outcome
        raise CannotJudge(
            f"{self._subject.name}: its first undisturbed run succeeds and a second one fails: {outcome.how}"
            f"{_last_line(outcome)}; each has an output folder of its own: look for what the first leaves elsewhere",
            outcome.output[-4000:] + outcome.stack,
        )

    @property
    def framework(self) -> str:
        """What the program trains with, as the guides call it; empty where it never ran."""
        return name_framework(self._made[1].libraries) if self._made else ""

    @property
    def modules(self) -> tuple[str, ...]:
        """The libraries that its process had loaded at the end; empty where it never ran."""
        return self._made[1].libraries if self._made else ()

    @property
    def own_modules(self) -> tuple[Path, ...]:
        """The trainer's own source files: what the run imported from inside the project."""
        return self.make()[1].own

    @property
    def patience(self) -> float:
        """Seconds after which a short run is taken for hung: ten, and several times what the undisturbed one took."""
        return 10 + 4 * self.outcome.seconds

    @cached_property
    def saves(self) -> tuple[int, ...]:
        """The optimizer steps that were complete when it wrote to a checkpoint: `find_saves`."""
        return find_saves(self._subject, self.outcome)

    def saves_of(self, outcome: Outcome) -> tuple[int, ...]:
        """The same of another run of this trainer."""
        return find_saves(self._subject, outcome)

    @cached_property
    def first_save(self) -> int:
        """Optimizer steps that were complete when it first wrote to a checkpoint (all of them where it never did)."""
        written = [event for event in self.outcome.recording.of("write") if event["how"] in ("open", "move")]
        steps = self.saves or [event["step"] for event in written if event["step"] > 0]
        return min(steps, default=len(self.outcome.recording.steps))

    @cached_property
    def last_step(self) -> int:
        """The last optimizer step that a forward pass leads to: two optimizers may share one."""
        steps = self.outcome.recording.steps
        return next((step.number for step in reversed(steps) if step.losses), len(steps))

    @property
    def rows_of_a_step(self) -> int:
        """Rows of the data that an optimizer step takes, as its inputs have them; 0 where that is not seen.

        No more than the settings say: of a batch of graphs the inputs' rows are nodes.
        """
        seen = max((step.examples for step in self.outcome.recording.steps), default=0)
        found = self._subject.settings
        parts = [found.tiny(field) for name in ("batch_size", "accumulation") if (field := found.role(name))]
        sizes = [part for part in parts if isinstance(part, int) and part > 0]
        return min(seen, math.prod(sizes)) if sizes and found.role("batch_size") else seen

    def writes_after(self, step: int) -> int:
        """How many writes to the output folder follow a step; 0 where none is seen."""
        return sum(event["step"] == step for event in self.outcome.recording.of("write"))


def find_saves(subject: Subject, outcome: Outcome) -> tuple[int, ...]:
    """The optimizer steps that were complete when a run wrote to a checkpoint, in order; empty where none is seen.

    Where its writes pass unseen (C++), the steps in its checkpoints' names.
    """
    output_dir = os.path.realpath(outcome.output_dir)
    found = subject.find_checkpoints(outcome.output_dir)
    kinds = {checkpoints.kind_of(os.path.relpath(os.path.realpath(path), output_dir)) for path in found}
    written = {
        event["step"]
        for event in outcome.recording.of("write")
        if event["step"] > 0
        and event["how"] in ("open", "rename", "move")
        and checkpoints.belongs_to(os.path.relpath(event["path"], output_dir), kinds)
    }
    named = {step for step in map(checkpoints.step_of, found) if step is not None}
    return tuple(sorted(written or named))


def _read_modules(file: Path) -> LoadedModules:
    return from_json(LoadedModules, json.loads(file.read_text())) if file.exists() else LoadedModules((), ())


def _explain_working_folder(subject: Subject, outcome: Outcome) -> str:
    """Why a file may not be found by a program that is started in its output folder; empty where all are."""
    if not subject.works_in_output or "FileNotFoundError" not in outcome.failure:
        return ""
    return (
        "it is started in its output folder, since its command has no {output_dir}: the project is linked there, but "
        "for weights and folders with checkpoints; name those by their whole path"
    )


def _last_line(outcome: Outcome) -> str:
    """What ended a run that failed, in its own words and in brackets, to follow `how`; empty where it said nothing."""
    said = outcome.failure if outcome.exit != 0 and not outcome.timed_out else ""
    crash = find_crash(outcome) if said else None
    place = crash.key.rpartition("@")[2] if crash else ""
    return f" ({said}{f', at {place}' if place else ''})" if said else ""


def find_overrun(outcome: Outcome) -> str | None:
    """What to say of an undisturbed run that the time limit ended while it was taking steps; None of any other."""
    taken = len(outcome.recording.steps)
    if not outcome.timed_out or not outcome.stepping:
        return None
    if taken < MANY_TIMES * RUN_STEPS:
        return tell_slow(outcome, RUN_STEPS)
    after = f"when it was ended after {outcome.seconds:.0f} s"
    return f"{_IGNORES}: {taken} optimizer steps, and no end, {after}; {RUN_STEPS} were asked for"


def tell_slow(outcome: Outcome, asked: int) -> str:
    """Where a run was that was asked for so many optimizer steps, when the time limit ended it; and what to set."""
    taken = len(outcome.recording.steps)
    place = f"was at optimizer step {taken} of {asked}" if taken <= asked else f"had taken {taken} optimizer steps"
    ended = f"it {place} when it was ended after {outcome.seconds:.0f} s"
    return (
        f"it is slow: {ended}: raise trainguard_timeout (seconds, in the ini file), or make the tiny settings smaller"
    )


def _tell_unbounded(outcome: Outcome) -> str:
    taken = len(outcome.recording.steps)
    ended = f", and no end after {outcome.seconds:.0f} s" if outcome.timed_out else ""
    return (
        f"its command has no {{max_steps}}, and it takes {taken} optimizer steps{ended}: only silent errors can be "
        f"judged, in the first steps; for all else, {NO_STEPS}"
    )


def _ignored(outcome: Outcome) -> str:
    taken = len(outcome.recording.steps)
    return f"{_IGNORES}: {taken} optimizer steps whether it is asked for {RUN_STEPS} or for {taken + 1}"


def _how_to_mend(outcome: Outcome) -> str:
    """What the team has to mend of its set-up, where that is why an undisturbed run failed; empty where it is not."""
    missing = _NO_MODULE.search(outcome.failure)
    if outcome.exit != 0 and missing:
        return tell_missing_module(missing[1])
    if outcome.exit == 2 and not outcome.recording.steps and _USAGE.search(outcome.output):
        return "the program does not take these arguments: look at the trainer's command"
    return ""


def _ended_itself_at_once(outcome: Outcome) -> bool:
    """Whether a run gave up, by an exception or an exit code, before it trained: with what it was given it cannot."""
    return outcome.exit > 0 and not outcome.timed_out and not outcome.recording.steps


def _what_is_wrong_with(outcome: Outcome) -> str | None:
    """Why disturbed runs cannot be held against this undisturbed one, if they cannot."""
    taken = len(outcome.recording.steps)
    if outcome.timed_out:
        return f"the undisturbed run fails: {outcome.how}: where it is only slow, raise trainguard_timeout"
    if outcome.exit != 0:
        return f"the undisturbed run fails: {outcome.how}"
    if not outcome.output_dir.exists():
        return "the undisturbed run removes its own output folder (run.output_dir): what it was to leave there is lost"
    if not taken and not outcome.recording.ended:
        return _NO_PYTHON
    if not taken:
        return (
            "the undisturbed run takes no optimizer step that torch knows of (it updates parameters itself, as with "
            "p.data.add_(...)?): step a torch.optim.Optimizer, whose step may do just that"
        )
    if not outcome.recording.finite:
        return "the undisturbed run has a loss that is not finite"
    if taken < RUN_STEPS and not outcome.recording.ended:
        return f"the undisturbed run breaks off, os._exit(0), after {taken} of {RUN_STEPS} optimizer steps"
    return None
