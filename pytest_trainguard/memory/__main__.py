"""Whether one trainer fits a GPU budget: `python -m pytest_trainguard.memory NAME --gpu-budget 40GiB`.

NAME is that of a trainer in `pyproject.toml`, of a command line or of a class, or `MODULE:TRAINER`.

Exit code 0 where it fits, 1 where it does not, 2 for what cannot be asked, 3 where the answer is not known.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_trainguard.printing import printable
from pytest_trainguard.verdicts.errors import CannotJudge

FITS, DOES_NOT, BAD, UNKNOWN = 0, 1, 2, 3
EXIT = {"FITS": FITS, "TIGHT": FITS, "OUT OF MEMORY": DOES_NOT, "UNKNOWN": UNKNOWN}


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer; the exit code."""
    asked = _parser().parse_args(arguments)
    from pytest_trainguard.memory.answers.prediction import GpuBusy, predicting

    sys.path.insert(0, "")
    try:
        _check(asked)
        with predicting(
            _find_trainer(asked.trainer), asked.gpu_budget, headroom=asked.headroom, tell=_tell
        ) as prediction:
            _answer(asked, prediction)
            return EXIT[prediction.verdict]
    except GpuBusy as busy:
        print(printable(f"UNKNOWN under {asked.gpu_budget}: {busy}"))
        return UNKNOWN
    except (ValueError, CannotJudge) as error:
        return _bad(str(error))
    except OSError as error:
        return _bad(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pytest_trainguard.memory",
        description="Predict, without a GPU, whether a training step at production settings fits a GPU budget.",
        epilog="Exit code: 0 it fits, 1 it does not, 2 bad input, 3 not known.",
    )
    parser.add_argument(
        "trainer", metavar="NAME", help="a trainer of [tool.trainguard.trainers] in pyproject.toml, or MODULE:TRAINER"
    )
    parser.add_argument(
        "--gpu-budget", metavar="SIZE", required=True, nargs="?", const="",
        help="40GiB, 40GB, 80%%, a100-40gb, bytes; several: l4,a100-40gb; no value: the GPU here, else all named cards",
    )  # fmt: skip
    parser.add_argument(
        "--headroom", metavar="SHARE", default="10%", help="of the budget, to stay free (default: 10%%)"
    )
    parser.add_argument("--quick", action="store_true", help="the verdict only: no largest batch, no alternatives")
    parser.add_argument("--json", action="store_true", help="print JSON; sizes in bytes")
    parser.add_argument("--memory-timeline", metavar="PATH", type=Path, help="draw memory over the trace, .svg or .png")
    parser.add_argument("--memory-snapshot", metavar="PATH", type=Path, help="write it for pytorch.org/memory_viz")
    return parser


def _check(asked: argparse.Namespace) -> None:
    """What is wrong with the rest of what was asked, told before anything is loaded.

    Raises:
        ValueError: something is.
    """
    from pytest_trainguard.memory.answers import timeline

    if asked.memory_timeline:
        timeline.check_timeline_path(asked.memory_timeline)
    path = asked.memory_snapshot
    if path and (path.is_dir() or not path.parent.is_dir()):
        raise ValueError(f"{path}: " + ("is a folder" if path.is_dir() else f"there is no folder {path.parent}"))


def _find_trainer(asked: str) -> object:
    """`module:Class`, or the table of a command line.

    Raises:
        ValueError: there is no such trainer; in one line.
    """
    from pytest_trainguard.adapters.tables import CLASS, faults_in
    from pytest_trainguard.contract.modules import module_exists

    if ":" not in asked:
        tables = _read_tables(Path.cwd())
        if not isinstance(tables.get(asked), dict):
            known = f"; pyproject.toml names {', '.join(tables)}" if tables else ", and pyproject.toml names no trainer"
            raise ValueError(f"{asked!r} is not of the form MODULE:TRAINER{known}")
        table = tables[asked]
        if CLASS not in table:
            if wrong := faults_in(table, Path.cwd()):
                raise ValueError(f"[tool.trainguard.trainers.{asked}] {wrong}")
            return table
        asked = str(table[CLASS])
    module, _, name = asked.partition(":")
    if not (module and name):
        raise ValueError(f"{asked!r} is not of the form MODULE:TRAINER")
    if not module_exists(module, [str(Path.cwd()), *sys.path]):
        raise ValueError(f"{asked!r}: no module named {module!r}")
    return asked


def _read_tables(folder: Path) -> dict[str, Any]:
    """The trainers that a project's `pyproject.toml` names."""
    from pytest_trainguard.adapters.settings_files import read_settings

    path = folder / "pyproject.toml"
    tables: Any = read_settings(path) if path.exists() else {}
    for key in ("tool", "trainguard", "trainers"):
        tables = tables.get(key, {}) if isinstance(tables, dict) else {}
    return tables if isinstance(tables, dict) else {}


def _answer(asked: argparse.Namespace, prediction: Any) -> None:
    from pytest_trainguard.memory.answers import timeline
    from pytest_trainguard.memory.answers.prediction import format_prediction
    from pytest_trainguard.memory.replay import snapshot

    judgement = prediction.judgement
    if not asked.quick:
        prediction.find_all()
    trace = prediction.trace({})
    if asked.memory_timeline:
        timeline.draw_timeline(asked.memory_timeline, trace, prediction.limit, judgement)
    if asked.memory_snapshot:
        snapshot.write_snapshot(asked.memory_snapshot, trace, prediction.limit.workspace)
    report = prediction.as_dict()
    print(json.dumps(report, indent=2) if asked.json else printable("\n".join(format_prediction(report))))


def _tell(words: str) -> None:
    print(printable(f"{words} ..."), file=sys.stderr, flush=True)


def _bad(reason: str) -> int:
    print(printable(f"error: {reason}"), file=sys.stderr)
    return BAD


if __name__ == "__main__":
    sys.exit(main())
