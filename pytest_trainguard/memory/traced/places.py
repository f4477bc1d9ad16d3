"""Where in a program something happens, and whether an error there is the program's own or a limit of the tracing."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

_OWN = str(Path(__file__).parents[2])  # the folder of this package
_TORCH, _LIBRARIES = "/site-packages/torch/", "/site-packages/"
# Folders and files of torch that work out what an operation gives without running it, or wrap tensors for it.
_STAND_INS = tuple(
    f"{_TORCH}{name}"
    for name in (
        "_subclasses/", "_meta_registrations.py", "_decomp/", "_prims", "_refs/", "_functorch/", "_higher_order_ops/",
        "nested/", "fx/", "_dynamo/", "_inductor/",
    )
)  # fmt: skip
# What torch says of tensors that have no memory, no kernel, no device: never of a program that is wrong.
_WORDS = (
    "Cannot access storage", "Cannot access data pointer", "FakeTensor", "fake tensor", "data_ptr", "meta tensor",
    "Could not run 'aten::", "not compiled with CUDA", "not linked with support for cuda", "built in",
    "INTERNAL ASSERT FAILED", "not implemented for 'Meta'", "a kernel for CUDA", "SymInt", "shape_env",
    "Expected inputs of BF16 type", "HigherOrderOperator",
)  # fmt: skip


def find_current_place() -> str:
    """`train.py:41`: the innermost line at work that is the program's; else the innermost of a library but torch."""
    stack: list[tuple[str, int]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        stack.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return _choose(stack)


def find_place(error: BaseException) -> str:
    """The same of the line at which an error left the program."""
    stack = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return _choose(reversed(stack))


def _choose(stack: Iterable[tuple[str, int]]) -> str:
    """Of frames, the innermost first."""
    found = ""
    for path, line in stack:
        if path.startswith((_OWN, "<")) or _TORCH in path:
            continue
        place = f"{path.rpartition('/')[2]}:{line}"
        if _LIBRARIES not in path and "/lib/python" not in path:
            return place
        found = found or place
    return found or "the program"


def is_limit(error: BaseException) -> bool:
    """Whether an error comes of the tracing: what stands in for a GPU cannot do what a GPU can.

    Said in torch's own words; or raised where shapes are worked out, and not as an error about shapes and indices,
    which the program would meet on a GPU too.
    """
    if any(word in str(error) for word in _WORDS):
        return True
    frames = list(traceback.walk_tb(error.__traceback__))
    raised_in = frames[-1][0].f_code.co_filename if frames else ""
    stands_in = raised_in.startswith(_OWN) or any(name in raised_in for name in _STAND_INS)
    about_shapes = isinstance(error, RuntimeError | ValueError | IndexError) and not isinstance(
        error, NotImplementedError
    )
    return stands_in and not about_shapes
