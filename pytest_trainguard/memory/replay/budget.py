"""The GPU budget: how much memory the job may take, as `--gpu-budget` says it, and what of it is left for tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from pytest_trainguard.memory.replay import cards
from pytest_trainguard.memory.replay.cards import CONTEXT, Card
from pytest_trainguard.memory.replay.device import Device
from pytest_trainguard.memory.replay.sizes import GIB

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
          "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}  # fmt: skip
HEADROOM = 0.1  # share of the budget that a job should leave free: data and kernels vary


@dataclass(frozen=True)
class Budget:
    """How much GPU memory a job may take: a number of bytes, or a share of the device that is present.

    Attributes:
        text: as it was given.
        size: bytes; None for a share.
        share: of the device's memory, above 0 and at most 1; None for a size.
        card: the card it names.
    """

    text: str
    size: int | None = None
    share: float | None = None
    card: Card | None = None


@dataclass(frozen=True)
class Limit:
    """A budget made definite.

    Attributes:
        text: the budget in words.
        size: bytes in all.
        device: the GPU that a program believes to be on.
        context: bytes that CUDA itself takes.
        headroom: share of the budget that a job should leave free.
    """

    text: str
    size: int
    device: Device = cards.USUAL_CARD.device
    context: int = CONTEXT
    headroom: float = HEADROOM

    @property
    def workspace(self) -> int:
        """Bytes of one cuBLAS workspace."""
        return cards.find_workspace_size(self.device.capability)

    @property
    def cap(self) -> int:
        """Bytes that torch's allocator may take."""
        return self.size - self.context

    @property
    def comfortable(self) -> int:
        """Bytes in all up to which a job leaves the headroom free."""
        return int(self.size * (1 - self.headroom))

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Limit:
        """Read back what `dataclasses.asdict` made of one."""
        return cls(**{**plain, "device": Device.from_json(plain["device"])})


def parse_budget(text: str) -> Budget:
    """Read a budget: a byte count, `40GiB`, `40GB`, `80%`, or a card such as `a100-40gb`.

    Raises:
        ValueError: it is none of these, or not above zero; one line that names it.
    """
    plain = text.strip().lower()
    card = cards.find_card(plain)
    if card is not None:
        return Budget(text, size=card.usable, card=card)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*|%)", plain)
    if match is None or (match[2] != "%" and match[2] not in _UNITS):
        known = ", ".join(cards.CARDS)
        raise ValueError(f"{text!r} is no budget: give bytes, 40GiB, 40GB, 80%, or one of {known}")
    number = float(match[1])
    if number <= 0 or (match[2] == "%" and number > 100):
        raise ValueError(f"{text!r} is no budget: it has to be above 0" + (" and at most 100%" if "%" in plain else ""))
    if match[2] == "%":
        return Budget(text, share=number / 100)
    return Budget(text, size=int(number * _UNITS[match[2]]))


def parse_budgets(text: str) -> list[Budget]:
    """Read budgets with commas between them; none of nothing, which asks about what is present, or all cards.

    Raises:
        ValueError: one of them is no budget; one line that names it.
    """
    return [parse_budget(one.strip()) for one in text.split(",")] if text.strip() else []


def parse_headroom(text: str) -> float:
    """Read the share of a budget that is to stay free: `10%`, `10`, `0`.

    Raises:
        ValueError: it is no percentage from 0 to below 100; one line that names it.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%?", text.strip())
    if match is None or float(match[1]) >= 100:
        raise ValueError(f"{text!r} is no headroom: give a percentage from 0 to below 100, such as 10%")
    return float(match[1]) / 100


def resolve_budget(budget: Budget, device: Device | None = None, headroom: float = HEADROOM) -> Limit:
    """What a budget comes to, on the device that is present, if there is one.

    Raises:
        ValueError: a share of a device that is not there; more than the device has; less than CUDA itself takes.
    """
    if budget.share is not None:
        if device is None:
            raise ValueError(f"{budget.text} is a share of the GPU that is present, and there is none: give 40GiB, or "
                             "the name of a card")  # fmt: skip
        size = int(budget.share * device.memory)
    else:
        assert budget.size is not None
        size = budget.size
    # A card's name stands for that card, wherever this runs; a plain size is one of the device that is here.
    if device is not None and budget.card is None and size > device.memory:
        raise ValueError(f"{budget.text} is more than {device.name} has: {device.memory / GIB:.2f} GiB")
    if size <= CONTEXT:
        raise ValueError(f"{budget.text} is no budget: CUDA itself takes {CONTEXT / 2**20:.0f} MiB of it")
    if budget.card is not None:
        device = budget.card.device
    elif device is None:
        device = replace(cards.USUAL_CARD.device, memory=size)
    return Limit(budget.text, size, device, CONTEXT, headroom)


def resolve_budgets(text: str, device: Device | None = None, headroom: float = HEADROOM) -> list[Limit]:
    """What budgets with commas between them come to; the first one decides, the others are told beside it.

    Of nothing: the device that is present; without one all named cards, the largest first.

    Raises:
        ValueError: as `parse_budgets` and `resolve_budget`.
    """
    budgets = parse_budgets(text)
    if not budgets and device is not None:
        budgets = [Budget(device.name, size=device.memory)]
    elif not budgets:
        named = sorted(cards.CARDS.values(), key=lambda card: -card.usable)
        budgets = [Budget(card.name, size=card.usable, card=card) for card in named]
    return [resolve_budget(one, device, headroom) for one in budgets]
