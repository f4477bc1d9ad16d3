"""Cases 41 to 50: the process and the system around it."""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_trainguard import (
    RUN_STEPS,
    CannotJudge,
    Finding,
    Guard,
    KillAndResume,
    NotApplicable,
    Outcome,
    Recording,
    RunRequest,
    StartedRun,
    causes,
    checkpoints,
    edge_case,
    faults,
    note,
    noting,
    recovers,
    rejects,
    stops,
    suffixes,
    survives,
)
from pytest_trainguard.casework import pruning, termination
from pytest_trainguard.casework.best_kept import require_best_kept
from pytest_trainguard.casework.bystander import reassign_pid, start_bystander
from pytest_trainguard.casework.file_order import require_one_order
from pytest_trainguard.casework.unsaved import require_something_saved
from pytest_trainguard.damage import power

WORKERS_GRACE = 9.0  # seconds; torch's loader workers look every 5 s whether their parent still lives
HELD_LIMIT = 30.0  # seconds until a run must have come to the step it is held in
DAY, YEAR = 86_400, 31_557_600  # seconds
# "seconds": -86399.2, took -86399.2 s, -86399 seconds
NEGATIVE_TIME = re.compile(
    r"(?<![a-z])(?:seconds?|secs?|duration|elapsed|age|eta|took|runtime|walltime|per_sec(?:ond)?)[\"']?\s?[:=]?\s?-\d[\d.e+]*"
    r"|(?<![\w.-])-\d[\d.,]* ?(?:s|secs?|seconds?|minutes?|hours?|days?)\b",
    re.I,
)


@edge_case(
    "killed",
    number=41,
    title="killed",
    verdict="recovers",
    severity="loses",
    brought_about="SIGKILL at a random step",
    expects="recovers: a second start carries on, its losses those of an undisturbed run",
    fast=True,
)
def test_killed(kill_and_resume: KillAndResume) -> None:
    """A preempted machine, the out-of-memory killer: no handler runs, nothing is flushed.

    A program that saves nothing at all is told so here, once: the other cases about checkpoints do not apply to it. The
    second start is killed as well: its own save must be as good as the first one's. And all that is saved in the end
    must be what it would have been: an average of the weights, for one, shows in no loss. Nor does it show there that
    the best so far is forgotten.
    """
    guard = kill_and_resume.guard
    require_something_saved(guard)
    with noting():
        kill_and_resume().check()
    with noting():
        require_best_kept(guard)
    require_one_order(guard)


@edge_case(
    "power-loss",
    number=42,
    title="power loss",
    verdict="recovers",
    severity="loses",
    brought_about="SIGKILL in the middle of a save and right after it; what was not fsynced is lost",
    expects="recovers from the last durable checkpoint",
)
def test_power_loss(kill_and_resume: KillAndResume, guard: Guard) -> None:
    """A rename without an fsync leaves a file of length zero under the final name (ext4, XFS)."""
    guard.checkpoints.require_resume()
    reference, saves, steps = _saves_twice(guard)
    if len(saves) < 2:
        raise NotApplicable(
            f"fewer than two saves are seen in {len(reference.losses)} steps, none before the last to go back to: name "
            'the setting, fields = {"save_every": "..."}',
            guard.needs.SAVE_EARLIER,
        )
    saved = saves[1]
    writes = sum(event["step"] == saved for event in reference.recording.of("write"))
    if not writes:
        raise NotApplicable(f"no write to the output folder is seen after step {saved}")
    requests = [kill_and_resume.killed_in_save(saved, nth=max(1, writes // 2))]
    if any(step.number > saved for step in reference.recording.steps if step.losses):  # else the run is over once it is
        requests.append(kill_and_resume.killed_in(saved + 1))
    middle, *after = guard.run_all([replace(request, steps=steps) for request in requests])
    states = [(one, state) for one in after for state in power.DISK_STATES] + [(middle, "empty"), (middle, "unnamed")]
    again = guard.run_all(
        [replace(kill_and_resume.after_power_loss(killed, state), steps=steps) for killed, state in states]
    )
    lost = None if reference.recording.of("fsync") else causes.NO_FSYNC
    for outcome in again:
        with noting():
            recovers(outcome, reference, lost=lost)


def _saves_twice(guard: Guard) -> tuple[Outcome, tuple[int, ...], int]:
    """An undisturbed run with the optimizer steps after which it saved, and the steps that it was asked for.

    It is the usual one; where that saves once, one as long as two of its saves take.
    """
    usual, saves = guard.reference.outcome, guard.reference.saves
    if len(saves) != 1:
        return usual, saves, RUN_STEPS
    for_each = pruning.steps_for_each(guard, usual)
    steps = math.ceil((2 * saves[0] + 1) / for_each)
    did = f"trained undisturbed for {steps} steps, to see it save twice"
    (longer,) = guard.run_all([RunRequest(did, steps=steps, states=True)])
    if longer.exit != 0:
        return usual, saves, RUN_STEPS
    return longer, guard.reference.saves_of(longer), steps


@edge_case(
    "eleven-saves",
    title="eleven saves",
    verdict="recovers",
    severity="loses",
    brought_about="a save after every step, three of them kept; SIGKILL in the twelfth step, then a second start",
    expects="recovers from the eleventh save: pruning leaves the newest, and 10 comes after 9",
)
def test_eleven_saves(guard: Guard) -> None:
    """`sorted(names)[:-3]` removed `step-10` as soon as it was written: from then on nothing new was ever kept.

    Where the rhythm of its saves cannot be set, the run is as long as eleven of them take.
    """
    reference = guard.checkpoints.require_resume()
    saving = pruning.save_often(guard)
    for_each = pruning.steps_for_each(guard, reference)
    whole = saving.every * (pruning.SAVES + 2)
    killed_in = round(for_each * saving.every * (pruning.SAVES + 1))
    killed = guard.run(
        f"had it save every {saving.every} steps{saving.kept}, sent SIGKILL in step {killed_in}",
        settings=saving.settings, steps=whole, fault=faults.kill(killed_in), time_limit=pruning.TIME_LIMIT,
    )  # fmt: skip
    again = guard.run(
        f"{killed.did}, then started again to resume",
        settings=saving.settings, steps=whole, output_dir=guard.copy(killed.output_dir), resume=True,
        time_limit=pruning.TIME_LIMIT,
    )  # fmt: skip
    pruning.check(guard, killed, again, whole=round(for_each * whole))


@edge_case(
    "reboot",
    number=43,
    title="reboot",
    verdict="recovers",
    severity="loses",
    brought_about="SIGTERM, a grace period, SIGKILL, also in the middle of what is saved then; the temporary folder is "
    "gone, the PID is another process's; SIGTERM alone as the model is built, in step 1, in an evaluation, in a save, "
    "and to the loader's workers too",
    expects="something is done about the signal; recovers: a second start carries on, its losses those of an "
    "undisturbed run",
)
def test_reboot(guard: Guard) -> None:
    """After the update of the kernel the PID in the lock file was the SSH daemon's: "already running", for days.

    Whether the signal is heeded is looked at where no SIGKILL follows it: a program may well finish what it is in, or
    save and go on until it is killed. Source: KempnerForge#177, goodfire-ai/spd#741 (the workers get it, too).
    """
    reference = guard.checkpoints.require_resume()
    step = guard.reference.first_save + 1
    middle = max(1, guard.reference.writes_after(guard.reference.first_save) // 2)
    reboots = [
        RunRequest(f"sent SIGTERM in step {step}, SIGKILL two steps later", fault=faults.reboot(step)),
        RunRequest(
            f"sent SIGTERM in step {step}, SIGKILL at write {middle} after it", fault=faults.reboot(step, middle)
        ),
    ]
    *phases, with_workers = termination.phases(guard)
    outcomes = guard.run_all([*reboots, *phases, with_workers])  # without those whose fault is not possible in it
    ended, signalled, together = (
        [outcome for outcome in outcomes if outcome.did in {request.did for request in requests}]
        for requests in (reboots, phases, [with_workers])
    )
    for outcome in (*signalled, *together):
        with noting():
            termination.check_heeded(guard, outcome)
    for alone, outcome in zip(ended, together, strict=False):
        with noting():
            termination.check_workers(guard, alone, outcome)
    termination.check_recovered(guard, signalled)
    with start_bystander() as other:
        for outcome in ended:
            reassign_pid(outcome.output_dir, outcome.pids, other)
        again = guard.run_all(
            [
                RunRequest(
                    f"{outcome.did}; rebooted: temporary folder gone, PID {outcome.pids[0]} now another process's "
                    f"({other} stands for it); then started again to resume",
                    output_dir=outcome.output_dir,
                    resume=True,
                )
                for outcome in ended
            ]
        )
    for outcome in again:
        with noting():
            recovers(outcome, reference)


@edge_case(
    "io-errors",
    number=44,
    title="disk I/O errors",
    verdict="stops",
    severity="misleads",
    brought_about="EIO as the data is read, at the start and in mid-training (the kernel's, as root; else raised in "
    "the process); raised as a checkpoint is written, and from its fsync",
    expects="stops, naming the path; the earlier checkpoint is whole",
)
def test_io_errors(guard: Guard) -> None:
    """The system names no file in a failed read or write: "[Errno 5] Input/output error" was the whole message."""
    reference = guard.reference.outcome
    step = guard.reference.first_save + 1
    reads = {"the data was opened": faults.io_error("read", 1), "data was read in step 4": faults.io_error("read", 4)}
    writes = {
        f"the save after step {step} began": faults.io_error("save", step),
        f"the save after step {step} was fsynced": faults.io_error("sync", step),
    }
    faulty = {**(reads if guard.subject.data else {}), **writes}
    requests: list[RunRequest] = [
        RunRequest(f"had the disk fail (EIO) as {when}", fault=fault) for when, fault in faulty.items()
    ]
    outcomes = guard.run_all(requests)
    for outcome in outcomes:
        with noting():
            reading = outcome.did.partition(" as ")[2] in reads
            named = (guard.needs.data().name, str(guard.needs.data())) if reading else str(outcome.output_dir)
            stops(outcome, named, within=2 if reading else len(reference.losses))
    guard.checkpoints.check(*outcomes)


@edge_case(
    "network-mount-gone",
    number=45,
    title="network mount gone",
    verdict="stops/survives",
    severity="misleads",
    brought_about="the data folder disappears while the run stands in step 3",
    expects="stops after bounded retries, naming the path; or has all that it needs and trains on, its losses the same",
)
def test_network_mount_gone(guard: Guard) -> None:
    """The file server was restarted: one job waited for it until Monday, the other trained on what it could read."""
    reference = guard.needs.repeatable_run()
    data = _own_copy(guard, "mount")
    release = guard.folder / "release"
    started = guard.start(
        "took the data folder away in step 3", data=data, fault=faults.pause(3, release), time_limit=guard.patience
    )
    try:
        _wait_until_held(started)
        data.parent.rename(guard.folder / "unmounted")
    finally:
        release.touch()
        outcome = started.outcome()
    if outcome.exit != 0:
        stops(outcome, (data.name, str(data)), within=len(reference.losses))
        guard.checkpoints.check(outcome)
    else:
        _same_losses(outcome, reference)


def _own_copy(guard: Guard, name: str) -> Path:
    """A copy of the trainer's data, in a folder to be tampered with."""
    data = guard.folder / name / guard.needs.data().name
    shutil.copytree(guard.needs.data(), data) if guard.needs.data().is_dir() else _copy(guard.needs.data(), data)
    return data


def _same_losses(outcome: Outcome, reference: Outcome) -> None:
    """It trained on as if nothing had happened: nothing was left out, nothing else was trained on."""
    survives(outcome, steps=len(reference.losses))
    for number, (ours, theirs) in enumerate(zip(outcome.losses, reference.losses, strict=True), 1):
        if ours != theirs:
            raise Finding(
                outcome.did,
                f"exit 0, but it trained on other rows: loss {ours!r} at step {number}, undisturbed {theirs!r}",
                outcome.last_words,
            )


@edge_case(
    "no-permission",
    number=46,
    title="no permission",
    verdict="rejects",
    severity="misleads",
    brought_about="an output folder that may not be written to, data that may not be read, as an ordinary user",
    expects="rejects before the first step, naming the folder or the file",
)
def test_no_permission(guard: Guard) -> None:
    """The folder of the results belonged to the colleague who had made it; that came out at the first save."""
    # Of the folder that it is started in a program does not know the name.
    writes = bool(guard.reference.outcome.changed()) and not guard.subject.works_in_output
    if writes:
        folder = guard.folder / "not-writable"
        folder.mkdir(mode=0o555)
        rejects(
            guard.run("given an output folder that it may not write to", output_dir=folder, ordinary_user=True),
            str(folder),
        )
    if guard.subject.data is None:
        if not writes:
            raise NotApplicable("it reads no data, and writes nothing to its output folder: there is nothing to forbid")
        return
    data = _own_copy(guard, "not-readable")
    mode = data.stat().st_mode
    data.chmod(0)
    try:
        rejects(guard.run("given data that it may not read", data=data, ordinary_user=True), data.name)
    finally:
        data.chmod(mode)  # so that it can be removed


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir()
    shutil.copy(file, to)


@edge_case(
    "clock-skew",
    number=47,
    title="clock skew",
    verdict="survives/recovers",
    severity="loses",
    brought_about="time.time() jumps a day back and a day on in mid-training; then the checkpoints' "
    "modification times lie in the future, in reverse order",
    expects="survives, its losses the same, and tells no negative duration; resumes from the newest checkpoint by step",
)
def test_clock_skew(guard: Guard) -> None:
    """NTP came late; the watchdog took the jump for a hang, and the resume began at the oldest checkpoint."""
    reference = guard.needs.repeatable_run()
    requests = [
        RunRequest("set the clock back by a day in step 3", fault=faults.set_clock(3, -DAY)),
        RunRequest("set the clock on by a day in step 3", fault=faults.set_clock(3, DAY)),
    ]
    for outcome in guard.run_all(requests):
        with noting():
            _same_losses(outcome, reference)
            _no_negative_time(outcome)
    if guard.checkpoints.resumes:
        _newest_by_step(guard, guard.checkpoints.killed_late(), reference)


def _no_negative_time(outcome: Outcome) -> None:
    told = {"its output": outcome.message}
    for name in outcome.changed():
        path = outcome.output_dir / name
        if path.suffix in suffixes.TEXT and path.is_file():
            told[name] = path.read_text(errors="replace")
    for where, text in told.items():
        found = NEGATIVE_TIME.search(text)
        if found:
            said = f"{where} tells a negative time: {found[0].strip()}"
            note(Finding(outcome.did, said, outcome.last_words, grade="unclear"))


def _newest_by_step(guard: Guard, killed: Outcome, reference: Outcome) -> None:
    """What a second start does must not change with the times of the files."""
    folder = guard.copy(killed.output_dir)
    saved = guard.checkpoints.find(folder)
    now = time.time()
    for place, checkpoint in enumerate(saved):  # the oldest is the newest by its times
        when = now + YEAR - DAY * place
        for path in [*checkpoint.rglob("*"), checkpoint]:
            os.utime(path, (when, when))
    requests = {
        "started again to resume": guard.copy(killed.output_dir),
        "started again to resume, its checkpoints' modification times in the future, in reverse order": folder,
    }
    usual, skewed = guard.run_all(
        [RunRequest(f"{killed.did}, then {what}", output_dir=where, resume=True) for what, where in requests.items()]
    )
    recovers(skewed, reference)
    if len(skewed.losses) != len(usual.losses):
        taken = f"it took {len(skewed.losses)} steps to the end, with times in order {len(usual.losses)}"
        raise Finding(skewed.did, f"{taken}: it chose another checkpoint", skewed.last_words, grade="loses")
    last = max(guard.checkpoints.find(usual.output_dir), key=lambda path: checkpoints.step_of(path) or 0)
    if not (folder / last.relative_to(usual.output_dir)).exists():
        told = f"its last checkpoint, {last.name}, is gone at the end"
        raise Finding(skewed.did, told, skewed.last_words, grade="loses")


@edge_case(
    "two-instances",
    number=48,
    title="two instances",
    verdict="rejects",
    severity="loses",
    brought_about="a second start on the same output folder; then a lock left by a killed run",
    expects="the second start rejects, naming the PID of the first; a stale lock is taken over",
    fast=True,
)
def test_two_instances(guard: Guard) -> None:
    """Two jobs of one queue wrote their checkpoints over each other for a weekend."""
    guard.needs.output()
    reference = guard.reference.outcome
    _note_what_is_held(reference)
    if reference.recording.reached("lock") and not guard.subject.apart:
        return  # a second start on this machine would only wait for the first
    release = guard.folder / "release"
    first = guard.start("held in step 3 while a second start came", fault=faults.pause(3, release))
    try:
        _wait_until_held(first)
        folder, holders = first.output_dir, first.pids
        did = f"started on the output folder of a running process (PID {holders[0]})"
        second = guard.run(did, output_dir=folder)
        with noting():
            _keeps_out(_without_files_of(first.recording, second), holders)
    finally:
        release.touch()
        outcome = first.outcome()
    survives(outcome, steps=len(reference.losses))
    killed = guard.run("sent SIGKILL in step 3", fault=faults.kill(3))
    again = guard.run("started again on the output folder of a killed run, its lock still there",
                      output_dir=killed.output_dir, resume=guard.checkpoints.recoverable)  # fmt: skip
    survives(again)


def _note_what_is_held(outcome: Outcome) -> None:
    """A port by its number, or a lock on a file that every run shares: the second run on a machine does not start."""
    ports = [f"port {what}{_at(place)}" for what, place in outcome.recording.reached("port").items()]
    locks = [f"a lock on {what}{_at(place)}" for what, place in outcome.recording.reached("lock").items()]
    if ports or locks:
        told = f"it holds {', '.join([*ports, *locks])}: two runs cannot be side by side on one machine"
        note(Finding(outcome.did, told, grade="unclear", cause=causes.HOLDS))


def _at(place: str) -> str:
    return f" ({place})" if place else ""


def _keeps_out(second: Outcome, holders: tuple[int, ...]) -> None:
    """It rejects, naming the process that is at work; one that trains writes over the other's checkpoints."""
    if second.recording.steps and second.changed():
        told = f"it trained there too: {second.how}: two runs write over each other's files"
        raise Finding(second.did, told, second.last_words, grade="loses")
    rejects(second, tuple(map(str, holders)))


def _without_files_of(first: Recording, second: Outcome) -> Outcome:
    """The second start's outcome, without the files that the first one wrote meanwhile: it may save in a thread."""
    root = os.path.realpath(second.output_dir)

    def written(events: list[dict[str, Any]]) -> set[str]:
        return {os.path.relpath(event["path"], root) for event in events if event["event"] == "write"}

    held = next(place for place, event in enumerate(first.events) if event["event"] == "fault")
    if not written(first.events[held:]):
        return second
    saved = [event for event in first.of("write") if event["step"] >= first.steps_before_fault]
    theirs, its_own = written(saved), written(second.recording.events)
    places = {name: {name, *map(str, Path(name).parents)} for name in second.changed()}
    passed_by = {name for name, above in places.items() if above & theirs and not above & its_own}
    after = {name: entry for name, entry in second.after.items() if name not in passed_by}
    before = {name: entry for name, entry in second.before.items() if name in passed_by}
    return replace(second, after=after | before)


def _wait_until_held(started: StartedRun) -> None:
    until = time.monotonic() + HELD_LIMIT
    while not started.recording.fault_fired:
        if time.monotonic() > until:
            raise CannotJudge("the first run did not come to the step that it was to be held in")
        time.sleep(0.01)


@edge_case(
    "zombies",
    number=49,
    title="zombies",
    verdict="survives/stops",
    severity="wastes",
    brought_about="the run ends, fails, or is killed with loader workers alive",
    expects="no process is left, alive or defunct",
)
def test_zombies(guard: Guard) -> None:
    """Loader workers of dead runs held the GPU's memory until somebody logged in and killed them."""
    workers = guard.subject.settings.role("workers")
    settings = {workers.path: 2} if workers else {}
    ways = {
        "ended": None,
        "failed": faults.raises(ValueError, "forward", 4),
        "was killed": faults.kill(4),
    }
    outcomes = guard.run_all(
        [
            RunRequest(f"run with loader workers; it {way}", fault=fault, settings=settings, grace=WORKERS_GRACE)
            for way, fault in ways.items()
        ],
        side_by_side=3,
    )
    for outcome in outcomes:
        with noting():
            if outcome.leftovers:
                shown = ", ".join(f"PID {left.pid} ({left.status}): {left.command}" for left in outcome.leftovers)
                count = "1 process was" if len(outcome.leftovers) == 1 else f"{len(outcome.leftovers)} processes were"
                raise Finding(
                    outcome.did,
                    f"{count} left: {shown}",
                    outcome.last_words,
                    grade="wastes",
                    cause=causes.LEAVES_PROCESSES,
                )
    if not any(step.children for outcome in outcomes for step in outcome.recording.steps):
        raise NotApplicable('no worker process is ever seen: name the setting, fields = {"workers": "..."}')


@edge_case(
    "file-locked",
    number=50,
    title="file locked",
    verdict="stops/survives",
    severity="misleads",
    brought_about="another process holds real locks, flock and fcntl, on the data; then on all files of the output "
    "folder of a killed run",
    expects="stops after bounded retries, naming the file; or trains on, its losses the same",
)
def test_file_locked(guard: Guard) -> None:
    """A backup held the file; the job waited for it, without a word, as long as its reservation lasted."""
    reference = guard.needs.repeatable_run()
    data = _own_copy(guard, "locked") if guard.subject.data else None
    killed = guard.run("sent SIGKILL in step 5", fault=faults.kill(5)) if guard.checkpoints.recoverable else None
    folders = [folder for folder in (data, killed.output_dir if killed else None) if folder]
    if not folders:
        raise NotApplicable("neither data nor checkpoints that could be locked: give it a sample, save checkpoints")
    files = [path for folder in folders for path in checkpoints.files(folder)]
    with start_bystander(*files) as holder:
        requests: list[RunRequest] = []
        if data:
            requests.append(RunRequest(f"had process {holder} hold locks on the data", data=data))
        if killed:
            reassign_pid(killed.output_dir, killed.pids, holder)
            did = f"{killed.did}; then process {holder} held locks on its files as it was started again to resume"
            requests.append(RunRequest(did, output_dir=killed.output_dir, resume=True))
        outcomes = guard.run_all([replace(request, time_limit=guard.patience) for request in requests])
    for outcome in outcomes:
        with noting():
            resumed = killed is not None and outcome.output_dir == killed.output_dir
            if outcome.exit != 0:
                locked = killed.output_dir if killed and resumed else data
                assert locked is not None
                stops(outcome, tuple(dict.fromkeys([str(locked), *(path.name for path in checkpoints.files(locked))])))
            elif resumed:
                recovers(outcome, reference)
            else:
                _same_losses(outcome, reference)


@edge_case(
    "no-network",
    title="no network",
    verdict="survives",
    severity="unclear",
    brought_about="runs reach nothing but what they listen on themselves",
    expects="survives without asking for other machines",
    fast=True,
)
def test_no_network(guard: Guard) -> None:
    """A node without a way out waited for the tracker's server through every retry, in each of 300 trials."""
    reach, outcome = guard.subject.reach, guard.reference.outcome
    if reach.allows_all:
        raise NotApplicable("the network is open to runs, trainguard_network = allow: leave that out")
    wanted = outcome.recording.reached("network").items()
    hosts = [f"{address}{_at(place)}" for address, place in wanted if address.rpartition(":")[0] not in reach.hosts]
    commands = [f"`{command}`{_at(place)}" for command, place in outcome.recording.reached("command").items()]
    if hosts or commands:
        raise Finding(
            "trained undisturbed, without a network",
            f"it wanted {', '.join([*hosts, *commands])}, and trained on without",
            grade="unclear",
            cause=causes.WANTS_NETWORK,
        )


@edge_case(
    "writes-elsewhere",
    title="writes outside its output folder",
    verdict="survives",
    severity="loses",
    brought_about="two undisturbed runs, each with an output folder of its own",
    expects="writes to its output folder and its temporary one alone",
    fast=True,
)
def test_writes_elsewhere(guard: Guard) -> None:
    """Two runs of a sweep saved to `checkpoints/best.pt`: the one that was slower by a second won."""
    first, second = guard.reference.outcome, guard.reference.second_outcome
    written = _written_elsewhere(first)
    if not written:
        return
    both = _written_elsewhere(second)
    begun = first.recording.steps[0].time
    results = [path for path, time in written.items() if path in both and time > begun and not first.is_log(str(path))]
    others = [path for path in written if path not in results]
    did = "trained undisturbed twice, each with an output folder of its own"
    if others:
        told = f"it wrote {_named(others, first, guard.subject.root)}, outside its output folder"
        note(Finding(did, told, grade="unclear", cause=causes.WRITES_ELSEWHERE))
    if results:
        told = f"it wrote {_named(results, first, guard.subject.root)}, not in its output folder: two runs side by side"
        raise Finding(did, f"{told} overwrite each other's", grade="loses", cause=causes.WRITES_ELSEWHERE)


def _named(paths: list[Path], outcome: Outcome, root: Path) -> str:
    """Some of the paths, from the project's folder, each with the place in the code that wrote it."""
    places = outcome.recording.reached("write")
    named = [
        f"{path.relative_to(root) if root in path.parents else path}{_at(places.get(str(path), ''))}"
        for path in sorted(paths)
    ]
    return ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")


def _written_elsewhere(outcome: Outcome) -> dict[Path, float]:
    """Files outside of its own folders that a run wrote, with the time in seconds since the epoch."""
    seen = {Path(event["what"]): event["time"] for event in outcome.recording.of("reach") if event["kind"] == "write"}
    return seen | {one.path: one.time for one in outcome.elsewhere}
