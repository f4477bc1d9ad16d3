"""Cases 51 to 60: the queue and its files.

They are held against the queue that the trainer names, whatever it is written in: files are dropped in, something
happens to them, the queue has its turn, and then every file must be where it belongs. 54, 55 and 56 are about names and
links as well: of a trainer that names no queue, the path that a run is given stands for an entry of one.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from pytest_trainguard import (
    CannotJudge,
    Finding,
    Guard,
    Held,
    NotApplicable,
    Outcome,
    QueueRoot,
    TrainingQueue,
    Turn,
    edge_case,
    exit_words,
    faults,
    note,
    noting,
    rejects,
    suffixes,
    survives,
)
from pytest_trainguard.damage import data_files
from pytest_trainguard.damage.queue_files import CORRUPTIONS, corrupt_files

TIME_LIMIT = 10.0  # seconds, in which an endless walk shows
TWICE = 0.75  # of a file more than there are: one was trained twice, and not only looked at once more
URGENT_TOO_MANY = 1  # urgent files over the bound: a low one that comes last is over it then
TURNS = 4  # that a failing file gets to come to rest, where no number of attempts is stated
MISSING = re.compile(
    r"miss|gone|vanish|disappear|delet|remov|not found|no such|no longer|not there|does(?:n't| not) exist|lost", re.I
)
DUPLICATE = re.compile(r"duplicate|same|already|identical|twice|again|copy of|known", re.I)
REASON = re.compile(
    r"\bline\b|\brow\b|column|char|decod|malformed|invalid|expect|syntax|pars|corrupt|error|exception|exit|unread",
    re.I,
)
NAMES = {
    "spaces in it": "two  words ",
    "quotes in it": 'it\'s "quoted" ',
    "a newline in it": "two\nlines",
    "a leading dash": "-dash",
    "an emoji in it": "rocket🚀",
}
# The beginning of a PNG file: neither text nor rows.
FOREIGN = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)) * 8


@edge_case(
    "file-deleted-while-queued",
    number=51,
    title="file deleted while queued",
    verdict="survives",
    severity="misleads",
    brought_about="one file deleted before the queue's turn, another while the queue opens its first",
    expects="survives: recorded as missing, the rest are trained",
)
def test_file_deleted_while_queued(training_queue: TrainingQueue) -> None:
    """A list of files is made at eight, somebody tidies up at nine, and the queue dies of the first that is gone."""
    files = training_queue.files(4)
    queue = training_queue.fresh()
    for file in files:
        _added(queue, file)
    early = files[1]
    for place in queue.files.places(early):
        (queue.root / place).unlink()
    deleted = [early]

    def delete_another(held: Held, others: list[Held]) -> None:
        others[0].path.unlink()
        deleted.append(_which(files, others[0]))

    did = f"deleted {early.name} of four files before the queue's turn, and another while it opened its first"
    turn = queue.turn(did, files=4, meanwhile=delete_another)
    rest = [file for file in files if file not in deleted]
    turn.check_went_on(*rest, after=deleted[-1].name)
    # A queue that has been told of a file, and keeps a memory, knows that it is missing.
    if queue.contract.add:
        untold = [file.name for file in deleted if not queue.tells(file.name, turn, MISSING)]
        if untold:
            raise Finding(
                did,
                f"nothing was reported about {' and '.join(untold)}, which it had been given",
                turn.outcome.last_words,
            )


def _which(files: list[Path], held: Held) -> Path:
    return next(file for file in files if file.read_bytes() == held.content)


@edge_case(
    "file-moved-while-processed",
    number=52,
    title="file moved while processed",
    verdict="survives/stops",
    severity="loses",
    brought_about="a file renamed while the queue opens it: where it waits, and where it is being trained",
    expects="survives or stops cleanly; nothing is trained twice, nothing lost",
)
def test_file_moved_while_processed(training_queue: TrainingQueue) -> None:
    """Somebody puts the date into a name while the file is being trained, and the queue finds a new file."""
    _moved(training_queue, "the queue opened it", None)
    if training_queue.undisturbed().steps:
        _moved(training_queue, "it was being trained", None, in_training=True)
    elif training_queue.contract.processing:
        folder = training_queue.contract.processing
        _moved(training_queue, f"it was being trained in {folder}/", folder)


def _moved(training_queue: TrainingQueue, moment: str, folder: str | None, *, in_training: bool = False) -> None:
    files = training_queue.files(2)
    queue = training_queue.fresh()
    for file in files:
        queue.files.drop(file)
    moved: list[Path] = []

    def rename(held: Held, others: list[Held]) -> None:
        held.path.rename(held.path.with_name(f"moved-{held.path.name}"))
        moved.append(_which(files, held))

    def rename_in_training() -> None:
        untouched = {path.read_bytes() for path in (queue.root / queue.contract.inbox).iterdir() if path.is_file()}
        file = next(file for file in files if file.read_bytes() not in untouched or len(untouched) == len(files))
        path = queue.root / queue.files.places(file)[0]
        path.rename(path.with_name(f"moved-{path.name}"))
        moved.append(file)

    did = f"renamed one of two files while {moment}"
    if in_training:
        turn = queue.turn_in_training(did, files=2, meanwhile=rename_in_training)
    else:
        turn = queue.turn(did, files=2, meanwhile=rename, only_in=folder)
    if not turn.disturbed:
        if folder is None:
            raise CannotJudge("no process was seen to open a file that waits", turn.outcome.output[-2000:])
        return
    (other,) = [file for file in files if file not in moved]
    turn.check_nothing_lost(*files)
    again = queue.turn(f"{did}, then gave it another turn", files=2)
    again.check_went_on(other, after=moved[0].name)
    if turn.outcome.exit < 0 or (turn.outcome.exit and moved[0].name not in turn.outcome.complaint):
        told = f"it stopped without naming {moved[0].name}"
        note(Finding(did, told, turn.outcome.last_words, grade="unclear"))
    again.check_nothing_lost(*files)
    _not_twice(training_queue, did, 2, turn, again)


def _not_twice(training_queue: TrainingQueue, did: str, files: int, *turns: Turn) -> None:
    trained = training_queue.trained(*turns)
    if trained >= files + TWICE:
        told = f"it trained the same content twice: as much as {trained:.3g} files, and there were {files}"
        raise Finding(did, told, turns[-1].outcome.last_words)


@edge_case(
    "duplicate",
    number=53,
    title="duplicate",
    verdict="survives",
    severity="loses",
    brought_about="other content under a name that is done already; the same content under two names",
    expects="survives: nothing is overwritten, each is recorded once, and content is trained once",
)
def test_duplicate(training_queue: TrainingQueue) -> None:
    """Every export is called `train.jsonl`: the second one took the place of the first in the folder for the done."""
    first, second, third = training_queue.files(3)
    queue = training_queue.fresh()
    name = f"same{suffixes.whole(first)}"
    for number, file in enumerate((first, second)):
        queue.files.drop(file, name)
        did = f"dropped in {file.name}, called {name}"
        did += f", once {first.name}, called so as well, was done" if number else ""
        turn = queue.turn(did)
        turn.check_nothing_lost(*(first, second)[: number + 1])
        turn.check_went_on(*(first, second)[: number + 1], after=name)
    names = [f"one-name{suffixes.whole(third)}", f"other-name{suffixes.whole(third)}"]
    for name in names:
        queue.files.drop(third, name)
    did = f"dropped in the same content as {names[0]} and {names[1]}"
    turn = queue.turn(did, files=2)
    turn.check_went_on(after=names[1])
    turn.check_nothing_lost(third)
    if any(path.name in names for path in queue.files.waiting()):
        told = "one of the two still waits after the queue's turn"
        raise Finding(did, told, turn.outcome.last_words, grade="wastes")
    _not_twice(training_queue, did, 1, turn)
    trained_as = {Path(place).name for place in queue.files.places(third)}
    unknown = [name for name in names if name not in trained_as and not queue.tells(name, turn, DUPLICATE)]
    if unknown:
        told = f"nothing was reported about {unknown[0]}, which is gone"
        note(Finding(did, told, turn.outcome.last_words, grade="unclear"))


@edge_case(
    "circular-link",
    number=54,
    title="circular link",
    verdict="rejects",
    severity="misleads",
    brought_about="a symbolic link to itself; in a data folder or a queue, one to the folder that it is in",
    expects="rejects that entry, naming it; no endless walk",
)
def test_circular_link(guard: Guard, training_queue: TrainingQueue) -> None:
    """A dataset folder was linked into itself by a script that ran twice; the walk over it never ended."""
    if training_queue.exists:
        _links_in_the_queue(training_queue)
    else:
        _link_for_data(guard)


def _links_in_the_queue(training_queue: TrainingQueue) -> None:
    (good,) = training_queue.files(1)
    queue = training_queue.fresh()
    inbox = queue.root / queue.contract.inbox
    itself, parent = inbox / f"a-link{suffixes.whole(good)}", inbox / f"a-circle{suffixes.whole(good)}"
    itself.symlink_to(itself)
    parent.symlink_to(inbox, target_is_directory=True)
    queue.files.drop(good)
    turn = queue.turn(f"put {itself.name}, a link to itself, and {parent.name}, one to its folder, beside a good file")
    turn.check_went_on(good, after=itself.name)
    _entries_rejected(queue, turn, itself.name, parent.name)
    _not_twice(training_queue, turn.outcome.did, 1, turn)


def _entries_rejected(queue: QueueRoot, turn: Turn, *names: str) -> None:
    """Each is named by the queue, and none counts as done."""
    for name in names:
        with noting():
            if any(name in found.name for found in (queue.root / queue.contract.done).rglob("*")):
                raise Finding(turn.outcome.did, f"it takes {name} for done", turn.outcome.last_words)
            if not queue.tells(name, turn):
                told = f"nothing was reported about {name}: it waits for ever"
                raise Finding(turn.outcome.did, told, turn.outcome.last_words, grade="wastes")


def _link_for_data(guard: Guard) -> None:
    data = guard.needs.data()
    link = guard.folder / "link" / data.name
    link.parent.mkdir()
    link.symlink_to(link)
    limit = max(TIME_LIMIT, guard.patience)
    rejects(guard.run(f"replaced {data.name} by a link to itself", data=link, time_limit=limit), data.name)
    if data.is_dir():
        walked = guard.folder / "walked" / data.name
        shutil.copytree(data, walked)
        (walked / "circle").symlink_to(walked, target_is_directory=True)
        outcome = guard.run(f"put a link to {data.name} into it, as 'circle'", data=walked, time_limit=limit)
        _rejected_or_left_out(outcome, guard, "circle")


@edge_case(
    "special-characters",
    number=55,
    title="special characters",
    verdict="survives",
    severity="misleads",
    brought_about="spaces, quotes, newline, leading dash, emoji in the name of the data, or of a queue's files",
    expects="survives, and trains as it does under any other name",
)
def test_special_characters(guard: Guard, training_queue: TrainingQueue) -> None:
    """A name passed on through a shell, or through `glob`, is not the same name at the other end."""
    if training_queue.exists:
        _names_in_the_queue(training_queue)
    else:
        _names_for_data(guard)


def _names_in_the_queue(training_queue: TrainingQueue) -> None:
    """All of them in one name first, dropped in and added; where that fails, each by itself to say which it was."""
    together = '-it\'s "two\n words"🚀'
    try:
        _names_survive(training_queue, {", ".join(NAMES): together}, 0)
    except Finding:
        _names_survive(training_queue, NAMES, 2)
        raise


def _names_survive(training_queue: TrainingQueue, named: dict[str, str], first: int) -> None:
    """Dropped in, and by the queue's own command where it has one."""
    files = training_queue.files(first + 2 * len(named))[first:]
    queue = training_queue.fresh()
    names = {}
    for number, (what, name) in enumerate(named.items()):
        dropped, added = files[2 * number : 2 * number + 2]
        names[dropped] = what
        queue.files.drop(dropped, f"{name}{suffixes.whole(dropped)}")
        if queue.contract.add:
            names[added] = what
            _added(queue, added, f"{name}-added{suffixes.whole(added)}")
    turn = queue.turn(f"gave it files whose names have {', '.join(named)}", files=len(names))
    turn.check_nothing_lost(*names)
    for file, what in names.items():
        if not queue.files.are_done(file):
            found = ", ".join(map(repr, queue.files.places(file)))
            raise Finding(f"gave it a file whose name has {what}", f"it is not done: {found}", turn.outcome.last_words)
    turn.check_went_on()


def _added(queue: QueueRoot, file: Path, name: str | None = None) -> None:
    added = queue.add(file, name)
    if added is not None and added.exit != 0:
        raise Finding(
            f"added {name or file.name!r} by its own command", f"exit {added.exit}", added.last_words, grade="wastes"
        )


def _names_for_data(guard: Guard) -> None:
    """All of them stand in one name first; only where that fails, each by itself, to say which it was."""
    data = guard.needs.data()
    reference = guard.needs.repeatable_run()
    together = _train_under(
        '-it\'s "two\n words"🚀', guard, data, "spaces, quotes, a newline, a leading dash and an emoji in it"
    )
    if together.exit == 0 and together.losses == reference.losses:
        survives(together)
        return
    for what, name in NAMES.items():
        with noting():
            _survived(_train_under(name, guard, data, what), reference)
    _survived(together, reference)


def _train_under(name: str, guard: Guard, data: Path, what: str) -> Outcome:
    renamed = guard.folder / "names" / (name + suffixes.whole(data))
    renamed.parent.mkdir(exist_ok=True)
    shutil.copytree(data, renamed) if data.is_dir() else shutil.copy(data, renamed)
    return guard.run(f"gave the data a name with {what}: {renamed.name!r}", data=renamed, time_limit=guard.patience)


def _survived(outcome: Outcome, reference: Outcome) -> None:
    survives(outcome)
    if outcome.losses != reference.losses:
        raise Finding(
            outcome.did,
            "its losses are not those that the same data gave under its own name",
            outcome.last_words,
        )


@edge_case(
    "no-extension",
    number=56,
    title="no extension",
    verdict="rejects",
    severity="misleads",
    brought_about="a foreign file without a suffix; the real rows under an unknown one",
    expects="rejects that entry, naming it, or trains on the real rows as ever; never on something else",
)
def test_no_extension(guard: Guard, training_queue: TrainingQueue) -> None:
    """A loader that picks its reader by the suffix and falls back to another one trains on bytes that are no rows."""
    if training_queue.exists:
        _foreign_files_in_the_queue(training_queue)
    else:
        _foreign_data(guard)


def _foreign_files_in_the_queue(training_queue: TrainingQueue) -> None:
    good, rows = training_queue.files(2)
    queue = training_queue.fresh()
    foreign = training_queue.guard.folder / "foreign"
    foreign.write_bytes(FOREIGN)
    queue.files.drop(foreign)
    queue.files.drop(rows, "rows.unknown")
    queue.files.drop(good)
    did = "put a foreign file without a suffix, 'foreign', and rows as 'rows.unknown' beside a good file"
    turn = queue.turn(did, files=3)
    turn.check_went_on(good, after="foreign")
    _entries_rejected(queue, turn, "foreign")
    if not queue.files.are_done(rows):
        _entries_rejected(queue, turn, "rows.unknown")
    turn.check_nothing_lost(foreign, rows)


def _foreign_data(guard: Guard) -> None:
    data = guard.needs.data()
    folder = guard.folder / "unnamed"
    folder.mkdir()
    if data.is_dir():
        copy = folder / data.name
        shutil.copytree(data, copy)
        (copy / "foreign").write_bytes(FOREIGN)
        outcome = guard.run("put a foreign file without a suffix into the data folder, 'foreign'", data=copy)
        _rejected_or_left_out(outcome, guard, "foreign")
        return
    foreign = folder / "foreign"
    foreign.write_bytes(FOREIGN)
    limit = guard.patience
    rejects(
        guard.run("gave it a foreign file without a suffix, 'foreign'", data=foreign, time_limit=limit),
        "foreign",
    )
    renamed = folder / "rows.unknown"
    shutil.copy(data, renamed)
    outcome = guard.run(
        f"gave it its own rows under an unknown suffix, {renamed.name!r}", data=renamed, time_limit=limit
    )
    _rejected_or_left_out(outcome, guard, renamed.name)


def _rejected_or_left_out(outcome: Outcome, guard: Guard, name: str) -> None:
    """It rejects, naming the entry; or trains on just what it trains on without it."""
    if outcome.exit != 0:
        rejects(outcome, name)
    elif outcome.losses != guard.needs.repeatable_run().losses:
        raise Finding(
            outcome.did,
            "it trained on something else: its losses are not those of its own rows",
            outcome.last_words,
        )


@edge_case(
    "nothing-to-retry",
    number=57,
    title="nothing to retry",
    verdict="survives",
    severity="wastes",
    brought_about="a retry while the folder for the failed is empty, on a new queue and beside a file that is done",
    expects="survives: does nothing, exit 0",
)
def test_nothing_to_retry(training_queue: TrainingQueue) -> None:
    """A nightly `retry` took everything that was not waiting for failed, and trained the whole month again."""
    training_queue.needs("retry", '"... {root}"')
    (file,) = training_queue.files(1)
    queue = training_queue.fresh()
    _retried(queue.command("retry", "asked a new queue to retry what failed: nothing has"))
    queue.files.drop(file)
    queue.turn("dropped in one file")
    retried = queue.command("retry", "asked it to retry what failed, while nothing has and one file is done")
    _retried(retried)
    after = queue.turn(f"{retried.outcome.did}; then gave it another turn")
    if not queue.files.are_done(file):
        found = ", ".join(queue.files.places(file)) or "nowhere"
        raise Finding(
            after.outcome.did, f"the file that was done is now {found}", after.outcome.last_words, grade="loses"
        )
    if training_queue.trained(retried, after) >= TWICE:
        raise Finding(
            after.outcome.did, "the file that was done was trained again", after.outcome.last_words, grade="wastes"
        )


def _retried(turn: Turn) -> None:
    if turn.outcome.exit != 0:
        told = f"{exit_words(turn.outcome.exit)}, although there was nothing to do"
        raise Finding(turn.outcome.did, told, turn.outcome.last_words, grade="wastes")
    turn.check_went_on()


@edge_case(
    "queue-metadata-corrupt",
    number=58,
    title="queue metadata corrupt",
    verdict="recovers",
    severity="loses",
    brought_about="the queue's own files emptied, cut, filled with other types and with other bytes, and removed",
    expects="recovers from the files themselves; nothing is lost, nothing trained again",
)
def test_queue_metadata_corrupt(training_queue: TrainingQueue) -> None:
    """The machine lost power while the queue wrote down its state, and a hundred files waited until Monday."""
    pattern = training_queue.needs("metadata", '"ledger.sqlite*"')
    queue = training_queue.fresh()
    (done,) = training_queue.files(1)
    queue.files.drop(done)
    queue.turn("dropped in one file")
    for number, how in enumerate(CORRUPTIONS, 1):
        *_, waiting = files = training_queue.files(number + 1)
        queue.files.drop(waiting)
        metadata = {path: path.read_bytes() for path in sorted(queue.root.glob(pattern)) if path.is_file()}
        if not metadata:
            raise CannotJudge(f"no file of the queue's matches its metadata, {pattern!r}, after it trained a file")
        corrupt_files(how, metadata)
        did = f"{how} {', '.join(path.name for path in metadata)} while one file waited and {number} were done"
        turn = queue.turn(did)
        turn.check_nothing_lost(*files)
        turn.check_went_on(*files, after=next(iter(metadata)).name)
        _not_twice(training_queue, did, 1, turn)


@edge_case(
    "priority-inversion",
    number=59,
    title="priority inversion",
    verdict="survives",
    severity="wastes",
    brought_about="more urgent files than the stated bound, beside an older one of low priority",
    expects="survives: urgent first, and the low one runs within the stated bound",
)
def test_priority_inversion(training_queue: TrainingQueue) -> None:
    """A file of low priority waited for three weeks, since something urgent came in every day."""
    priorities = training_queue.needs("priorities", '("high", "low")')
    bound = training_queue.contract.starvation_bound
    low, *urgent = training_queue.files((bound or 1) + URGENT_TOO_MANY + 1)
    queue = training_queue.fresh()
    for file in (low, *urgent):
        added = queue.add(file, priority=priorities[-1] if file is low else priorities[0])
        if added is not None and added.exit != 0:
            raise CannotJudge(f"its command for adding a file ends with exit {added.exit}", added.output[-2000:])
    did = f"put {len(urgent)} files of priority {priorities[0]!r} beside an older one of priority {priorities[-1]!r}"
    turn = queue.turn(did, files=len(urgent) + 1)
    turn.check_went_on(low, *urgent)
    order = turn.order_of_ends(low, *urgent)
    before = order.index(low)
    if before == 0:
        told = "it trained the one of low priority first"
        raise Finding(did, told, turn.outcome.last_words, grade="wastes")
    if bound is None:
        raise NotApplicable(
            "the queue states no bound: say after how many others a file of low priority runs at the latest, "
            "Queue(..., starvation_bound=8)"
        )
    if before > bound:
        told = f"the low one ran after {before} others, the stated bound is {bound}"
        raise Finding(did, told, turn.outcome.last_words, grade="wastes")


@edge_case(
    "endless-retry",
    number=60,
    title="endless retry",
    verdict="survives",
    severity="wastes",
    brought_about="a malformed file beside a good one; where torch trains, a file whose training always fails",
    expects="stops retrying after the stated attempts; kept with its reason; the rest go on",
)
def test_endless_retry(training_queue: TrainingQueue) -> None:
    """One file with a bad row went back to the head of the queue, and was all that the GPU saw for a weekend."""
    good, bad = training_queue.files(2)
    broken = data_files.corrupt_row(bad, training_queue.guard.folder)[0]
    queue = training_queue.fresh()
    file = broken.path.rename(broken.path.with_name(f"broken{suffixes.whole(bad)}"))
    queue.files.drop(file)
    queue.files.drop(good)
    _comes_to_rest(queue, file, f"put {file.name}, a malformed file, beside a good one", good)
    if training_queue.undisturbed().steps:
        queue = training_queue.fresh()
        queue.files.drop(bad)
        _comes_to_rest(queue, bad, "had every training fail in its first step", fails_in_training=True)


def _comes_to_rest(queue: QueueRoot, file: Path, did: str, *rest: Path, fails_in_training: bool = False) -> None:
    """Within the stated attempts it is among the failed, with its reason, and stays there."""
    attempts = queue.contract.attempts
    text = "raised on purpose in every training"
    fault = faults.raises(RuntimeError, "forward", 1, text) if fails_in_training else None
    turns: list[Turn] = []
    while not queue.files.has_failed(file):
        if len(turns) == (attempts or TURNS):
            where = ", ".join(queue.files.places(file)) or "in no folder any more"
            told = f"after {len(turns)} turns it still is not among the failed, but {where}"
            raise Finding(did, f"{told} (a backoff is to be short here: set it in the queue's command)",
                          turns[-1].outcome.last_words, grade="wastes")  # fmt: skip
        turns.append(queue.turn(did, files=1 + len(rest), fault=fault))
        turns[-1].check_went_on(*rest, after=file.name)
    trainings = sum(len(turn.trainings) for turn in turns)
    if fails_in_training and attempts and trainings > attempts:
        raise Finding(did, f"it was trained {trainings} times, the stated attempts are {attempts}",
                      turns[-1].outcome.last_words, grade="wastes")  # fmt: skip
    reason = re.compile(re.escape(text)) if fails_in_training else REASON
    if not queue.tells(file.name, turns[-1], reason):
        told = f"it does not say why {file.name} failed"
        note(Finding(did, told, turns[-1].outcome.last_words, grade="unclear"))
    later = queue.turn(f"{did}; then, once it was among the failed, gave it another turn")
    if later.opened or later.trainings or not queue.files.has_failed(file):
        raise Finding(later.outcome.did, "it tried again, with nobody asking", later.outcome.last_words, grade="wastes")
