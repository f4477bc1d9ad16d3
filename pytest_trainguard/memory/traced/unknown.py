"""What ends a trace: something that cannot be known without a GPU."""

from __future__ import annotations


class Unknown(Exception):
    """Something that decides memory cannot be known without a GPU; the message names the operation."""
