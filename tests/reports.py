"""Reports made by hand, of verdicts that nobody had to wait for."""

from pytest_trainguard.harm import Cause, Problem
from pytest_trainguard.report.data import CaseVerdict, SessionResult
from pytest_trainguard.report.json_report import make_report

NO_OPTIMIZER = Cause("resume:optimizer", "the optimizer is not restored on a resume", "killed")


def problem(grade="loses", said="it lost it", did="sent SIGKILL", verdict="failed", cause=None, evidence=""):
    return Problem(grade, said, did, evidence, cause, verdict)


def verdict(slug="killed", word="passed", *problems, trainer="Mine", number=None, **more):
    """What came of a case; what is not said of it is its slug, or of no account."""
    told = {
        "title": slug, "category": "process", "severity": "loses", "expects": "recovers", "framework": "",
        "seconds": 1.5, "reason": "\n".join(each.said for each in problems), "evidence": "", "memory": None,
        "alone": f"pytest -m preflight --trainer {trainer} --edge-case {slug}",
    }  # fmt: skip
    return CaseVerdict(
        slug=slug, verdict=word, problems=problems, trainer=trainer, number=number, **{**told, **more},
    )  # fmt: skip


def result(*verdicts, exitstatus=None, **more):
    """What a session came to; by itself it ends with the exit code that its verdicts make it end with."""
    bad = any(each.verdict in ("failed", "error") for each in verdicts)
    told = {
        "trainers": {each.trainer: f"preflight:{each.trainer}" for each in verdicts}, "bar": "wastes", "left_out": [],
        "narrowed": [], "began": 1.7e9, "command": "pytest -m preflight", "gpu_budget": None, "problems": [],
    }  # fmt: skip
    return SessionResult(
        verdicts=list(verdicts), exitstatus=int(bad) if exitstatus is None else exitstatus, **{**told, **more}
    )


def report(*verdicts, **more):
    return make_report(result(*verdicts, **more))
