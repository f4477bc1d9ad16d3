"""Cases 51 to 60: the queue and its files.

Those that hold for a single data path are here: 54, 55 and 56. The path that a run is given stands for an entry of the
queue.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pytest_trainguard import Finding, Guard, Outcome, edge_case, rejects, survives

TIME_LIMIT = 10.0  # seconds, in which an endless walk shows
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
    54,
    "circular link",
    verdict="rejects",
    severity="minor",
    brought_about="a symbolic link to itself; in a data folder, one to its parent",
    expects="rejects, naming it; no endless walk",
)
def test_54_circular_link(guard: Guard) -> None:
    """A dataset folder was linked into itself by a script that ran twice; the walk over it never ended."""
    data = guard.data()
    link = guard.folder / "link" / data.name
    link.parent.mkdir()
    link.symlink_to(link)
    limit = max(TIME_LIMIT, guard.patience)
    rejects(
        guard.run(f"replaced {data.name} by a link to itself", data=link, time_limit=limit),
        data.name,
        before="model",
    )
    if data.is_dir():
        walked = guard.folder / "walked" / data.name
        shutil.copytree(data, walked)
        (walked / "circle").symlink_to(walked, target_is_directory=True)
        outcome = guard.run(f"put a link to {data.name} into it, as 'circle'", data=walked, time_limit=limit)
        _rejected_or_left_out(outcome, guard, "circle")


@edge_case(
    55,
    "special characters",
    verdict="survives",
    severity="minor",
    brought_about="spaces, quotes, newline, leading dash, emoji in the data's name",
    expects="survives, with the losses that it has under any other name",
)
def test_55_special_characters(guard: Guard) -> None:
    """A name passed on through a shell, or through `glob`, is not the same name at the other end.

    All of them stand in one name first; only where that fails, each by itself, to say which it was.
    """
    data = guard.data()
    reference = guard.repeatable()
    together = _train_under(
        '-it\'s "two\n words"🚀', guard, data, "spaces, quotes, a newline, a leading dash and an emoji in it"
    )
    if together.exit == 0 and together.losses == reference.losses:
        survives(together)
        return
    for what, name in NAMES.items():
        _survived(_train_under(name, guard, data, what), reference)
    _survived(together, reference)


def _train_under(name: str, guard: Guard, data: Path, what: str) -> Outcome:
    renamed = guard.folder / "names" / (name + data.suffix)
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
    56,
    "no extension",
    verdict="rejects",
    severity="minor",
    brought_about="a foreign file without a suffix; the real rows under an unknown one",
    expects="rejects, naming it, or trains on the real rows as ever; never on something else",
)
def test_56_no_extension(guard: Guard) -> None:
    """A loader that picks its reader by the suffix and falls back to another one trains on bytes that are no rows."""
    data = guard.data()
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
    elif outcome.losses != guard.repeatable().losses:
        raise Finding(
            outcome.did,
            "it trained on something else: its losses are not those of its own rows",
            outcome.last_words,
        )
