"""Sizes in bytes, as people read them and as torch writes them."""

from __future__ import annotations

KIB, MIB, GIB = 2**10, 2**20, 2**30


def format_size(size: int) -> str:
    """Bytes as people read them: `13.93 GiB`, `430 MiB`, `96 bytes`."""
    if size >= GIB // 2:
        return f"{size / GIB:.2f} GiB"
    if size >= MIB:
        return f"{size / MIB:.3g} MiB"
    return f"{size / KIB:.3g} KiB" if size >= KIB else f"{size} bytes"


def format_size_like_torch(size: int) -> str:
    """Bytes as torch writes them: `2.00 GiB`, `913.41 MiB`, `4.00 KiB`, `96 bytes`."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}"
    return f"{size} bytes"
