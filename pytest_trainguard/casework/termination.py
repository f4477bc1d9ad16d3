"""SIGTERM in every phase of a run: that something is done about it, and what a second start makes of what is left."""

from __future__ import annotations

from pytest_trainguard import faults
from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.launch.protocol import RunRequest
from pytest_trainguard.probes.guard import Guard
from pytest_trainguard.subject.reference import find_saves
from pytest_trainguard.verdicts import causes
from pytest_trainguard.verdicts.errors import Finding
from pytest_trainguard.verdicts.gathering import note, noting
from pytest_trainguard.verdicts.kinds import recovers

__all__ = ["check_heeded", "check_recovered", "check_workers", "phases"]

WORKERS = 2  # of the loader, where their number can be set
WORKERS_START = 30.0  # seconds at most until they work, where each imports torch anew


def phases(guard: Guard) -> list[RunRequest]:
    """Runs that are sent SIGTERM in one phase each, and left alone from then on: no SIGKILL follows.

    The signal goes to the run and to every process that it started, as from a scheduler that ends a job. The last of
    them has its loader's workers alive.
    """
    saved, last = guard.reference.first_save, guard.reference.last_step
    evaluated = next((s.number for s in guard.reference.outcome.recording.steps[:last] if s.eval_forwards), None)
    places = {
        "while its model was built": faults.terminate("build"),
        "in step 1": faults.terminate("forward", 1),
    }
    writes = guard.reference.writes_after(saved)
    if writes:  # else they pass unseen
        places[f"as it saved after step {saved}"] = faults.terminate("save", saved, max(1, writes // 2))
    if evaluated:
        places[f"as it evaluated before step {evaluated}"] = faults.terminate("evaluate", evaluated)
    requests = [
        RunRequest(f"sent SIGTERM {when}", fault=fault, time_limit=guard.patience) for when, fault in places.items()
    ]
    workers = guard.subject.settings.role("workers")
    given = {workers.path: WORKERS} if workers and workers.allows(WORKERS) else {}
    to = f" with {WORKERS} workers of its loader, which got it too" if given else ""
    step = saved + 1
    return [
        *requests,
        RunRequest(
            f"sent SIGTERM in step {step}{to}",
            fault=faults.terminate("forward", step),
            settings=given,
            time_limit=guard.patience + (WORKERS_START if given else 0.0),
        ),
    ]


def check_heeded(guard: Guard, outcome: Outcome) -> None:
    """Something was done about the signal: the run ended early, or failed, or saved what it would not have saved.

    Raises:
        Finding: it went on to its end as if nothing had come, or never ended.
    """
    reference = guard.reference.outcome
    if outcome.timed_out:
        raise Finding(
            outcome.did, f"it {outcome.how}: SIGKILL will end it, and what it had not saved is lost",
            outcome.stack, grade="wastes",
        )  # fmt: skip
    whole = len(outcome.recording.steps) >= len(reference.recording.steps)
    if outcome.exit != 0 or not whole or _saved_more(guard, outcome) or _wrote_more(guard, outcome):
        return
    taken = len(outcome.recording.steps) - outcome.recording.steps_before_fault
    told = (
        f"the signal is ignored: it took {taken} more steps to its end, and saved nothing on account of it. A "
        "scheduler sends SIGKILL after its grace period: what was done since the last save is lost. "
        "Note the signal in a handler; after the step save, and exit non-zero"
    )
    if len(guard.reference.saves) >= len(reference.recording.steps):
        note(Finding(outcome.did, told.replace(": what was done since the last save is lost", ""), grade="unclear"))
        return
    raise Finding(outcome.did, told, outcome.last_words, grade="loses", cause=causes.IGNORES_SIGTERM)


def check_workers(guard: Guard, alone: Outcome, together: Outcome) -> None:
    """A run that saves at the signal saves as well where its loader's workers get the signal, too.

    Args:
        guard: of the trainer.
        alone: a run that got the signal in a step, and nothing of it did beside.
        together: one that got it in the same step with all that it had started.

    Raises:
        Finding: it saved nothing then.
    """
    if not _saved_more(guard, alone) or together.timed_out:
        return
    if _saved_more(guard, together) or _wrote_more(guard, together):
        return
    told = (
        f"it did not save, as it does where the signal goes to it alone: {together.how}. Schedulers signal every "
        "process of a job, and a worker that dies of it takes the training process with it: have the workers ignore "
        "the signal, DataLoader(worker_init_fn=lambda _: signal.signal(signal.SIGTERM, signal.SIG_IGN))"
    )
    raise Finding(together.did, told, together.last_words, grade="loses")


def check_recovered(guard: Guard, outcomes: list[Outcome]) -> None:
    """A second start carries on from whatever they left; where they left nothing there is nothing to carry on from."""
    left = [outcome for outcome in outcomes if not outcome.timed_out and outcome.left()]
    # Before they are started again: what they left is then where the second start puts checkpoints of its own.
    nothing = [not one.recording.steps or not guard.checkpoints.find(one.output_dir) for one in left]
    for before, again, afresh in zip(left, guard.checkpoints.start_again(left), nothing, strict=True):
        whole = len(before.recording.steps) >= len(guard.reference.outcome.recording.steps)
        if whole and again.exit == 0 and not again.losses:
            continue
        with noting():
            recovers(again, guard.reference.outcome, from_scratch=afresh)


def _saved_more(guard: Guard, outcome: Outcome) -> bool:
    """Whether it saved after another step than the undisturbed run does."""
    return bool(set(find_saves(guard.subject, outcome)) - set(guard.reference.saves))


def _wrote_more(guard: Guard, outcome: Outcome) -> bool:
    """Whether it wrote more often than the undisturbed run does, or something else: it may save a step once more."""
    reference = guard.reference.outcome
    other = set(outcome.left()) - set(reference.after)
    return bool(other) or len(outcome.recording.of("write")) > len(reference.recording.of("write"))
