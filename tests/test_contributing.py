"""A case is added by the letter of CONTRIBUTING.md, in a copy of the repository; everything stays green."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from pytest_trainguard import catalog

ROOT = Path(__file__).parent.parent
SLUG = "output-folder-with-a-space"
COPIED = ("docs", "edge_cases", "examples", "pytest_trainguard", "tests", "trainers")
FILES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "constraints.txt",
    "mkdocs.yml",
    "pyproject.toml",
)

CASE = '''

@edge_case(
    "output-folder-with-a-space",
    number=100,
    title="output folder with a space in its name",
    verdict="survives",
    severity="misleads",
    brought_about="a start on an output folder with a space in its name",
    expects="survives, and saves in that folder",
)
def test_output_folder_with_a_space(guard: Guard) -> None:
    """A start script passed $OUT without quotes, and the checkpoints were in a folder that nobody looked into."""
    usual = guard.needs.checkpoints()
    folder = guard.folder / "out put"
    folder.mkdir()
    outcome = guard.run("given an output folder with a space in its name", output_dir=folder)
    survives(outcome)
    found, wanted = len(guard.checkpoints.find(folder)), len(guard.checkpoints.find(usual.output_dir))
    if found != wanted:
        raise Finding(outcome.did, f"it left {found} of {wanted} checkpoints there", outcome.last_words)
'''

GUIDE = """## Why it matters

The checkpoints end up in a folder that nobody looks into, and the job cannot be resumed.

## How to fix it

Pass paths as one argument: quote them in shell scripts, and give `subprocess` a list.
"""

SABOTEUR = r'''

class SplitsItsPaths(Sound):
    """Takes its output folder from a line of a script that is split at every space."""

    case = "output-folder-with-a-space"
    grade = "misleads"
    says = r"left \d of \d checkpoints there"

    def save(self, output_dir, state):
        elsewhere = Path(str(output_dir).split()[0])
        elsewhere.mkdir(exist_ok=True)
        super().save(elsewhere, state)
'''


class Copy:
    """A copy of the repository with a `.venv` of its own, in which the copy is installed."""

    def __init__(self, folder):
        self.folder = folder
        for name in COPIED:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy(ROOT / name, folder)
        self._install()

    def _install(self):
        """As `make` does; libraries are those of this interpreter, which takes no time."""
        run([sys.executable, "-m", "venv", "--without-pip", ".venv"], self.folder)
        python = self.folder / ".venv/bin/python"
        found = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], self.folder)
        (Path(found.strip()) / "libraries.pth").write_text(sysconfig.get_path("purelib"))
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
        run([*pip, "--no-build-isolation", "--editable", "."], self.folder)
        pytest_program = self.folder / ".venv/bin/pytest"
        pytest_program.write_text(f"#!{python}\nimport sys, pytest\nsys.exit(pytest.main())\n")
        pytest_program.chmod(0o755)
        (self.folder / ".venv/.ready").touch()

    def append(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(text)


def run(command, folder):
    own = ("PYTEST_", "COV_CORE", "MAKE")
    env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def commands():
    """What CONTRIBUTING.md says to run for an edge case, in its order."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    part = text.partition("## I'm adding an edge case")[2].partition("\n## ")[0]
    found = re.findall(r"`((?:\.venv/bin/|make )[^`]+)`", part)
    return [command.replace("SLUG", SLUG) for command in found]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy with one more case."""
    copy = Copy(tmp_path_factory.mktemp("repository"))
    copy.append("edge_cases/test_process.py", CASE)
    copy.append(f"edge_cases/guides/{SLUG}.md", GUIDE)
    copy.append("tests/saboteurs/process.py", SABOTEUR)
    return copy


def test_the_commands_are_those_of_contributing(repository):
    prove, whole_proof, judge, write, check = commands()
    assert whole_proof == "make proof"  # of every case: half an hour
    proven = run(shlex.split(prove), repository.folder)
    assert re.search(r"^\d+ passed, \d+ deselected", proven.splitlines()[-1].strip("= "))
    judged = run([*shlex.split(judge), "--trainer=Gnn"], repository.folder)
    assert judged.splitlines()[-2].startswith("GO: 1 passed, 0 failed, 0 not applicable")
    run(shlex.split(write), repository.folder)
    run(shlex.split(check), repository.folder)


def test_it_stands_in_its_category(repository):
    run([".venv/bin/python", "-m", "pytest_trainguard.catalog"], repository.folder)
    run(["make", "catalogue"], repository.folder)
    page = (repository.folder / "edge_cases/README.md").read_text(encoding="utf-8")
    assert page.count("## Process and system") == 1
    section = page.partition("## Process and system")[2].partition("\n## ")[0]
    assert (repository.folder / "docs/cases" / f"{SLUG}.md").read_text().startswith("# 100 output folder with a space")
    assert f"| 100 | `{SLUG}` | output folder with a space in its name |" in section


def test_every_case_is_collected(repository):
    command = [".venv/bin/pytest", "-m", "preflight", "--collect-only", "-q", "edge_cases", "--trainer=Gnn"]
    ids = [line for line in run(command, repository.folder).splitlines() if "::" in line]
    assert len([name for name in ids if name.startswith("edge_cases/")]) == len(catalog.read_cases()) + 1
    assert "edge_cases/test_process.py::test_output_folder_with_a_space[Gnn]" in ids
    table = run([".venv/bin/pytest", "--catalogue"], repository.folder)
    assert any(line.split()[:2] == ["100", SLUG] for line in table.splitlines())
