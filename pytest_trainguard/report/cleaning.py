"""Text of trainers as it may be shown: what a terminal would have obeyed is taken out, and what is too long is cut."""

from __future__ import annotations

import re

from markupsafe import Markup

from pytest_trainguard.printing import strip_escapes

LONGEST = 6000  # characters of one text; of a longer one the middle is left out
LINK = re.compile(r"\[([^\]]+)\]\([^)\s]+\)")


def clean(value: object) -> object:
    """A text without what a terminal would have obeyed, and short enough to be read; anything else as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):  # the latter was put together from what is clean
        return value
    return clean_text(value)


def clean_text(value: str) -> str:
    """A text without what a terminal would have obeyed, and short enough to be read."""
    text = strip_escapes(value)
    left_out = len(text) - LONGEST
    if left_out <= 0:
        return text
    return f"{text[: LONGEST // 2]}\n… {left_out} characters left out …\n{text[-LONGEST // 2 :]}"


def unlink(markdown: str) -> str:
    """Markdown whose links are their words: where it is shown, what they lead to is not."""
    return LINK.sub(r"\1", markdown)
