"""The workflows of `.github/`: what they run exists, and the preflight's steps work in a project of a team's own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.projects import ADOPTED, LOOP, Project

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".github" / "workflows"
NAMES = ["ci.yml", "preflight.yml"]
PINNED = re.compile(r"actions/(checkout|setup-python|upload-artifact)@v\d+")


def read(name):
    content = yaml.safe_load((FOLDER / name).read_text())
    content["on"] = content.pop(True)  # what YAML 1.1 makes of the key
    return content


def steps(name):
    return [step for job in read(name)["jobs"].values() for step in job.get("steps", [])]


def commands():
    for name in NAMES:
        yield from (step["run"] for step in steps(name) if "run" in step)
        for job in read(name)["jobs"].values():
            yield job.get("with", {}).get("install", "")


def test_all_of_them_are_looked_at():
    assert sorted(path.name for path in FOLDER.iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_they_may_read_and_no_more(name):
    content = read(name)
    assert content["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in content["jobs"].values())


@pytest.mark.parametrize("name", NAMES)
def test_every_job_ends(name):
    assert all("uses" in job or job["timeout-minutes"] <= 60 for job in read(name)["jobs"].values())


@pytest.mark.parametrize("name", NAMES)
def test_only_the_standard_actions_of_a_known_version(name):
    assert all(PINNED.fullmatch(step["uses"]) for step in steps(name) if "uses" in step)


def test_what_a_workflow_calls_is_there_and_takes_what_it_is_given():
    called = [job for job in read("ci.yml")["jobs"].values() if "uses" in job]
    assert called
    for job in called:
        inputs = read(Path(job["uses"]).name)["on"]["workflow_call"]["inputs"]
        assert (ROOT / job["uses"]).is_file()
        assert set(job["with"]) <= set(inputs)


def test_every_target_and_script_exists():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    text = "\n".join([*commands(), (ROOT / ".ci/run").read_text()])
    made = re.findall(r"^\s*make (\S+)", text, re.M)
    assert {"lint", "test", "pytest-versions"} <= set(made) <= set(targets)
    scripts = re.findall(r"^\.\S+$", text, re.M)
    assert ".ci/run" in scripts
    assert all(os.access(ROOT / script, os.X_OK) for script in scripts)


def test_its_versions_of_python_are_supported():
    versions = read("ci.yml")["jobs"]["checks"]["strategy"]["matrix"]["python-version"]
    named = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert set(versions) <= set(named)
    assert {named[0], named[-1]} <= set(versions)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The preflight's own steps, run by bash as a runner does, for one case that fails."""
    project = Project(tmp_path_factory.mktemp("project"), ["preflight:Classifier"])
    project.write("program.py", LOOP)
    project.write("preflight.py", ADOPTED)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_CORE"))}
    env |= {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "BUDGET": "40GiB",
        "OPTIONS": "--edge-case=41,64 -p no:cacheprovider",
        "GITHUB_STEP_SUMMARY": str(project.folder / "summary.md"),
    }
    codes = {}
    for step in steps("preflight.yml"):
        if step.get("name") == "preflight":
            shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
            done = subprocess.run(shell, cwd=project.folder, env=env, capture_output=True, text=True, timeout=180)
            codes[step["name"]] = done.returncode
    return project.folder, codes


def test_no_go_is_a_failed_job(ran):
    _, codes = ran
    assert codes == {"preflight": 1}


def test_what_is_uploaded_is_there(ran):
    folder, _ = ran
    (upload,) = [step for step in steps("preflight.yml") if "upload-artifact" in step.get("uses", "")]
    assert all((folder / name).stat().st_size for name in upload["with"]["path"].split())
    assert upload["if"] == "always()"


def test_the_jobs_summary_is_the_first_screen(ran):
    folder, _ = ran
    summary = (folder / "summary.md").read_text()
    assert summary.startswith("## Preflight: NO-GO\n\n1 passed, 1 failed")
    assert "### NO-GO for 1 cause" in summary
    assert "`pytest -m preflight --trainer Classifier --edge-case 64`" in summary
