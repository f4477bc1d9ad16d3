"""Cases 21 to 30: GPU and memory, and the disk."""

from __future__ import annotations

import re

from pytest_trainguard import Finding, Guard, Outcome, edge_case, faults, recovers, rejects, stops, survives
from pytest_trainguard.expect import Wording
from pytest_trainguard.probes.memory import OomProbe

OUT_OF_MEMORY = Wording("memory", re.compile(r"memory|\boom\b", re.I))
ON_CPU = Wording("the CPU", re.compile(r"\bcpu\b", re.I))
DISK = 256 * 2**20  # bytes; a tmpfs takes only what is written to it


@edge_case(
    23,
    "out of memory in a step",
    verdict="stops/recovers",
    severity="critical",
    brought_about="torch.OutOfMemoryError in the forward pass, the backward pass, the optimizer step",
    expects="stops, naming it; or carries on with a smaller micro-batch at the same effective batch",
)
def test_23_out_of_memory_in_a_step(oom_probe: OomProbe, guard: Guard) -> None:
    """The batch that did not fit came after hours: the longest rows stood together in it."""
    outcomes = oom_probe.everywhere(step=4)
    for outcome in outcomes:
        if outcome.exit == 0:
            survives(outcome, OUT_OF_MEMORY)
            _same_effective_batch(outcome, guard.reference())
        else:
            stops(outcome, OUT_OF_MEMORY)
    guard.check_checkpoints(*outcomes)


def _same_effective_batch(outcome: Outcome, reference: Outcome) -> None:
    """The step of the error was done again in smaller parts, and every step saw as many examples as before."""
    number = outcome.recording.steps_before_fault
    if len(outcome.losses) != len(reference.losses):
        raise Finding(outcome.did, f"it took {len(outcome.losses)} steps, undisturbed {len(reference.losses)}")
    for index, (ours, theirs) in enumerate(zip(outcome.recording.steps, reference.recording.steps, strict=True)):
        wanted = theirs.examples
        if index != number:
            if ours.examples != wanted:
                raise Finding(
                    outcome.did,
                    f"step {index + 1} saw {ours.examples} examples, undisturbed {wanted}",
                    outcome.last_words,
                )
            continue
        # The sizes of the step's forward passes: first what failed, then, at the end, what took its place.
        parts: list[int] = []
        while sum(parts) < wanted and len(parts) < len(ours.batches):
            parts.insert(0, ours.batches[-1 - len(parts)])
        if sum(parts) != wanted or max(parts) >= max(theirs.batches):
            raise Finding(
                outcome.did,
                f"step {index + 1} was not done again in smaller parts: its forward passes saw "
                f"{', '.join(map(str, ours.batches))} examples, undisturbed {', '.join(map(str, theirs.batches))}",
                outcome.last_words,
            )


@edge_case(
    25,
    "disk full",
    verdict="stops",
    severity="critical",
    brought_about="a real small file system filled to its last byte (or a real file-size limit) before a save",
    expects="stops, naming the path; the earlier checkpoint is whole; carries on once there is room",
)
def test_25_disk_full(guard: Guard) -> None:
    """Checkpoints filled the disk at night; the last one, half written, was the one the next start picked up."""
    reference = guard.needs_checkpoints()
    step = guard.first_save() + 1
    outcome = guard.run("filled the disk before a save", fault=faults.fill_disk(step), small_disk=DISK)
    stops(outcome, str(outcome.output_dir), within=len(reference.losses))
    guard.check_checkpoints(outcome)
    folder = guard.copy(outcome.output_dir)
    again = guard.run("filled the disk before a save, then started again with room", output_dir=folder, resume=True)
    recovers(again, reference)


@edge_case(
    26,
    "no GPU",
    verdict="survives/rejects",
    severity="major",
    brought_about="no visible device; then, where the trainer has a setting for it, one that demands a GPU",
    expects="survives on the CPU and says so; or rejects where a GPU was demanded",
)
def test_26_no_gpu(guard: Guard) -> None:
    """A driver update took the GPU away, and the job trained on the CPU for a day without a word."""
    outcome = guard.run("trained with no GPU to be seen")
    if outcome.exit != 0:
        rejects(outcome, ("gpu", "cuda"))
        return
    survives(outcome, ON_CPU)
    device = guard.subject.role("device")
    demand = next((choice for choice in device.choices if str(choice) in ("cuda", "gpu")), None) if device else None
    if device and demand:
        rejects(guard.run(f"demanded a GPU ({device.path}={demand}) where there is none",
                          settings={device.path: demand}), ("gpu", "cuda"))  # fmt: skip
