"""Cases 21 to 30: GPU and memory, and the disk."""

from __future__ import annotations

import re
import statistics
import sys
from itertools import combinations, pairwise

from pytest_trainguard import (
    Field,
    Finding,
    Guard,
    NotApplicable,
    OomProbe,
    Outcome,
    RunRequest,
    Wording,
    edge_case,
    faults,
    noting,
    recovers,
    rejects,
    stops,
    survives,
)
from pytest_trainguard.casework import evaluations
from pytest_trainguard.memory import EXTRAPOLATED_STEPS, TRACED_STEPS

OUT_OF_MEMORY = Wording("memory", re.compile(r"memory|\boom\b", re.I))
NEEDED = Wording("what was needed (2.00 GiB)", re.compile(r"\b2(\.0+)? ?gib|2048(\.0+)? ?mib|2147483648", re.I))
AVAILABLE = Wording("what was available (1.12 GiB)", re.compile(r"1\.12? ?gib|114[67](\.\d+)? ?mib", re.I))
DATA_STAGE = Wording(
    "the stage (reading the data, making a batch)",
    re.compile(r"\b(data|datasets?|batch(es)?|rows?|examples?|samples?|token\w*|collat\w*|load\w*|read\w*|prepar\w*)\b",
               re.I),
)  # fmt: skip
ON_CPU = Wording("the CPU", re.compile(r"\bcpu\b", re.I))
WARM, LONG = 16, 40  # optimizer steps: until caches are filled; in all
REPEATS = 4  # runs in one process
# Bytes a step, and a run, that may come to be in use: caches for lengths not seen before, a list of losses.
STEP_GROWTH, RUN_GROWTH = 4096, 1 << 20
RISING = 0.9  # share of all pairs of counts of which the later is larger: batches of many lengths go up and down
DISK = 256 * 2**20  # bytes; a tmpfs takes only what is written to it
FEW_TO_EVALUATE, MANY_TO_EVALUATE = 576, 2304  # rows: a batch of 1024 or 2048 that somebody chose grows by less


@edge_case(
    "out-of-memory-while-the-model-loads",
    number=21,
    title="out of memory while the model loads",
    verdict="stops",
    severity="misleads",
    brought_about="torch.OutOfMemoryError while the model is built, and while it goes to its device; with --gpu-budget "
    "also half of what the production model takes, in fake CUDA's allocator",
    expects="stops, naming what was needed and what was available; no checkpoint is left",
)
def test_out_of_memory_while_the_model_loads(oom_probe: OomProbe, guard: Guard) -> None:
    """The smaller GPU had been free; after half an hour of loading, the log said "cannot load model"."""
    places = {"build": "as the model was built", "move": "as the model went to its device"}
    outcomes = guard.run_all(
        [
            RunRequest(
                f"let GPU memory run out {when} (torch.OutOfMemoryError)", fault=faults.out_of_memory(where, step=1)
            )
            for where, when in places.items()
        ]
    )
    for outcome in outcomes:
        with noting():
            stops(outcome, OUT_OF_MEMORY, NEEDED, AVAILABLE)
            left = [path.name for path in guard.checkpoints.find(outcome.output_dir)]
            if left:
                raise Finding(outcome.did, f"it left a checkpoint of no model: {', '.join(left)}", outcome.last_words)
    # The injected error comes once, at one door, on the CPU: fast, and for every trainer. Where a budget asks for
    # traces anyway, memory that really is too small costs two seconds more, and meets what is done on a GPU only.
    oom_probe.under_a_cap("build")


@edge_case(
    "out-of-memory-while-data-is-prepared",
    number=22,
    title="out of memory while data is prepared",
    verdict="stops",
    severity="misleads",
    brought_about="a real memory limit, met as the data is opened (MemoryError) and as a batch is made (torch's error)",
    expects="stops, naming the stage",
)
def test_out_of_memory_while_data_is_prepared(guard: Guard) -> None:
    """Tokenising took all memory; "MemoryError" stood in the log, and the batch size was made smaller for a week."""
    _needs_memory_limit()
    outcomes = guard.run_all(
        [
            RunRequest(
                "let host memory run out as the data was opened (MemoryError, a real limit)",
                fault=faults.exhaust_memory("read", asks="python"),
            ),
            RunRequest(
                "let host memory run out as the batch of step 3 was made (torch's RuntimeError, a real limit)",
                fault=faults.exhaust_memory("data", step=3),
            ),
        ]
    )
    for outcome in outcomes:
        with noting():
            stops(outcome, OUT_OF_MEMORY, DATA_STAGE)


def _needs_memory_limit() -> None:
    if sys.platform != "linux":
        raise NotApplicable("this system sets no limit on a process's memory: run the case on Linux")


@edge_case(
    "out-of-memory-in-a-step",
    number=23,
    title="out of memory in a step",
    verdict="stops/recovers",
    severity="misleads",
    brought_about="torch.OutOfMemoryError in the forward pass, the backward pass, the optimizer step; with "
    "--gpu-budget also too little for a step of the production settings, in fake CUDA's allocator",
    expects="stops, naming it; or carries on with a smaller micro-batch at the same effective batch, and gives back "
    "what the failed attempt had taken",
    fast=True,
)
def test_out_of_memory_in_a_step(oom_probe: OomProbe, guard: Guard) -> None:
    """The batch that did not fit came after hours: the longest rows stood together in it."""
    outcomes = oom_probe.everywhere(step=4)
    for outcome in outcomes:
        with noting():
            if outcome.exit == 0:
                survives(outcome, OUT_OF_MEMORY)
                _same_effective_batch(outcome, guard.reference.outcome)
            else:
                stops(outcome, OUT_OF_MEMORY)
    guard.checkpoints.check(*outcomes)
    if any(outcome.exit == 0 for outcome in outcomes):
        _given_back(oom_probe, guard)
    oom_probe.under_a_cap("step")  # as in case 21; here it also comes again, if half a batch is still too large


def _given_back(oom_probe: OomProbe, guard: Guard) -> None:
    """What the attempt that failed had made is gone: an error that is kept, for a log, keeps all of it alive."""
    plain = guard.run("trained undisturbed", census=True)
    usual, usual_parts = _graphs_and_parts(plain)
    for outcome in oom_probe.everywhere(step=4, census=True):
        with noting():
            if outcome.exit != 0:
                continue
            alive, parts = _graphs_and_parts(outcome)
            # A loop may keep each part's loss to the end of its step, and more parts are then no leak.
            if alive > usual * max(1, parts / usual_parts):
                raise Finding(
                    outcome.did,
                    f"what the attempt that failed had made is not given back: {alive} tensors with the graph they "
                    f"came from are alive after step {len(outcome.recording.steps)}, undisturbed {usual}",
                    outcome.last_words,
                    grade="wastes",
                )


def _graphs_and_parts(outcome: Outcome) -> tuple[int, int]:
    """After the last step: tensors alive with the graph they came from, and that step's forward passes, at least 1."""
    return outcome.recording.of("memory")[-1]["graphs"], max(1, len(outcome.recording.steps[-1].batches))


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
    "evaluation-grows",
    title="evaluation grows with its rows",
    verdict="survives",
    severity="wastes",
    brought_about="validation sets of 576 and 2304 rows; the rows of each forward pass and the bytes that tensors hold "
    "between them are counted",
    expects="survives; neither the largest forward pass nor what is held grows with the set",
)
def test_evaluation_grows(guard: Guard) -> None:
    """Validation took all rows at once: 200 of them in every trial run, 40,000 in the real one, after the first epoch.

    Scores of a few classes may be kept of every row; logits over a vocabulary may not.
    """
    small, large = evaluations.evaluate_on(guard, FEW_TO_EVALUATE, MANY_TO_EVALUATE)
    with noting():
        evaluations.check_sizes(guard, small, large)
    evaluations.check_held(small, large)


@edge_case(
    "host-memory-exhausted",
    number=24,
    title="host memory exhausted",
    verdict="stops",
    severity="misleads",
    brought_about="a real limit on the process's memory, met in the forward pass of a step and in a save",
    expects="stops, naming it; the earlier checkpoint is whole",
)
def test_host_memory_exhausted(guard: Guard) -> None:
    """MemoryError has no message of its own: "training failed:" was all that stood in the log."""
    _needs_memory_limit()
    step = guard.reference.first_save + 1
    outcomes = guard.run_all(
        [
            RunRequest(
                "let host memory run out in the forward pass of step 4 (torch's RuntimeError, a real limit)",
                fault=faults.exhaust_memory("forward", step=4),
            ),
            RunRequest(
                f"let host memory run out in the first save after step {step} (MemoryError, a real limit)",
                fault=faults.exhaust_memory("save", step=step, asks="python"),
            ),
        ]
    )
    for outcome in outcomes:
        with noting():
            stops(outcome, OUT_OF_MEMORY)
    guard.checkpoints.check(*outcomes)


@edge_case(
    "disk-full",
    number=25,
    title="disk full",
    verdict="stops",
    severity="loses",
    brought_about="a real small file system filled to its last byte (or a real file-size limit) before a save",
    expects="stops, naming the path; the earlier checkpoint is whole; carries on once there is room",
)
def test_disk_full(guard: Guard) -> None:
    """Checkpoints filled the disk at night; the last one, half written, was the one the next start picked up."""
    reference = guard.checkpoints.require_resume()
    step = guard.reference.first_save + 1
    outcome = guard.run(
        f"filled the disk in step {step}, before the next save", fault=faults.fill_disk(step), small_disk=DISK
    )
    stops(outcome, str(outcome.output_dir), within=len(reference.losses))
    guard.checkpoints.check(outcome)
    folder = guard.copy(outcome.output_dir)
    again = guard.run(f"{outcome.did}, then started again with room", output_dir=folder, resume=True)
    recovers(again, reference)


@edge_case(
    "no-gpu",
    number=26,
    title="no GPU",
    verdict="survives/rejects",
    severity="misleads",
    brought_about="no visible device; then, where the trainer has a setting for it, one that demands a GPU",
    expects="survives on the CPU and says so; or rejects where a GPU was demanded",
    fast=True,
)
def test_no_gpu(guard: Guard) -> None:
    """A driver update took the GPU away, and the job trained on the CPU for a day without a word."""
    outcome = guard.run("trained with no GPU to be seen")
    if outcome.exit != 0:
        rejects(outcome, ("gpu", "cuda"))
        return
    survives(outcome, ON_CPU)
    device = guard.subject.settings.role("device")
    demand = next((choice for choice in device.choices if str(choice) in ("cuda", "gpu")), None) if device else None
    if device and demand:
        rejects(guard.run(f"demanded a GPU ({device.path}={demand}) where there is none",
                          settings={device.path: demand}), ("gpu", "cuda"))  # fmt: skip


@edge_case(
    "several-gpus",
    number=27,
    title="several GPUs",
    verdict="survives",
    severity="misleads",
    brought_about="two devices, told by torch.cuda alone: what goes to one stays on the CPU. Two are visible; the "
    "settings name one, or the CPU; the environment shows the second alone",
    expects="uses what it was told to, model and data alike, and says which",
)
def test_several_gpus(guard: Guard) -> None:
    """A job for one GPU took both; the colleague's job on the other one ran out of memory."""
    device = guard.subject.settings.role("device")
    told = _named_device(device) if device else None
    both, gpus = {"CUDA_VISIBLE_DEVICES": "0,1"}, faults.pretended_gpus()
    requests = [
        RunRequest("shown two GPUs", env=both, fault=gpus),
        RunRequest(
            "shown the second of two GPUs alone (CUDA_VISIBLE_DEVICES=1)",
            env={"CUDA_VISIBLE_DEVICES": "1"},
            fault=gpus,
        ),
    ]
    if device and told:
        did = f"shown two GPUs and told {device.path}={told}"
        requests.append(RunRequest(did, settings={device.path: told}, env=both, fault=gpus))
    outcomes = guard.run_all(requests, side_by_side=3)
    for outcome in outcomes:
        with noting():
            if outcome.exit != 0 and "invalid device ordinal" not in outcome.output:
                raise NotApplicable(
                    "its run needs more of CUDA than two pretended GPUs have: let device and loop work on the CPU "
                    f"as well ({outcome.last_words.splitlines()[-1] if outcome.last_words else outcome.how})"
                )
            survives(outcome)
            _says_which(outcome)
    used = _devices(outcomes[-1])
    if told and used != ({1} if told == "cuda:1" else set()):
        shown = ", ".join(f"cuda:{index}" for index in sorted(used)) or "none"
        raise Finding(outcomes[-1].did, f"it used another device: {shown}", outcomes[-1].last_words)


def _named_device(device: Field) -> str | None:
    """The value of a device setting that a good program cannot take for another: the second GPU, else the CPU."""
    if device.choices:
        return next((name for name in ("cuda:1", "cpu") if name in device.choices), None)
    return "cuda:1" if device.kind == "str" else None


def _devices(outcome: Outcome, by: str = "model") -> set[int]:
    return {event["index"] for event in outcome.recording.of("device") if event["by"] == by}


def _says_which(outcome: Outcome) -> None:
    model, data = _devices(outcome), _devices(outcome, "data")
    elsewhere = data - model
    if model and elsewhere:
        raise Finding(
            outcome.did,
            f"the model went to {_numbered(model)}, data to {_numbered(elsewhere)}: no step can work so on real GPUs",
            outcome.last_words,
            grade="wastes",
        )
    if not model:
        survives(outcome, ON_CPU)
        return
    every = "|".join(str(index) for index in sorted(model))
    number = rf"(?:cuda|gpus?|devices?)\W{{0,3}}(?:ids?\W{{0,3}})?(?:\d\W+)*(?:{every})\b"
    count = rf"\b{len(model)}\W{{0,2}}(?:of \d+|x|×|gpus?|devices?|cuda)" if len(model) > 1 else number
    survives(outcome, Wording(f"what it uses ({_numbered(model)})", re.compile(f"{number}|{count}", re.I)))


def _numbered(indices: set[int]) -> str:
    return ", ".join(f"cuda:{index}" for index in sorted(indices))


@edge_case(
    "gpu-fault",
    number=28,
    title="GPU fault in mid-training",
    verdict="stops/recovers",
    severity="loses",
    brought_about="torch.AcceleratorError (illegal access, ECC, lost device) in forward, backward and optimizer step; "
    "all that is tried after it fails as well",
    expects="stops at once, naming it: no retry in a lost context; recovers in a new process",
)
def test_gpu_fault(guard: Guard) -> None:
    """After an illegal access every call fails; a loop that went on "skipping bad batches" skipped the whole night."""
    recoverable = guard.checkpoints.recoverable
    step = guard.reference.first_save + 2 if recoverable else 4
    places = dict(zip(faults.DEVICE_ERRORS, ("forward", "backward", "optimizer"), strict=True))
    outcomes = guard.run_all(
        [
            RunRequest(
                f"had the GPU fail in the {where} of step {step} ({error})",
                fault=faults.device_error(error, step, where),
            )
            for error, where in places.items()
        ],
        side_by_side=3,
    )
    for outcome in outcomes:
        with noting():
            error = next(error for error in places if f"({error})" in outcome.did)
            stops(outcome, faults.DEVICE_ERRORS[error].partition(": ")[2])
            # One more save is no retry: it fails, and what it leaves is looked at below.
            again = [event["where"] for event in outcome.recording.of("again") if event["where"] != "save"]
            if again:
                tried = f"{len(again)} more attempt{'s' if len(again) > 1 else ''} (first: {again[0]})"
                raise Finding(
                    outcome.did, f"it went on in a context that is lost: {tried}", outcome.last_words, grade="wastes"
                )
    guard.checkpoints.check(*outcomes)
    if recoverable:
        (second,) = guard.checkpoints.start_again(outcomes[:1])
        recovers(second, guard.reference.outcome)


# At the production settings two hundred steps would take minutes to trace, and tiny ones, as they are, would fit the
# allocator's smallest pieces: so it is the tiny settings that are traced, and their storages that are made larger.
@edge_case(
    "fragmentation",
    number=29,
    title="fragmentation",
    verdict="survives",
    severity="wastes",
    brought_about=f"{TRACED_STEPS} steps at the tiny settings, on rows of all lengths, traced with fake "
    f"CUDA tensors; these steps, in random order, up to {EXTRAPOLATED_STEPS} through a model of CUDA's "
    "caching allocator, storages enlarged to the peak of the production settings where --gpu-budget is given, to 8 GiB "
    "where not",
    expects="survives: what is in use after a step stays level; what the allocator holds beyond it comes to rest, and "
    "stays within the budget",
)
def test_fragmentation(oom_probe: OomProbe) -> None:
    """It ran out of memory at night with 20 GiB free, none of it in one piece: every batch had another length."""
    oom_probe.changing_lengths()


@edge_case(
    "memory-growth",
    number=30,
    title="memory growth",
    verdict="survives",
    severity="wastes",
    brought_about=f"a run of {LONG} steps, and {REPEATS} runs in one process, on the CPU; after each are counted the "
    "tensors alive and the bytes in use",
    expects="survives, its memory flat: nothing more is in use after each step, or after each run",
)
def test_memory_growth(guard: Guard) -> None:
    """`losses.append(loss)` kept the graph of every step: the job ran out of memory in its ninth hour."""
    saving = guard.subject.settings.role("save_every")
    long, repeated = guard.run_all(
        [
            RunRequest(
                f"trained for {LONG} steps", steps=LONG, settings={saving.path: LONG} if saving else {}, census=True
            ),
            RunRequest(f"trained {REPEATS} times in one process", steps=2, repeats=REPEATS),
        ]
    )
    survives(long)
    kept = _growth(long, "graphs", WARM)
    if kept > 0:
        tensors = f"{kept} more tensor{'s' if kept > 1 else ''}"
        raise Finding(long.did, f"each step leaves {tensors} alive with the graph it came from", grade="wastes")
    grown = _growth(long, "heap", WARM)
    if grown > STEP_GROWTH:
        raise Finding(long.did, f"each step leaves {grown / 1024:.1f} KiB more in use", grade="wastes")
    more = _growth(repeated, "tensors", 1)
    if more > 0:
        told = f"each run leaves {more} more tensors alive: a model that nobody needs any more"
        raise Finding(repeated.did, told, grade="wastes")
    grown = _growth(repeated, "heap", 1)
    if grown > RUN_GROWTH:
        raise Finding(repeated.did, f"each run leaves {grown / 2**20:.1f} MiB more in use", grade="wastes")


def _growth(outcome: Outcome, what: str, warm: int) -> int:
    """By how much `what` grows from one count to the next, as a rule; 0 where it goes up and down.

    The median: what grows now and then (a cache that meets a length for the first time) does not grow without end.
    """
    counts: list[int] = [event[what] for event in outcome.recording.of("memory")][warm:]
    pairs = list(combinations(counts, 2))
    if len(counts) < 3 or sum(after > before for before, after in pairs) < RISING * len(pairs):
        return 0
    return statistics.median_low([after - before for before, after in pairwise(counts)])
