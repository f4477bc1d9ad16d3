"""Trains one trainer with several seeds, and says what they are worth together.

    python -m trainers.code.seeds --trainer transformer --seeds 42,2025,7 -- --max-epochs 3

Each seed is a process of its own, one after the other, in a folder of its own. Flags after ``--`` are the
trainer's; ``{seed}`` in them is the seed's number. A series that was cut off goes on when it is started again.
`trainers.code.seeds.summary` says what is made of the results, `trainers.code.seeds.curves` draws them.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from trainers.code.seeds import summary
from trainers.code.seeds.child import Ended, run_child
from trainers.common import files, settings
from trainers.common.errors import Faults, InputError, Interrupted, TrainingFailed, reason, show
from trainers.common.lock import RunLock
from trainers.common.process import EXIT_BAD_INPUT, EXIT_OK, Run, supervise
from trainers.common.program import Program
from trainers.common.rows import check_path

NAME = "trainers.code.seeds"
TRAINERS = ("transformer", "gnn", "fusion")
"""The programs of this package; any other is given by its module's name."""
SERIES, SUMMARY, CURVES = "series.json", "production_summary.json", "learning_curves.png"
SEED = "{seed}"
MOST_SEEDS, LARGEST_SEED = 100, 2**32 - 1
OWN = {
    "--seed": "--seeds",
    "--output-dir": "--output-dir",
    "--data": "--data",
    "--settings": "--settings",
    "--resume-from": None,
}
"""The trainer's flags that the series gives itself, with the series' flag for each."""


class Settings(BaseModel):
    """What the series is told beside the seeds; the trainer's settings are the trainer's."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)

    min_mean_f1: float = Field(
        0.85, ge=0, le=1, description="gate: lowest mean over the seeds of validation F1 at threshold 0.5"
    )
    max_std_f1: float = Field(
        0.05, ge=0, le=1, description="gate: highest standard deviation of it (of a sample: ddof = 1)"
    )
    end_timeout: float = Field(
        600.0, gt=0, le=86_400, description="seconds that a seed may take to save and end after a signal"
    )


@dataclasses.dataclass(frozen=True)
class Series:
    """A series whose every setting is checked.

    Attributes:
        module: the trainer's name for ``python -m``.
        seeds: in the order of training.
        root: the output folder; seed 7 has ``seed-7`` in it.
        arguments: what each seed's process is given beside seed and folder.
        asked: what the seeds already in ``root`` must have been trained with, for `SERIES`; JSON.
        expected: what each seed's ``settings.json`` must say beside the seed.
        chosen: gates and limits.
    """

    module: str
    seeds: tuple[int, ...]
    root: Path
    arguments: tuple[str, ...]
    asked: dict[str, Any]
    expected: dict[str, Any]
    chosen: Settings

    def folder(self, seed: int) -> Path:
        """A seed's output folder."""
        return self.root / f"seed-{seed}"

    def command(self, seed: int) -> list[str]:
        """The process that trains a seed, or goes on with it."""
        folder = self.folder(seed)
        own = (f"--seed={seed}", f"--output-dir={folder}", f"--resume-from={folder}")
        return [sys.executable, "-m", self.module, *own, *(of_seed(word, seed) for word in self.arguments)]


def of_seed(value: Any, seed: int) -> Any:
    """A flag or a setting with the seed's number in the place of `SEED`."""
    return value.replace(SEED, str(seed)) if isinstance(value, str) else value


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if "--" in words else len(words)
    flags, further = vars(_parser().parse_args(words[:end])), words[end + 1 :]

    def body(run: Run) -> None:
        run.stage = "checking the settings"
        series = check(flags, further)
        with RunLock(series.root) as lock:
            if lock.taken_over:
                run.say(f"taking over the lock of PID {lock.taken_over}, which has ended")
            train(run, series)

    return supervise(NAME, body)


# ---- what is checked before anything is started


def check(flags: Mapping[str, Any], further: Sequence[str]) -> Series:
    """The series that the command line asks for; nothing is written, and torch is not imported.

    Args:
        flags: the series' own, parsed.
        further: those after ``--``.

    Raises:
        InputError: one line for each fault in them, in the settings file, and in the trainer's settings.
    """
    faults = Faults()
    seeds = faults.gather(lambda: read_seeds(flags["seeds"]))
    chosen = faults.gather(lambda: settings.check(Settings, settings.from_flags(Settings, flags)))
    faults.gather(lambda: _none_of_ours(further))
    trainer = faults.gather(lambda: find_trainer(flags["trainer"]))
    program = getattr(trainer, "PROGRAM", None)
    if isinstance(program, Program):
        expected = _program_settings(faults, program, flags["settings"], further, seeds or ())
        asked: dict[str, Any] = {"settings": expected}
        if flags["data"] is not None:
            faults.gather(lambda: check_path(flags["data"]))
    else:  # what its flags mean is not known here: they must be the same ones
        expected = {}
        asked = {"flags": list(map(show, further)), "sha256_of_settings": None}
        if flags["settings"] is not None:
            asked["sha256_of_settings"] = faults.gather(lambda: _checksum(flags["settings"]))
    faults.require_none()
    name = trainer.__name__
    places = [f"--{place}={flags[place]}" for place in ("data", "settings") if flags[place] is not None]
    return Series(
        module=name,
        seeds=seeds,
        root=Path(flags["output_dir"] or os.path.join("runs", f"seeds-{name.rpartition('.')[2]}")),
        arguments=(*places, *further),
        asked={"trainer": name, "data": flags["data"] and show(os.path.abspath(flags["data"])), **asked},
        expected=expected,
        chosen=chosen,
    )


def read_seeds(text: str) -> tuple[int, ...]:
    """The seeds in ``42,2025,7``.

    Raises:
        InputError: there are none, or too many; one is no number, out of range, or there twice.
    """
    seeds: list[int] = []
    faults = []
    for word in text.split(","):
        if not re.fullmatch(r"\s*[0-9]{1,10}\s*", word, re.ASCII) or int(word) > LARGEST_SEED:
            faults.append(f"seeds: {show(word.strip())} is not a whole number from 0 to {LARGEST_SEED}")
        elif int(word) in seeds:
            faults.append(f"seeds: {int(word)} is there twice")
        else:
            seeds.append(int(word))
    if len(seeds) > MOST_SEEDS:
        faults.append(f"seeds: {len(seeds)} of them; at most {MOST_SEEDS}")
    if faults:
        raise InputError(*faults)
    return tuple(seeds)


def find_trainer(name: str) -> ModuleType:
    """The module of a trainer: one of `TRAINERS`, or any other that can be imported and has a ``main``.

    Raises:
        InputError: there is no such module, it cannot be imported, or it has no ``main``.
    """
    module = f"trainers.code.{name}" if name in TRAINERS else name
    there = f"trainers are {', '.join(TRAINERS)}, or a module with main(argv)"
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        missing = isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}.")
        why = "no such trainer" if missing or not module.strip(".") else f"{type(error).__name__}: {error}"
        raise InputError(f"trainer {show(name)}: {' '.join(why.split())}; {there}") from None
    if not callable(getattr(found, "main", None)):
        raise InputError(f"trainer {show(name)}: has no main(argv); {there}")
    return found


def _none_of_ours(further: Sequence[str]) -> None:
    faults = []
    for word in further:
        flag = word.partition("=")[0]
        if flag in OWN:
            instead = f"give the series {OWN[flag]}, before --" if OWN[flag] else "a series goes on by itself"
            faults.append(f"{flag} after --: {instead}")
    if faults:
        raise InputError(*faults)


def _program_settings(
    faults: Faults, program: Program, file: str | None, further: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    """The trainer's own settings but the seed, each checked; as they stand in a ``settings.json``, but for `SEED`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    settings.add_flags(parser, program.settings)
    for flag in OWN.keys() - {"--seed"}:  # `_none_of_ours` has something to say on them
        parser.add_argument(flag)
    values = faults.gather(lambda: settings.read_file(file)) if file is not None else {}
    try:
        flags, unknown = parser.parse_known_args(further)
    except argparse.ArgumentError as error:
        faults.lines.append(f"{program.name}: {error}")
        return {}
    faults.lines.extend(f"{program.name} has no flag {show(word)}" for word in unknown)
    values = {**(values or {}), **settings.from_flags(program.settings, vars(flags))}
    values.pop("seed", None)
    chosen = faults.gather(lambda: settings.check(program.settings, values))
    by_seed = [{name: of_seed(value, seed) for name, value in values.items()} for seed in seeds]
    found = Faults()
    for each in by_seed:
        found.gather(functools.partial(program.precheck, each))
    faults.lines += dict.fromkeys(found.lines)
    return chosen.model_dump(mode="json", exclude={"seed"}) if chosen is not None else {}


def _checksum(file: str) -> str:
    try:
        return files.sha256(Path(file))
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise InputError(f"settings file {show(file)}: {why}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {NAME}",
        description=(__doc__ or "").split("\n\n")[0],
        epilog="Further flags of the trainer come after --. Exit codes: 0 all seeds finished and all gates passed, "
        "1 a seed failed or a gate was missed, 2 bad settings or data, 130 / 143 ended by SIGINT / SIGTERM after the "
        "running seed has saved. The same command goes on with a series.",
        allow_abbrev=False,
    )
    text = f"{', '.join(TRAINERS)}, or the name of a module with main(argv)"
    parser.add_argument("--trainer", metavar="NAME", required=True, help=text)
    parser.add_argument(
        "--seeds", metavar="SEEDS", default="42,2025,7",
        help=f"1 to {MOST_SEEDS} different whole numbers from 0 to {LARGEST_SEED}; default %(default)s",
    )  # fmt: skip
    parser.add_argument("--data", metavar="PATH", help="the trainer's --data")
    parser.add_argument("--settings", metavar="FILE", help="the trainer's --settings, TOML or JSON")
    parser.add_argument(
        "--output-dir", metavar="FOLDER", help=f"a folder for each seed, {SUMMARY}, {CURVES}; default runs/seeds-NAME"
    )
    settings.add_flags(parser.add_argument_group("gates and limits"), Settings)
    return parser


def require_same(series: Series) -> None:
    """Hold what the seeds already in the folder were trained with against what is asked for now.

    Raises:
        InputError: they differ, naming each field and both values; or it cannot be told.
    """
    faults = []
    if (series.root / SERIES).exists() and any(series.root.glob("seed-*")):
        faults += [f"{show(series.root)}: {line}" for line in _differences(series.root / SERIES, series.asked)]
    if not faults:  # else the seeds' say the same again
        faults += [f"seed {seed}: {line}" for seed in series.seeds for line in settings_differ(series, seed)]
    if faults:
        raise InputError(*faults, f"{show(series.root)}: another series has its own --output-dir")


def settings_differ(series: Series, seed: int) -> list[str]:
    """In one line each, where a seed's ``settings.json`` is not what was asked for; no line before it is written."""
    folder = series.folder(seed)
    if not (folder / "settings.json").exists() and not (folder / summary.METADATA).exists():
        return []
    expected = {name: of_seed(value, seed) for name, value in series.expected.items()}
    return _differences(folder / "settings.json", {**expected, "seed": seed})


def _differences(path: Path, here: Mapping[str, Any]) -> list[str]:
    try:
        there = summary.read_object(path)
    except summary.Damaged as damage:
        return [str(damage)]
    lines = []
    for name, value in here.items():
        if isinstance(value, dict) and isinstance(there.get(name), dict):
            lines += _unequal(there[name], value, path.name)
        else:
            lines += _unequal(there, {name: value}, path.name)
    return lines


def _unequal(there: Mapping[str, Any], here: Mapping[str, Any], file: str) -> list[str]:
    return [
        f"{name} is {json.dumps(there.get(name))} there and {json.dumps(value)} here ({file})"
        for name, value in here.items()
        if there.get(name) != value
    ]


# ---- the series


def train(run: Run, series: Series) -> None:
    """Train what is not finished, and report. The folder's lock is held.

    Raises:
        InputError: the folder holds seeds of another series, or a seed found its settings or data bad.
        TrainingFailed: a seed failed, or a gate was missed.
        Interrupted: after the running seed has ended.
    """
    run.stage = "looking at the seeds"
    files.remove_leftovers(series.root)
    require_same(series)
    files.write_json(series.root / SERIES, series.asked)
    runs = {seed: result(series, seed) for seed in series.seeds}
    report(series, runs, "running")
    rejected: str | None = None
    with run.deferred_signals():
        for number, seed in enumerate(series.seeds, 1):
            which = f"seed {number} of {len(series.seeds)}: {seed}"
            if runs[seed].state in ("finished", "damaged"):
                run.say(f"{which} has finished before")
                continue
            if run.received is not None:
                break
            run.say(f"{which}, in {show(series.folder(seed))}")
            run.stage = f"seed {seed}"
            try:
                ended = run_child(run, series.command(seed), series.chosen.end_timeout)
            except Interrupted as now:  # a second Ctrl-C
                runs[seed] = result(series, seed)
                report(series, runs, f"ended by signal {now.number}")
                raise
            runs[seed] = result(series, seed, ended, cut_off=run.received is not None)
            if run.received is None and ended.code == EXIT_BAD_INPUT:
                rejected = f"seed {seed}: exit code {ended.code}: {ended.last_line}"
                break
            report(series, runs, "running")
    if run.received is not None:
        report(series, runs, f"ended by signal {run.received}")
        raise Interrupted(run.received)
    run.stage = "summing up"
    made = report(series, runs, f"ended: {rejected}" if rejected else "finished")
    draw(run, series, runs, made)
    print("\n".join(summary.table(made)), flush=True)
    if rejected:
        raise InputError(rejected)
    run.say(f"results in {show(series.root / SUMMARY)}")
    if made["failures"]:
        for line in made["failures"][:-1]:
            run.report(line)
        raise TrainingFailed(made["failures"][-1])


def result(series: Series, seed: int, ended: Ended | None = None, *, cut_off: bool = False) -> summary.SeedRun:
    """What became of a seed.

    Args:
        series: the series.
        seed: which.
        ended: how its process did, if this series started one.
        cut_off: whether a signal to the series has ended it.
    """
    found = summary.read(series.folder(seed), seed)
    if ended is None:
        return found
    found = dataclasses.replace(found, exit_code=ended.code)
    if ended.code != EXIT_OK:
        return dataclasses.replace(found, state="cut off" if cut_off else "failed", why=ended.last_line)
    # A settings file may change while the series runs.
    changed = settings_differ(series, seed)
    if found.state == "finished" and changed:
        return dataclasses.replace(found, state="damaged", why=changed[0])
    if found.state in ("not started", "cut off"):
        return dataclasses.replace(found, state="damaged", why=f"its {summary.METADATA} does not say finished")
    return found


def report(series: Series, runs: Mapping[int, summary.SeedRun], status: str) -> dict[str, Any]:
    """Replace the summary; ``passed`` is true in that of a finished series only."""
    chosen = series.chosen
    made = summary.aggregate(list(runs.values()), min_mean_f1=chosen.min_mean_f1, max_std_f1=chosen.max_std_f1)
    made["passed"] = made["passed"] and status == "finished"
    asked = {name: series.asked[name] for name in ("trainer", "data")}
    made = {"status": status, **asked, **made}
    files.write_json(series.root / SUMMARY, made)
    return made


def draw(run: Run, series: Series, runs: Mapping[int, summary.SeedRun], made: Mapping[str, Any]) -> None:
    """Replace the picture, if there is anything to draw."""
    from trainers.code.seeds import curves

    drawn = []
    for seed, found in runs.items():
        curve = curves.Curve(seed, found.state, best_step=found.scores.get("step"))
        fault = curves.read(series.folder(seed) / "metrics.jsonl", curve)
        if fault is not None:
            run.report(f"seed {seed}: {fault}; its curves end there")
        if curve.training or curve.validation:
            drawn.append(curve)
    if drawn:
        f1 = made["scores"]["f1"]
        title = f"{series.module}, {len(runs)} {'seed' if len(runs) == 1 else 'seeds'}"
        title += f": F1 {f1['mean']:.3f}" if f1["mean"] is not None else ""
        title += f" ± {f1['std']:.3f}" if f1["std"] is not None else ""
        curves.draw(series.root / CURVES, drawn, title=title, min_mean_f1=series.chosen.min_mean_f1)
