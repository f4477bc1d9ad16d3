"""Budgets: what they come to, and one clear line for what is none."""

import re

import pytest

from pytest_trainguard.memory import parse_budget
from pytest_trainguard.memory.replay import cards
from pytest_trainguard.memory.replay.budget import parse_budgets, parse_headroom, resolve_budget, resolve_budgets
from pytest_trainguard.memory.replay.device import Device

GIB, MIB = 2**30, 2**20
A100 = Device("NVIDIA A100-SXM4-40GB", (8, 0), int(39.5 * GIB))
H100 = Device("NVIDIA H100 80GB HBM3", (9, 0), int(79.11 * GIB))


@pytest.mark.parametrize(
    ("text", "device", "size", "workspace"),
    [
        ("40GiB", None, 40 * GIB, 8 * MIB + 128 * 1024),
        ("30GB", A100, 30 * 10**9, 8 * MIB + 128 * 1024),
        ("80%", A100, int(0.8 * int(39.5 * GIB)), 8 * MIB + 128 * 1024),
        ("40GiB", H100, 40 * GIB, 32 * MIB),
        ("h100", None, int(79.11 * GIB), 32 * MIB),
        ("V100", None, int(15.78 * GIB), 8 * MIB + 128 * 1024),
        ("a100-80gb", A100, int(79.25 * GIB), 8 * MIB + 128 * 1024),  # that card is meant, not the one that is here
    ],
)
def test_what_a_budget_comes_to(text, device, size, workspace):
    limit = resolve_budget(parse_budget(text), device)
    assert (limit.text, limit.size, limit.workspace) == (text, size, workspace)
    assert limit.cap == size - cards.CONTEXT


@pytest.mark.parametrize(
    ("text", "device", "says"),
    [
        ("80%", None, "80% is a share of the GPU that is present, and there is none"),
        ("40GiB", A100, "40GiB is more than NVIDIA A100-SXM4-40GB has: 39.50 GiB"),
        ("100MiB", None, "100MiB is no budget: CUDA itself takes 430 MiB"),
        ("1%", A100, "1% is no budget: CUDA itself takes 430 MiB"),
    ],
)
def test_a_budget_that_cannot_be(text, device, says):
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        resolve_budget(parse_budget(text), device)
    assert "\n" not in str(caught.value)


def test_headroom():
    assert parse_headroom("10%") == parse_headroom(" 10 ") == 0.1
    assert resolve_budget(parse_budget("40GiB"), headroom=0.25).comfortable == 30 * GIB
    for text in ("", "-1", "100%", "ten", "1e1"):
        with pytest.raises(ValueError, match="is no headroom"):
            parse_headroom(text)


def test_every_card_has_a_source_and_less_than_its_name_says():
    for name, card in cards.CARDS.items():
        assert card.source
        nominal = re.search(r"-(\d+)gb", name)
        assert nominal is None or 0.9 * int(nominal[1]) * GIB < card.usable < int(nominal[1]) * GIB
    assert set(cards.ALIASES.values()) <= set(cards.CARDS)


def test_several_budgets_and_none():
    limits = resolve_budgets("l4, a100-40gb,8GiB")
    assert [limit.text for limit in limits] == ["l4", "a100-40gb", "8GiB"]
    assert [limit.device.capability for limit in limits] == [(8, 9), (8, 0), (8, 0)]
    with pytest.raises(ValueError, match="'many' is no budget"):
        parse_budgets("l4,many")
    here = Device("NVIDIA L4", (8, 9), 22 * 2**30)
    assert [(limit.text, limit.size) for limit in resolve_budgets("", here)] == [("NVIDIA L4", 22 * 2**30)]
    named = resolve_budgets("")
    assert len(named) == len(cards.CARDS)
    assert named[0].text == "h200"  # the first decides: what does not fit the largest fits none
