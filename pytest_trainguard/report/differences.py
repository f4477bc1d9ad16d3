"""What is new in a preflight's report, what is gone and what is still there, held against an earlier one."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_trainguard.report.causes import find_key, find_stable_key
from pytest_trainguard.report.json_report import CaseEntry, Report

NO_GO = ("failed", "error")
Key = tuple[str, str, str]  # trainer, slug, cause


@dataclass(frozen=True)
class Finding:
    """One thing that a report tells of a trainer and a case.

    Attributes:
        verdict: `failed`, `advice`, `accepted`, or `error` where the case could not be judged.
        grade: of the harm; empty where it could not be judged.
        heading: of the case.
        cause: key of its cause.
        said: what happened, or why it could not be judged, in one line.
    """

    verdict: str
    grade: str
    heading: str
    cause: str
    said: str


@dataclass(frozen=True)
class Difference:
    """The findings of two reports; keys are the same for the same finding in both.

    Attributes:
        new: what the earlier one does not have, or had as something that is no NO-GO while it is one now.
        gone: what only the earlier one has, of cases that were judged again.
        still: what both have.
        unseen: what only the earlier one has, of cases that were not judged this time.
    """

    new: dict[Key, Finding]
    gone: dict[Key, Finding]
    still: dict[Key, Finding]
    unseen: dict[Key, Finding]

    @property
    def is_worse(self) -> bool:
        """Something new is NO-GO."""
        return any(finding.verdict in NO_GO for finding in self.new.values())


def compare_reports(old: Report, new: Report) -> Difference:
    """Hold two reports against each other.

    Raises:
        KeyError: one is not as `schema.json` says, as are AttributeError and TypeError.
    """
    before, now = _list_findings(old), _list_findings(new)
    judged = {
        (case["trainer"], case["slug"]) for case in new["cases"] if case["verdict"] not in ("error", "not_applicable")
    }
    fresh = {key for key, finding in now.items() if finding.verdict in NO_GO and not _was_no_go(before.get(key))}
    lost = {key: finding for key, finding in before.items() if key not in now}
    return Difference(
        new={key: finding for key, finding in now.items() if key not in before or key in fresh},
        gone={key: finding for key, finding in lost.items() if key[:2] in judged},
        still={key: finding for key, finding in now.items() if key in before and key not in fresh},
        unseen={key: finding for key, finding in lost.items() if key[:2] not in judged},
    )


def format_difference(difference: Difference) -> list[str]:
    """The difference in lines: what is new first, each with its trainer, its case and its cause."""
    parts = {
        "new": difference.new,
        "gone": difference.gone,
        "still there": difference.still,
        "not judged again": difference.unseen,
    }
    lines = []
    for title, findings in parts.items():
        if findings or title != "not judged again":
            lines.append(f"{title}: {len(findings)}")
        for (trainer, _, _), finding in sorted(findings.items(), key=lambda pair: pair[0][0]):
            what = "not judged" if finding.verdict == "error" else f"{finding.verdict}, {finding.grade}"
            lines.append(f"  {trainer}: {finding.heading}: {what}: {finding.cause}: {finding.said}")
    return lines


def _was_no_go(finding: Finding | None) -> bool:
    return finding is not None and finding.verdict in NO_GO


def _list_findings(report: Report) -> dict[Key, Finding]:
    """All that was found, by trainer, case and cause; of several of one cause the one that counts most."""
    found: dict[Key, Finding] = {}
    for case in report["cases"]:
        for problem in case["problems"]:
            cause = find_key(problem["cause"], case["slug"])
            finding = Finding(
                problem["verdict"], problem["grade"], _head(case), cause, _first_line(problem["happened"])
            )
            key = case["trainer"], case["slug"], find_stable_key(cause)
            if key not in found or (finding.verdict in NO_GO and found[key].verdict not in NO_GO):
                found[key] = finding
        if case["verdict"] == "error":
            finding = Finding("error", "", _head(case), "not judged", _first_line(case["reason"]))
            found.setdefault((case["trainer"], case["slug"], "error"), finding)
    return found


def _head(case: CaseEntry) -> str:
    return case["title"] if case["number"] is None else f"{case['number']} {case['title']}"


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
