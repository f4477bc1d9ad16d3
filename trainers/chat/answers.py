"""What generated answers are worth: how many are right to the letter, and whether they say anything at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

MARKER = re.compile(r"</?[A-Za-z|][^<>\s]{0,40}>|\[/?[A-Z]{2,}\]")
"""``<think>``, ``</tool>``, ``<|im_start|>``, ``[INST]``: what belongs to a format and not to an answer."""
EVERY = 0.9
"""Share of the answers that is as good as all."""


def judge(answers: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """Hold answers against what they should have been.

    Args:
        answers: at least one.
        references: as many.

    Returns:
        ``exact_match`` (share of answers equal to their reference, white space at the ends aside);
        ``degenerate`` (share of the answers that are empty, carry a marker that no reference has, or are the one
        answer that is given to every question although the references differ); ``flags``: ``degenerate_output``
        where that is 0.9 or more, ``zero_accuracy`` where no answer is right; ``marker``: what they all carry.
    """
    answers = [answer.strip() for answer in answers]
    right = sum(answer == reference.strip() for answer, reference in zip(answers, references, strict=True))
    share, marker = _degenerate(answers, references)
    flags = ["degenerate_output"] * (share >= EVERY) + ["zero_accuracy"] * (right == 0)
    return {
        "exact_match": right / len(answers),
        "degenerate": share,
        "flags": flags,
        "marker": marker if share >= EVERY else None,
    }


def _degenerate(answers: Sequence[str], references: Sequence[str]) -> tuple[float, str | None]:
    """The share of the answers that say nothing in the same way, and that way."""
    ways: Counter[str] = Counter()
    allowed = {marker for reference in references for marker in MARKER.findall(reference)}
    for answer in answers:
        ways.update({marker for marker in MARKER.findall(answer) if marker not in allowed} if answer else {"nothing"})
    answer, times = Counter(answers).most_common(1)[0]
    if times >= EVERY * len(answers) and len(answers) > 1 and answer and len(set(references)) > 1:
        ways[repr(answer)] = max(times, ways[repr(answer)])
    if not ways:
        return 0.0, None
    marker, count = ways.most_common(1)[0]
    return count / len(answers), marker


def describe_flags(scores: dict[str, Any]) -> list[str]:
    """The flags of `judge` as warnings for people, each beginning with the flag's name."""
    words = {
        "degenerate_output": f"{scores['degenerate']:.0%} of the answers carry {scores['marker']}",
        "zero_accuracy": "no generated answer is right",
    }
    return [f"{flag}: {words[flag]}" for flag in scores["flags"]]
