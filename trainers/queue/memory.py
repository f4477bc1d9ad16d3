"""How much memory is in use, of the GPUs and of the host: looked at before and after each file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple


class Use(NamedTuple):
    """Bytes in use and in all, of ``host`` or ``GPU 0``."""

    device: str
    used: int
    total: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.used / self.total if self.total else 0.0

    def __str__(self) -> str:
        """``GPU 0: 3.20 of 79.65 GiB in use``."""
        return f"{self.device}: {self.used / 2**30:.2f} of {self.total / 2**30:.2f} GiB in use"


def look() -> list[Use]:
    """The memory of each GPU that there is, else the host's; empty where neither can be told."""
    return list(_gpus()) or list(_host())


def described(uses: list[Use]) -> list[dict[str, Any]]:
    """For JSON."""
    return [use._asdict() for use in uses]


def still_in_use(before: list[Use], after: list[Use], limit: float) -> list[str]:
    """One line for each device of which more than ``limit`` is in use after a file."""
    earlier = {use.device: use for use in before}
    return [
        f"{use}, {use.share:.0%}, after the file's trainer has ended (before it: {earlier[use.device].share:.0%})"
        for use in after
        if use.share > limit and use.device in earlier
    ]


def _gpus() -> Iterator[Use]:
    try:
        import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]  # of nvidia-ml-py
    except ImportError:
        return
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            for number in range(pynvml.nvmlDeviceGetCount()):
                memory = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(number))
                yield Use(f"GPU {number}", int(memory.used), int(memory.total))
        finally:
            pynvml.nvmlShutdown()


def _host() -> Iterator[Use]:
    with contextlib.suppress(ImportError):
        import psutil

        memory = psutil.virtual_memory()
        yield Use("host", memory.total - memory.available, memory.total)
