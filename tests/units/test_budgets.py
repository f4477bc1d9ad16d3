"""Budgets of GPU memory, as they are written."""

import pytest

from pytest_trainguard.memory import parse_budget


@pytest.mark.parametrize(
    ("text", "size", "share"),
    [
        ("40GB", 40 * 10**9, None),
        ("40 GiB", 40 * 2**30, None),
        ("1.5gib", 3 * 2**29, None),
        ("42949672960", 42949672960, None),
        ("a100-40gb", int(39.5 * 2**30), None),
        ("H100", int(79.11 * 2**30), None),
        ("80%", None, 0.8),
    ],
)
def test_budgets(text, size, share):
    budget = parse_budget(text)
    assert (budget.text, budget.size, budget.share) == (text, size, share)


@pytest.mark.parametrize("text", ["", "GB", "0", "0%", "101%", "-1", "4GX", "1e9", "forty", "b200"])
def test_bad_budgets(text):
    with pytest.raises(ValueError, match="is no budget"):
        parse_budget(text)
