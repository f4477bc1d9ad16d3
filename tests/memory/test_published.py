"""Predictions beside what others published: the file holds together, and the documentation quotes it."""

from pathlib import Path

import pytest

from benchmarks.memory import published, published_jobs

ROOT = Path(__file__).parent.parent.parent
ROWS = published.read_rows()
STRICT = [row for row in ROWS if row["keep"] == "strict"]


def test_every_strict_row_has_a_job_and_a_prediction_or_a_reason():
    for row in STRICT:
        assert row["job"] in published_jobs.JOBS
        assert row["card"] in published.CARDS
        assert row["counter"] in ("allocated", "reserved")
        assert bool(row["predicted"]) != bool(row["why"]), row["job"]
    assert all(row["keep"].startswith("weak: ") for row in ROWS if row not in STRICT)


def test_no_strict_row_is_far_off_without_a_cause_that_is_named():
    far = {row["family"] for row in STRICT if abs(published.find_error(row) or 0) > 0.013}
    assert far <= {"compiled"}  # which is traced as if it were not


def test_errors_are_scored_by_family():
    row = {"family": "layers", "keep": "strict", "published": "100", "predicted": "101", "job": "a", "card": "H100",
           "why": ""}  # fmt: skip
    others = [{**row, "predicted": "99"}, {**row, "predicted": "", "why": "UNKNOWN: x"}, {**row, "keep": "weak: old"}]
    table = published.format_scores([row, *others])
    assert table[2:] == [f"| {name} | 3 | 1 | 1.00% | 1.00% | -1.00% | +1.00% |" for name in ("layers", "all")]


@pytest.mark.parametrize("page", ["docs/gpu-memory.md", "benchmarks/memory/README.md"])
def test_the_documentation_quotes_the_scores(page):
    assert "\n".join(published.format_scores(ROWS)) in (ROOT / page).read_text()
