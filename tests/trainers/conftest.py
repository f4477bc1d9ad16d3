"""Tiny data and settings: a run of a few steps takes a third of a second once torch is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# The checkout comes last: an installed wheel beside it is not shadowed.
sys.path.append(str(Path(__file__).parents[2]))

from trainer_runs import ROOT, TINY

from trainers.code import samples, transformer


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    samples.write_jsonl(path, rows=64, seed=3)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def start(rows_file: Path, out: Path) -> Callable[..., int]:
    """Run the program in this process: keywords of `launch`, all others are settings."""

    def run(**keywords: Any) -> int:
        places = {"data": rows_file, "output_dir": out, "max_steps": 6}
        places |= {name: keywords.pop(name) for name in ("data", "output_dir", "max_steps") if name in keywords}
        places |= {name: keywords.pop(name) for name in ("resume_from", "seed") if name in keywords}
        return transformer.launch({**TINY, **keywords}, **places)

    return run


@pytest.fixture
def program(rows_file: Path, out: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start the program as a process of its own, optionally with a few lines of Python before it."""

    def run(before: str = "", **values: Any) -> subprocess.Popen[str]:
        settings = tmp_path / "settings.json"
        settings.write_text(json.dumps({**TINY, **values}))
        arguments = ["--settings", str(settings), "--data", str(rows_file), "--output-dir", str(out)]
        code = f"import sys\n{before}\nfrom trainers.code.transformer import main\nsys.exit(main({arguments!r}))"
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return run
