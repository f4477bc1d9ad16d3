"""How a training program is started: by its command line or from Python, and what is checked first."""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from trainers.common import files, settings
from trainers.common.errors import Faults
from trainers.common.lock import RunLock
from trainers.common.process import Run, supervise
from trainers.common.rows import check_path
from trainers.common.status import Status

PathLike = str | os.PathLike[str]


class Places(NamedTuple):
    """Where a run reads and writes; ``data`` None is the program's own."""

    data: Path | None
    output_dir: Path
    resume_from: Path | None


@dataclass(frozen=True)
class Program:
    """One training program.

    Attributes:
        name: as it is started, ``trainers.code.transformer``; also the default output folder's name.
        about: what ``--help`` begins with.
        settings: its settings model.
        train: everything after the checks. The settings are checked and the output folder's lock is held.
        data_help: what ``--help`` says of ``--data``.
        prechecks: each raises `InputError` for values that no range describes (a path that is not there), and costs
            nothing.
        check_data: makes of the data's path one that is worth opening, or raises `InputError`.
    """

    name: str
    about: str
    settings: type[BaseModel]
    train: Callable[[Run, Any, Places], None]
    data_help: str
    prechecks: Sequence[Callable[[Mapping[str, Any]], None]] = ()
    check_data: Callable[[PathLike], Path] = check_path

    @property
    def output_dir(self) -> str:
        """The default output folder."""
        return os.path.join("runs", self.name.rpartition(".")[2])

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run for the command line ``argv``; returns the exit code."""
        flags = vars(self._parser().parse_args(argv))

        def body(run: Run) -> None:
            if flags["status_dir"] is not None:
                run.status = Status(Path(flags["status_dir"]))
            values = settings.read_file(flags["settings"]) if flags["settings"] is not None else {}
            values |= settings.from_flags(self.settings, flags)
            self.start(run, values, flags["data"], flags["output_dir"], flags["resume_from"])

        return supervise(self.name, body)

    def launch(
        self,
        values: Mapping[str, Any] | BaseModel | None = None,
        *,
        data: PathLike | None = None,
        output_dir: PathLike | None = None,
        max_steps: int | None = None,
        resume_from: PathLike | None = None,
        seed: int | None = None,
    ) -> int:
        """Run for a caller in Python.

        Args:
            values: settings by field name; what is left out has its default.
            data: what ``--data`` names; the program's own data if left out.
            output_dir: for checkpoints and metrics; `output_dir` if left out.
            max_steps: overrides the setting of that name, if given.
            resume_from: a checkpoint, or an output folder: then its newest whole checkpoint.
            seed: overrides the setting of that name, if given.

        Returns:
            the exit code: 0 success, 1 training failed, 2 bad settings or data, 130 / 143 ended by a signal; why
            stands on stderr.
        """
        merged = values.model_dump() if isinstance(values, BaseModel) else dict(values or {})
        merged |= {name: value for name, value in (("max_steps", max_steps), ("seed", seed)) if value is not None}
        return supervise(
            self.name, lambda run: self.start(run, merged, data, output_dir or self.output_dir, resume_from)
        )

    def precheck(self, values: Mapping[str, Any]) -> None:
        """All `prechecks`.

        Raises:
            InputError: one line for each fault.
        """
        faults = Faults()
        for check in self.prechecks:
            faults.gather(functools.partial(check, values))
        faults.require_none()

    def start(
        self,
        run: Run,
        values: Mapping[str, Any],
        data: PathLike | None,
        output_dir: PathLike,
        resume_from: PathLike | None,
    ) -> None:
        """Check all that can be checked at no cost, all at once; then take the folder's lock and train.

        Raises:
            InputError: one line for each fault; nothing has been written.
        """
        run.stage = "checking the settings"
        faults = Faults()
        chosen = faults.gather(lambda: settings.check(self.settings, values))
        data_path = faults.gather(lambda: self.check_data(data)) if data is not None else None
        faults.gather(lambda: self.precheck(values))
        faults.require_none()
        places = Places(data_path, Path(output_dir), Path(resume_from) if resume_from is not None else None)
        if run.rank:  # torchrun's first process holds the lock, and writes
            self.train(run, chosen, places)
            return
        with RunLock(places.output_dir) as lock:
            if lock.taken_over:
                run.say(f"taking over the lock of PID {lock.taken_over}, which has ended")

            def last_act() -> None:
                files.remove_leftovers(places.output_dir)
                lock.forget()

            run.last_act = last_act
            self.train(run, chosen, places)

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=f"python -m {self.name}",
            description=self.about,
            epilog="Exit codes: 0 success, 1 training failed, 2 bad settings or data, "
            "130 / 143 ended by SIGINT / SIGTERM after saving a checkpoint. "
            "A name that begins with a dash is given as --data=-name.",
            allow_abbrev=False,
        )
        where = parser.add_argument_group("where")
        where.add_argument("--settings", metavar="FILE", help="settings in TOML or JSON; flags override them")
        where.add_argument("--data", metavar="PATH", help=self.data_help)
        where.add_argument(
            "--output-dir",
            metavar="FOLDER",
            default=self.output_dir,
            help="checkpoints and metrics; default %(default)s",
        )
        where.add_argument(
            "--resume-from",
            metavar="PATH",
            help="a checkpoint, or an output folder: then its newest whole checkpoint",
        )
        where.add_argument(
            "--status-dir",
            metavar="FOLDER",
            help="heartbeat.json and outcome.json are written there, for whoever started the program",
        )
        settings.add_flags(parser.add_argument_group("settings"), self.settings)
        return parser
