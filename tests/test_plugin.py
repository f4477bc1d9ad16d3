"""The plugin as pytest's user meets it: selection, verdicts, reports, exit codes, the public fixtures."""

import json
import re
import sys
from importlib.resources import files

import jsonschema
import pytest

from pytest_trainguard import catalog
from pytest_trainguard.session.options import asks_for_preflight
from tests.projects import ADOPTED, LOOP, Project

TRAINERS = (
    ADOPTED
    + """

class Forgetful(Classifier):
    '''Saves and loads no optimizer.'''

    def train(self, run):
        import torch
        torch.optim.AdamW.load_state_dict = lambda self, state: None
        super().train(run)


class Unsaving(Classifier):
    '''Leaves no checkpoint.'''

    def train(self, run):
        main(TrainConfig(save_every=1000), run.data, run.output_dir, run.max_steps)
"""
)

# What a team writes beside its own code.
OWN = """
from pytest_trainguard import edge_case


@edge_case("no-steps", number=1001, title="no steps", category="training", verdict="survives", severity="unclear",
           brought_about="max_steps = 0", expects="survives: ends with exit 0 without training")
def test_no_steps(guard):
    outcome = guard.run("asked for no steps", steps=0)
    assert outcome.exit == 0
    assert not outcome.recording.steps
"""

PLAIN = """
import pytest
from pytest_trainguard import NotApplicable


def test_of_the_project():
    pass


@pytest.fixture
def trainer():
    from preflight import Classifier
    return Classifier


def test_recovers(kill_and_resume):
    recovery = kill_and_resume(step=5)
    assert recovery.killed.exit == -9
    assert len(recovery.resumed.losses) == 4
    recovery.check()


def test_learns(tiny_overfit):
    assert tiny_overfit(examples=4, steps=60).drop > 0.1


def test_runs(guard):
    outcome = guard.run("trained with a smaller layer", settings={"hidden": 4}, steps=3)
    assert len(outcome.losses) == 3
    assert outcome.losses != guard.reference.outcome.losses[:3]


@pytest.mark.xfail(raises=NotApplicable, strict=True)
def test_needs_what_it_has_not(guard):
    guard.needs.setting("accumulation")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    trainers = ["preflight:Classifier", "preflight:Forgetful", "preflight:Unsaving", "broken:Broken"]
    project = Project(tmp_path_factory.mktemp("project"), trainers, toml='addopts = "--strict-markers"\n')
    project.write("program.py", LOOP)
    project.write("preflight.py", TRAINERS)
    project.write("broken.py", "import a_library_that_is_not_there\n")
    project.write("test_own_case.py", OWN)
    project.write("test_plain.py", PLAIN)
    return project


@pytest.fixture
def selected(project, pytester, monkeypatch):
    """The ids that a selection leaves. In this process, which is quick: nothing is run, torch is not imported."""

    def run(*args):
        monkeypatch.chdir(project.folder)
        result = pytester.runpytest_inprocess("--collect-only", "-q", *args)
        assert result.ret in (0, 5)
        return [line for line in result.outlines if "::" in line]

    return run


# --- selection (nothing is run, torch is not imported)


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("preflight", True),
        ("preflight and not slow", True),
        ("slow or preflight", True),
        ("not (slow and not preflight)", True),
        ("not preflight", False),
        ("not (preflight or slow)", False),
        ("preflighted", False),
        ("slow", False),
        ("", False),
        ("preflight and", False),
    ],
)
def test_what_asks_for_a_preflight(expression, answer):
    assert asks_for_preflight(expression) is answer


def test_plain_pytest_never_runs_it(selected):
    ids = selected()
    assert "test_plain.py::test_of_the_project" in ids
    assert not [name for name in ids if "edge_cases" in name or "no_steps" in name]
    assert selected("-m", "not (preflight or process)") == ids


def test_preflight_is_every_trainer_with_every_case(selected):
    ids = selected("-m", "preflight")
    every = len(catalog.read_cases()) + 1  # and the project's own
    for name in ("Classifier", "Forgetful", "Unsaving", "Broken"):
        own = [i for i in ids if i.endswith(f"[{name}]")]
        assert len(own) == every
        assert f"edge_cases/test_process.py::test_killed[{name}]" in own
        assert f"test_own_case.py::test_no_steps[{name}]" in own
    assert len(ids) == 4 * every
    assert ids == selected("-m", "preflight")


def catalogue_numbers():
    from pytest_trainguard import catalog

    return json.dumps([case.number for case in catalog.read_cases() if case.number])


def numbers_of(ids):
    """Of the catalogue's test ids; a test is named like its case."""
    numbers = {case.slug: case.number for case in catalog.read_cases()}
    slugs = [re.search(r"::test_(\w+)", name)[1].replace("_", "-") for name in ids]
    return [numbers[slug] for slug in slugs]


def test_selection_is_narrowed(selected):
    killed = "edge_cases/test_process.py::test_killed"
    assert selected("-m", "preflight", "--edge-case=41", "--trainer=Classifier") == [f"{killed}[Classifier]"]
    assert selected("-m", "preflight", "--edge-case=41", "--trainer=classifier", "--trainer=Broken") == [
        f"{killed}[Classifier]",
        f"{killed}[Broken]",
    ]
    of_range = selected("-m", "preflight", "--edge-case=41,64-66", "--trainer=Classifier")
    assert sorted(numbers_of(of_range)) == [41, 64, 65, 66]
    process = selected("-m", "preflight", "--category=process", "--trainer=Classifier")
    assert process
    assert all(name.startswith("edge_cases/test_process.py::") for name in process)
    by_marker = selected("-m", "preflight and process", "--trainer=Classifier")
    assert by_marker == process
    assert selected("-m", "preflight", "-k", "killed and Unsaving") == [f"{killed}[Unsaving]"]


def test_a_slug_selects_its_case(selected):
    one, other = "edge_cases/test_process.py::test_killed", "test_own_case.py::test_no_steps"
    assert selected("-m", "preflight", "--edge-case=killed", "--trainer=Classifier") == [f"{one}[Classifier]"]
    mixed = selected("-m", "preflight", "--edge-case=no-steps,41,64-66,killed", "--trainer=Classifier")
    assert {f"{one}[Classifier]", f"{other}[Classifier]"} <= set(mixed)
    assert len(mixed) == 5
    assert selected("-m", "preflight", "--category=own", "--trainer=Broken") == []


def test_a_printed_id_selects_its_case(project, selected):
    killed = "edge_cases/test_process.py::test_killed"
    assert selected("-m", "preflight", f"{killed}[Unsaving]") == [f"{killed}[Unsaving]"]
    assert len(selected("-m", "preflight", killed)) == 4
    both = selected("-m", "preflight", f"{killed}[Broken]", "test_own_case.py")
    assert len(both) == 5
    every = selected("-m", "preflight", "edge_cases")
    assert every == [name for name in selected("-m", "preflight") if name.startswith("edge_cases/")]
    one_file = selected("-m", "preflight", "edge_cases/test_process.py")
    assert one_file == [name for name in every if name.startswith("edge_cases/test_process.py::")]
    for args, said in (
        (("-m", "preflight", f"{killed}[Nobody]"), "not in the catalogue: "),
        ((f"{killed}[Unsaving]",), "run it with -m preflight"),
    ):
        result = project.pytest(*args)
        assert result.code == 4
        assert said in result.output


def test_catalogue_is_printed(project):
    result = project.pytest("--catalogue", "-p", "no:cacheprovider")
    assert result.code == 0
    line = next(line for line in result.output.splitlines() if line.strip().startswith("41 "))
    assert line.split()[1:6] == ["killed", "killed", "process", "recovers", "loses"]
    lines = result.output.strip().splitlines()[1:]
    numbers = [int(line.split()[0]) for line in lines if line.split()[0].isdigit()]
    assert numbers == sorted(set(json.loads(catalogue_numbers())))
    assert all(
        case.expects and line.endswith(f" {case.expects}") and f" {case.title} " in line
        for line, case in zip(lines, catalog.read_cases(), strict=True)
    )


def test_catalogue_imports_no_torch():
    import subprocess

    code = (
        "import sys, pytest\n"
        "code = pytest.main(['--catalogue', '-p', 'no:cacheprovider'])\n"
        "assert code == 0, code\n"
        "assert not {'torch', 'numpy', 'transformers', 'hypothesis.internal'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_markers_are_registered(project):
    output = project.pytest("--markers").output
    for name in (
        "preflight",
        "edge_case",
        "data",
        "model",
        "memory",
        "config",
        "process",
        "queue",
        "training",
        "code",
    ):
        assert f"@pytest.mark.{name}" in output, name


# --- verdicts

EXPECTED = {
    "Classifier": {41: "passed", 1001: "passed"},
    "Forgetful": {41: "failed", 1001: "passed"},
    "Unsaving": {41: "not_applicable", 1001: "passed"},
    "Broken": {41: "error", 1001: "error"},
}


@pytest.fixture(scope="module")
def judged(project):
    """All trainers through a case of the catalogue's and the project's own."""
    return project.pytest("-m", "preflight", "--edge-case=41,1001")


def test_verdicts(judged):
    assert {name: judged.verdicts(name) for name in EXPECTED} == EXPECTED
    assert judged.code == 4  # Broken cannot be loaded
    assert judged.report["clearance"] == "NO-GO"
    assert [trainer["verdict"] for trainer in judged.report["trainers"]] == [
        "passed",
        "failed",
        "passed",
        "error",
    ]
    assert judged.report["coverage"] == {
        "catalogue": len(json.loads(catalogue_numbers())),
        "selected": 8,
        "judged": 5,
        "passed": 4,
        "advice": 0,
        "accepted": 0,
        "failed": 1,
        "not_applicable": 1,
        "error": 2,
    }


def test_report_is_as_its_schema_says(judged):
    schema = json.loads(files("pytest_trainguard.report").joinpath("schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(judged.report, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**judged.report, "clearance": "MAYBE"}, schema)


def test_summary_tells_it_all(judged):
    summary = judged.output.partition("= preflight =")[2]
    lines = summary.splitlines()
    assert summary.count("NO-GO: 4 passed, 1 failed, 1 not applicable, 2 not judged") == 1
    shown = " ".join(summary.split())
    assert "not applicable: 1; they would apply with no checkpoint" in shown
    assert "misleads Forgetful: " in shown
    assert "it parts from the undisturbed run at step" in shown
    assert shown.count("--trainer Forgetful --edge-case 41") == 1
    assert shown.count("ERROR: Broken cannot be loaded: ModuleNotFoundError") == 1
    assert "FAILED" not in judged.output
    forgetful = next(line for line in lines if line.startswith("Forgetful"))
    assert "0/1" in forgetful
    assert "1/1" in forgetful


def test_a_failure_is_told_as_a_person_would(project):
    judged = project.pytest("-m", "preflight", "--edge-case=41,1001", "-v", "-p", "no:cacheprovider")
    block = judged.output.partition("41 killed (process, misleads): Forgetful")[2]
    for label in (
        "done        sent SIGKILL in step",
        "expected    recovers:",
        "happened    it parts from",
        "reproduce   pytest",
    ):
        assert label in block[:1500], label
    assert "a_library_that_is_not_there" in judged.output
    assert "raise ModuleNotFoundError" not in judged.output  # no frame of the import system's or ours as the answer
    assert "pytest_trainguard/probes" not in judged.output


def test_junit_properties(judged):
    properties = judged.junit["test_killed[Forgetful]"]
    assert properties == {
        "edge_case": "killed",
        "number": "41",
        "category": "process",
        "severity": "loses",
        "verdict": "failed",
        "grade": "misleads",
    }
    found = {name: p["verdict"] for name, p in judged.junit.items()}
    assert found["test_killed[Unsaving]"] == "not_applicable"
    assert found["test_killed[Broken]"] == "error"
    assert found["test_no_steps[Classifier]"] == "passed"


def test_last_failed_and_first_failure(project, judged, selected):
    again = selected("-m", "preflight", "--edge-case=41,1001", "--lf")
    assert sorted(again) == [
        "edge_cases/test_process.py::test_killed[Broken]",
        "edge_cases/test_process.py::test_killed[Forgetful]",
        "test_own_case.py::test_no_steps[Broken]",
    ]
    first = project.pytest("-m", "preflight", "--edge-case=41", "-x", "--trainer=Forgetful", "--trainer=Unsaving")
    assert first.code == 1
    assert len(first.report["cases"]) == 1
    assert first.report["clearance"] == "NO-GO"


def test_two_workers_come_to_the_same(project, judged):
    spread = project.pytest("-m", "preflight", "--edge-case=41,1001", "-n2", "-p", "no:cacheprovider")
    assert {name: spread.verdicts(name) for name in EXPECTED} == EXPECTED
    assert spread.code == judged.code
    assert spread.output.count("NO-GO: ") == 1
    assert spread.junit["test_killed[Forgetful]"]["verdict"] == "failed"
    assert [c["reason"] for c in spread.report["cases"]] == [c["reason"] for c in judged.report["cases"]]


def test_go_and_a_printed_id_alone(project):
    alone = project.pytest("-m", "preflight", "edge_cases/test_process.py::test_killed[Classifier]")
    assert alone.code == 0
    assert alone.report["clearance"] == "GO"
    assert alone.verdicts("Classifier") == {41: "passed"}
    assert "GO: 1 passed, 0 failed, 0 not applicable (of 0 to 1 of 80 cases: node ids left" in alone.output
    assert re.search(r"^collected \d+ items / \d+ deselected / 1 selected$", alone.output, re.M)


def test_public_fixtures_without_the_catalogue(project):
    result = project.pytest("test_plain.py", "-p", "no:cacheprovider")
    assert result.code == 0, result.output
    assert "4 passed, 1 xfailed" in result.output
    assert "= preflight =" not in result.output
    assert result.report == {}


def test_fast_selects_what_costs_seconds_and_says_what_it_leaves_out(project, selected):
    fast = {case.number for case in catalog.read_cases() if case.fast}
    assert fast
    items = selected("-m", "preflight", "--fast", "--trainer=Unsaving")
    assert set(numbers_of(items)) == fast
    assert selected("-m", "preflight", "--fast", "--edge-case=1,20", "--trainer=Unsaving") == [
        "edge_cases/test_data.py::test_empty_training_file[Unsaving]"
    ]
    result = project.pytest(
        "-m", "preflight", "--fast", "--edge-case=1,4,20,25", "--trainer=Unsaving", "-p", "no:cacheprovider", "-n2"
    )
    assert set(result.verdicts("Unsaving")) == {1, 4}
    assert "left out by --fast, 2 cases: 20,25: run them without it" in result.output
    left_out = r"\(of 2 of 8\d cases and 1 of 4 trainers: --trainer, --edge-case and --fast left the others out\)"
    assert re.search(left_out, result.output)
    alone = project.pytest("--fast", "-p", "no:cacheprovider")
    assert alone.code == 4
    assert "--fast narrows a preflight: run it with -m preflight" in alone.output
