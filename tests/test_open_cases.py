"""What a GO says of critical cases that could be judged, and were not; and when that is NO-GO."""

import json
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest

from pytest_trainguard.report import page
from pytest_trainguard.report.json_report import headline
from pytest_trainguard.report.merge import merge_reports
from pytest_trainguard.report.terminal import format_summary
from pytest_trainguard.session.options import is_strict
from tests.projects import ADOPTED, LOOP, Project
from tests.reports import report, result, verdict

SEED, SAVE = "seed the program with run.seed", "let it save before its last step"
SCHEMA = json.loads((Path(page.__file__).with_name("schema.json")).read_text())


def unjudged(slug, mend=SEED, severity="loses", **more):
    return verdict(slug, "not_applicable", reason="two runs differ", mend=mend, severity=severity, **more)


def last_line(*verdicts, **more):
    return format_summary(result(*verdicts, **more), verbose=False)[-1][0]


def test_a_go_names_the_one_line_to_add():
    cases = [verdict("reboot"), unjudged("killed"), unjudged("nan-loss", severity="misleads")]
    told = "2 critical cases could not be judged: seed the program with run.seed; 1 passed, 0 failed, 2 not applicable"
    assert last_line(*cases).startswith(f"GO, but {told}")
    made = report(*cases)
    assert (made["clearance"], made["why"].startswith(told)) == ("GO", True)
    assert made["open"] == [{"trainer": "Mine", "mend": SEED, "cases": ["killed", "nan-loss"]}]
    assert [case["mend"] for case in made["cases"]].count(SEED) == 2
    jsonschema.validate(made, SCHEMA)
    assert told in page.render_page(made)


def test_what_keeps_most_cases_back_comes_first():
    cases = [unjudged("one", SAVE), unjudged("two"), unjudged("three")]
    cases += [unjudged(f"other-{place}", f"add {place}") for place in range(2)]
    told = f"5 critical cases could not be judged: {SEED} (2), {SAVE} (1), add 0 (1), and 1 more; "
    assert last_line(verdict("reboot"), *cases).startswith(f"GO, but {told}")
    assert last_line(verdict("reboot"), unjudged("one")).startswith("GO, but 1 critical case could not be judged: ")


def test_what_is_the_programs_nature_or_not_critical_is_not_told():
    cases = [verdict("reboot"), unjudged("duplicate", mend=""), unjudged("zombies", severity="wastes")]
    assert last_line(*cases).startswith("GO: 1 passed")
    assert last_line(*cases, strict=True).startswith("GO: 1 passed")
    assert report(*cases)["open"] == []


def test_strict_makes_it_no_go():
    cases = [verdict("reboot"), unjudged("killed")]
    assert result(*cases, strict=True).clearance == "NO-GO"
    told = f"1 critical case could not be judged: {SEED}; 1 passed, 0 failed, 1 not applicable"
    assert last_line(*cases, strict=True).startswith(f"NO-GO: {told}")


def test_a_no_go_for_what_was_found_tells_that_alone():
    assert last_line(verdict("reboot", "failed"), unjudged("killed")).startswith("NO-GO: 0 passed, 1 failed")


@pytest.mark.parametrize("strict", [False, True])
def test_parts_of_a_preflight_put_together_tell_it_too(strict):
    reports = {
        "a.json": report(verdict("reboot"), strict=strict),
        "b.json": report(unjudged("killed"), strict=strict, exitstatus=int(strict)),
    }
    merged = merge_reports(json.loads(json.dumps(reports)))
    assert headline(merged).startswith("NO-GO: 1 critical" if strict else "GO, but 1 critical"), merged["why"]
    assert not [note for note in merged["notes"] if "exit code" in note]


def test_a_report_of_before_is_read():
    old = report(verdict("reboot"))
    for name in ("open", "strict"):
        del old[name]
    for case in old["cases"]:
        del case["mend"]
    jsonschema.validate(old, SCHEMA)
    assert headline(merge_reports({"old.json": old})).startswith("GO: 1 passed")


UNSEEDED = LOOP.replace("torch.manual_seed(0)", "torch.seed()")


def test_an_unseeded_program(tmp_path):
    project = Project(tmp_path / "project", ["preflight:Classifier"], toml="trainguard_strict = true\n")
    project.write("program.py", UNSEEDED)
    project.write("preflight.py", ADOPTED)
    strict = project.pytest("-m", "preflight", "--edge-case=26,41,67")
    assert strict.code == 1
    assert f"NO-GO: 2 critical cases could not be judged: {SEED} (1), name the field" in strict.output
    assert {one["mend"]: one["cases"] for one in strict.report["open"]} == {
        SEED: ["killed"],
        'name the field of a row that is to be learnt, labels = "y"': ["validation-loss-rises"],
    }


@pytest.mark.parametrize(("given", "ini", "answer"), [(False, False, False), (True, False, True), (False, True, True)])
def test_strict_is_an_option_and_a_setting(given, ini, answer):
    config = SimpleNamespace(
        option=SimpleNamespace(trainguard_strict=given),
        getini=lambda name: ini,
        _parser=SimpleNamespace(addini=lambda *_, **__: None),
    )
    assert is_strict(config) is answer
