"""The guides of the cases, why each matters and how to fix it: their form, their code, and that none is missing."""

import json
import os
import re
import subprocess
import sys

import pytest

from pytest_trainguard import catalog
from tests.guide_blocks import GUIDES, blocks_of

SECTIONS = ["Why it matters", "How to fix it"]
FRAMEWORKS = ["Plain PyTorch loop", "transformers.Trainer", "Lightning", "Accelerate", "PyTorch Geometric", "Queue"]
WIDEST = 160  # characters in a line of prose
PATHS = sorted(GUIDES.glob("*.md"))
LIMIT = 600  # seconds for all blocks, on a machine that does other things too


def prose_of(path):
    """The lines of a guide that are not in a block of code."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S).splitlines()


def test_every_case_has_a_guide_and_every_guide_a_case():
    assert [path.stem for path in PATHS] == sorted(case.slug for case in catalog.read_cases())


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_form(path):
    text, prose = path.read_text(encoding="utf-8"), prose_of(path)
    headings = [line for line in prose if line.startswith("#")]
    frameworks = [line.removeprefix("### ") for line in headings if line.startswith("### ")]
    assert text.startswith(f"## {SECTIONS[0]}\n\n")
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert headings == [*(f"## {name}" for name in SECTIONS), *(f"### {name}" for name in frameworks)]
    assert frameworks == [name for name in FRAMEWORKS if name in frameworks]
    assert frameworks
    assert text.count("```") == 2 * len(blocks_of(path))
    assert len(blocks_of(path)) >= len(frameworks)
    assert [line for line in prose if len(line) > WIDEST] == []


def test_code_runs(tmp_path):
    """In one process, which imports each framework once; no GPU, no network."""
    results = tmp_path / "results.json"
    offline = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.guide_blocks", str(results)]
    done = subprocess.run(
        command, cwd=GUIDES.parent.parent, env={**os.environ, **offline}, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    failures = json.loads(results.read_text(encoding="utf-8"))
    assert len(failures) == sum(len(blocks_of(path)) for path in PATHS) > 0
    failed = {place: failure for place, failure in failures.items() if failure is not None}
    assert not failed, "\n".join(f"{place}\n{failure}" for place, failure in failed.items())
