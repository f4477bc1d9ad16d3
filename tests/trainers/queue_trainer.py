"""A trainer for the tests of the queue: no model, and it does what the first row of its data says.

``steps`` (3), ``seconds`` a step (0), ``at`` (1): the step before which ``do`` happens, only while ``tries`` (always)
attempts are not over. ``do``: a kind of outcome, or ``crash``, ``hang``, ``killed``, ``silent_failure``. ``quiet``:
it leaves no outcome, only an exit code. ``largest_batch``, ``largest_rate``: above that it runs out of memory, or its
loss is not finite. ``child``: leaves a process running.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2]))

from trainers.common import status

EXITS = {"success": 0, "bad_input": 2, "interrupted": 143}


class Done(Exception):
    pass


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("settings", "data", "output-dir", "resume-from", "status-dir"):
        parser.add_argument("--" + name, type=Path)
    flags = parser.parse_args()
    with open(flags.data, "rb") as file:
        row = json.loads(file.readline())
    settings = json.loads(flags.settings.read_text())
    told = status.Status(None if row.get("quiet") else flags.status_dir)
    diary(flags, "begin", row, settings)
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    told.step = newest(flags.resume_from).get("step", 0) if flags.resume_from else 0
    try:
        train(flags, row, settings, told)
    except Done as done:
        kind, message = done.args
    else:
        kind, message = "success", "trained"
    print(f"{kind}: {message}", flush=True)
    told.end(EXITS.get(kind, 1), kind, message)
    diary(flags, kind, row, settings)
    sys.exit(EXITS.get(kind, 1))


stopped: list[int] = []


def train(flags: argparse.Namespace, row: dict[str, Any], settings: dict[str, Any], told: status.Status) -> None:
    flags.output_dir.mkdir(parents=True, exist_ok=True)
    mine = newest(flags.output_dir).get("mine", 0)
    if row.get("child"):
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (flags.output_dir / "child").write_text(str(process.pid))
    for step in range(mine + 1, row.get("steps", 3) + 1):
        told.beat(f"step {step}")
        fault(row, settings, step, flags)
        time.sleep(row.get("seconds", 0))
        told.step += 1
        save(flags.output_dir, told.step, step)
        if stopped:
            raise Done("interrupted", "saved, and ended by SIGTERM")


def fault(row: dict[str, Any], settings: dict[str, Any], step: int, flags: argparse.Namespace) -> None:
    if settings.get("batch_size", 0) > row.get("largest_batch", 1e9):
        raise Done("out_of_memory", f"a batch of {settings['batch_size']} rows does not fit")
    if settings.get("learning_rate", 0) > row.get("largest_rate", 1e9) and step == row.get("at", 1):
        raise Done("nan", "the loss is not finite")
    what = row.get("do")
    attempt = int(flags.status_dir.name.removeprefix("attempt-"))
    if what is None or step != row.get("at", 1) or attempt > row.get("tries", 1e9):
        return
    if what == "crash":
        raise RuntimeError("the trainer has a defect")
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "silent_failure":
        os._exit(3)
    if what == "hang":
        stuck_here(flags.status_dir / "stuck")
    raise Done(what, f"{what} on purpose")


def stuck_here(sign: Path) -> None:
    sign.touch()
    while True:
        time.sleep(600)


def save(folder: Path, step: int, mine: int) -> None:
    temporary = folder / f".tmp-{step}"
    temporary.mkdir(exist_ok=True)
    (temporary / "state.json").write_text(json.dumps({"step": step, "mine": mine}))
    temporary.rename(folder / f"checkpoint-{step}")


def newest(folder: Path) -> dict[str, int]:
    steps = [int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*")]
    return json.loads((folder / f"checkpoint-{max(steps)}" / "state.json").read_text()) if steps else {}


def diary(flags: argparse.Namespace, event: str, row: dict[str, Any], settings: dict[str, Any]) -> None:
    """What every trainer of this queue did, in one file."""
    line = {"event": event, "run": flags.output_dir.name, "row": row.get("id"), "settings": settings}
    line |= {"resumed": flags.resume_from and flags.resume_from.name, "pid": os.getpid(), "data": str(flags.data)}
    with open(flags.output_dir.parent.parent / "diary.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
