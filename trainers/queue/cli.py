"""The command line: ``python -m trainers.queue --root FOLDER COMMAND``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainers.common import files, lock
from trainers.common.errors import InputError, TrainingFailed, reason, show
from trainers.common.process import Run, supervise
from trainers.queue import daemon, entries, moves, opening, options, view
from trainers.queue.layout import PRIORITIES, Layout, move_new
from trainers.queue.ledger import Row
from trainers.queue.stock import DEFAULT_PRIORITY, Queue, Stock

NAME = "trainers.queue"
STOP_SECONDS = 660.0
WATCH_SECONDS = 1.0
CLEAR = "\x1b[H\x1b[2J"


def main(argv: Sequence[str] | None = None) -> int:
    """Run for the command line ``argv``; returns the exit code."""
    flags = vars(_parser().parse_args(argv))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError):  # a name that the terminal cannot show is escaped
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    layout, command = Layout(flags["root"]), flags["command"]

    def body(run: Run) -> None:
        run.stage = command
        try:
            COMMANDS[command](run, layout, flags)
        except BrokenPipeError:  # whoever read our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return supervise(NAME, body)


def _run(run: Run, layout: Layout, flags: dict[str, Any]) -> None:
    daemon.serve(run, layout, once=False)


def _once(run: Run, layout: Layout, flags: dict[str, Any]) -> None:
    daemon.serve(run, layout, once=True)


# ---- putting in


def _add(run: Run, layout: Layout, flags: dict[str, Any]) -> None:
    """All or nothing of the files is copied in; a fault in one is said before any is."""
    paths = [Path(os.path.abspath(name)) for name in flags["files"]]
    chosen = options.load(layout.root)
    faults = [line for path in paths for line in _unfit(path, chosen)]
    if faults:
        raise InputError(*faults)
    with opening.opened(layout, run.say) as queue:
        for path in paths:
            _copy_in(queue, path, flags["priority"])


def _unfit(path: Path, chosen: options.QueueSettings) -> list[str]:
    try:
        why = entries.foreign(path, chosen.suffixes)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
    return [f"{show(path)}: {why}"] if why else []


def _copy_in(queue: Queue, path: Path, priority: str) -> None:
    """Copied beside, then renamed: nobody ever sees half of it."""
    folder = queue.layout.folder(priority)
    temporary = folder / f"{files.TEMPORARY}{secrets.token_hex(8)}"
    with files.saving(folder / path.name, temporary):
        shutil.copyfile(path, temporary)
        files.sync_file(temporary)
        name = move_new(temporary, folder, path.name, files.sha256(temporary))
        files.sync_folder(folder)
    queue.journal.add("added", file=name, priority=priority)
    Stock(queue).take_one(priority, name)


# ---- looking


def _status(run: Run, layout: Layout, flags: dict[str, Any]) -> None:
    layout.require()
    while True:
        with opening.opened(layout, run.say) as queue:
            text = json.dumps(view.as_json(queue), indent=1) if flags["json"] else view.as_text(queue)
        screen = flags["watch"] and sys.stdout.isatty() and not flags["json"]
        print(CLEAR + text if screen else text, flush=True)
        if not flags["watch"]:
            return
        time.sleep(WATCH_SECONDS)


def _list(run: Run, layout: Layout, flags: dict[str, Any]) -> None:
    layout.require()
    with opening.opened(layout, run.say) as queue:
        print(view.as_list(queue))


# ---- changing


def _retry(run: Run, layout: Layout, flags: dict[str, Any]) -> None:
    layout.require()
    with opening.opened(layout, run.say) as queue:
        chosen = _named(queue, flags["names"], "failed") if flags["names"] else queue.ledger.in_state("failed")
        if not chosen:
            print("nothing has failed: nothing to retry")
        _each(chosen, lambda row: moves.retry(queue, row), "waits again, in {row.priority}/")


def _reprioritise(run: Run, layout: Layout, flags: dict[str, Any]) -> None:
    layout.require()
    with opening.opened(layout, run.say) as queue:
        chosen = _named(queue, flags["names"], "queued")
        priority = flags["priority"]
        _each(chosen, lambda row: moves.reprioritise(queue, row, priority), f"waits in {priority}/")


def _named(queue: Queue, names: Sequence[str], state: str) -> list[Row]:
    """The files of these names, or hashes, that are in a state.

    Raises:
        InputError: one line for each name that is of none.
    """
    found, faults = [], []
    for name in names:
        rows = queue.ledger.named(name)
        fitting = [row for row in rows if row.state == state]
        found += fitting
        if not rows:
            faults.append(f"{show(name)}: no such file in the queue (a name as in `list`, or the beginning of a hash)")
        elif not fitting:
            faults.append(f"{show(name)}: is {rows[0].state}, not {state}")
    if faults:
        raise InputError(*faults)
    return list(dict.fromkeys(found))


def _each(rows: Sequence[Row], change: Callable[[Row], None], done: str) -> None:
    for row in rows:
        try:
            change(row)
        except FileNotFoundError:  # begun, moved or removed meanwhile
            print(f"{show(row.name)}: is no longer there")
        else:
            print(f"{show(row.name)}: {done.format(row=row)}")


def _pause(run: Run, layout: Layout, flags: dict[str, Any]) -> None:
    layout.require()
    files.write_text(layout.paused, "")
    print("paused: the present file goes on to its end, no other is begun until resume")


def _resume(run: Run, layout: Layout, flags: dict[str, Any]) -> None:
    layout.require()
    paused = layout.paused.exists()
    with contextlib.suppress(FileNotFoundError):
        layout.paused.unlink()
    print("goes on" if paused else "was not paused")


def _stop(run: Run, layout: Layout, flags: dict[str, Any]) -> None:
    """SIGTERM to the process that trains, and wait for its end."""
    layout.require()
    pid = lock.holder(layout.root)
    if not pid:
        print("nothing runs")
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    print(f"PID {pid} ends after its step, and puts its file back", flush=True)
    deadline = time.monotonic() + flags["timeout"]
    while lock.holder(layout.root) == pid:
        if time.monotonic() > deadline:
            raise TrainingFailed(f"PID {pid} has not ended in {flags['timeout']:g} seconds; it still runs")
        time.sleep(0.05)


COMMANDS: dict[str, Callable[[Run, Layout, dict[str, Any]], None]] = {
    "run": _run, "once": _once, "add": _add, "status": _status, "list": _list, "retry": _retry,
    "reprioritise": _reprioritise, "pause": _pause, "resume": _resume, "stop": _stop,
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {NAME}",
        description="Folders as a training queue: a file that is put into inbox/ is trained exactly once.",
        epilog="Exit codes: 0 success (of once: all was tried; what failed is in failed/ and in status), 1 the queue "
        "itself had to stop, 2 bad settings or names, 130 / 143 ended by SIGINT / SIGTERM, the file back in its place. "
        "A name that begins with a dash comes after --.",
        allow_abbrev=False,
    )
    parser.add_argument("--root", metavar="FOLDER", required=True, help="the queue's folder; its settings: queue.toml")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, allow_abbrev=False)

    for name, text in (("run", "train what comes, until stop or a signal"), ("once", "train what is there, then end")):
        trains = command(name, text)
        trains.formatter_class, trains.epilog = argparse.RawDescriptionHelpFormatter, _settings_help()
    add = command("add", "copy files in")
    add.add_argument("files", metavar="FILE", nargs="+")
    add.add_argument("--priority", choices=PRIORITIES, default=DEFAULT_PRIORITY, help="default: %(default)s")
    status = command("status", "what runs, how many files are where, what failed last")
    status.add_argument("--json", action="store_true", help="all of it, with every file, as one JSON object")
    status.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    command("list", "every file with its state and reason, those that wait in order")
    retry = command("retry", "put failed files back, to be tried as if they were new")
    retry.add_argument("names", metavar="NAME", nargs="*", help="default: all that failed")
    reprioritise = command("reprioritise", "move waiting files to another priority")
    reprioritise.add_argument("priority", choices=PRIORITIES)
    reprioritise.add_argument("names", metavar="NAME", nargs="+")
    command("pause", "begin no other file until resume")
    command("resume", "go on after pause")
    stop = command("stop", "end the process that trains: it saves, and puts its file back")
    stop.add_argument("--timeout", type=float, default=STOP_SECONDS, help="seconds to wait; default %(default)s")
    return parser


def _settings_help() -> str:
    """What may stand in the queue's settings file."""
    lines = [f"settings, in {' or '.join(options.FILES)} in the queue's folder:"]
    for name, field in options.QueueSettings.model_fields.items():
        default = "" if field.default is None or name == "trainer" else f"; default {json.dumps(field.default)}"
        lines.append(f"  {name}: {field.description}{default}")
    return "\n".join(lines).replace("%", "%%")
