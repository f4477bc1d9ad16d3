"""The hooks of `.pre-commit-hooks.yaml`, run by pre-commit in a scratch repository, as a team would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.projects import ADOPTED, LOOP, Project

ROOT = Path(__file__).parent.parent
GIT = ["git", "-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
BAD = "def fit(rows, resume):\n    if resume:\n        total_steps = 1\n    return total_steps\n"

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="pre-commit clones this repository")


def in_repository(folder):
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
    subprocess.run([*GIT, "commit", "-qm", "as it was"], cwd=folder, check=True)


def try_hook(name, folder, home, *args):
    """`pre-commit try-repo`: what is in the checkout, uncommitted changes included, installed as a hook is."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = ("GIT_", "PYTEST_", "COV_CORE")
    env = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    env |= {"PATH": path, "PRE_COMMIT_HOME": str(home), "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    command = [sys.executable, "-m", "pre_commit", "try-repo", str(ROOT), name, "--verbose", *args]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_manifest_is_one():
    manifest = ROOT / ".pre-commit-hooks.yaml"
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-manifest", manifest], check=True)


@needs_git
def test_static_hook(tmp_path):
    """In an environment of its own, that pre-commit makes: only the files that it is given, one line a finding."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name, text in {"train.py": BAD, "unchanged.py": BAD, "good.py": "x = 1\n"}.items():
        (folder / name).write_text(text)
    in_repository(folder)
    code, output = try_hook("trainguard-static", folder, tmp_path / "home", "--files", "train.py", "good.py")
    assert code == 1, output
    assert "train.py:4: UnboundLocalError: Name `total_steps`" in output
    assert "unchanged.py" not in output
    code, output = try_hook("trainguard-static", folder, tmp_path / "home", "--files", "good.py")
    assert code == 0, output


@needs_git
def test_preflight_hook(tmp_path):
    """In the project's own environment: the fast subset, and a commit that does not go through after NO-GO."""
    project = Project(tmp_path / "project", ["preflight:Classifier"])
    project.write("program.py", LOOP)
    project.write("preflight.py", ADOPTED)
    in_repository(project.folder)
    code, output = try_hook("trainguard-preflight", project.folder, tmp_path / "home", "--files", "program.py")
    assert code == 1, output
    assert "left out by --fast, " in output
    assert "NO-GO: " in output
    assert " cases: --fast left the others out)" in output
    code, output = try_hook("trainguard-preflight", project.folder, tmp_path / "home", "--files", "train.jsonl")
    assert (code, "(no files to check)" in output) == (0, True), output
