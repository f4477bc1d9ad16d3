"""The Python blocks of the guides: found in their Markdown, and run, each in a process of its own.

    python -m tests.guide_blocks RESULTS

imports what the blocks import once, forks for each block, and writes the tracebacks of those that fail to RESULTS.
"""

import ast
import contextlib
import gc
import importlib
import json
import os
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import NamedTuple

GUIDES = Path(__file__).parent.parent / "edge_cases" / "guides"
NAME = "guide"  # what a block is called to itself, so that warnings about its own code are known


class Block(NamedTuple):
    """One block: the guide's file, the line of its first line of code, and the code."""

    path: Path
    line: int
    code: str

    @property
    def place(self):
        return f"{self.path.name}:{self.line}"


def blocks_of(path):
    """The Python blocks of a Markdown file, in order."""
    found, start = [], None
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, text in enumerate(lines, 1):
        if text.startswith("```"):
            if start is not None:
                found.append(Block(path, start, "\n".join(lines[start - 1 : number - 1]) + "\n"))
            start = number + 1 if start is None and text == "```python" else None
    return found


def modules_of(block):
    """The modules that a block imports at its top."""
    with contextlib.suppress(SyntaxError):  # running it tells
        for node in ast.parse(block.code).body:
            if isinstance(node, ast.Import):
                yield from ((alias.name, None) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((node.module, alias.name) for alias in node.names)


def import_all(blocks):
    """Import what the blocks import, so that each of them need not; what cannot be imported they tell themselves."""
    for module, name in dict.fromkeys(pair for block in blocks for pair in modules_of(block)):
        with contextlib.suppress(ImportError, AttributeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            getattr(importlib.import_module(module), name or "__name__")
    if "torch" in sys.modules:
        importlib.import_module("torch._dynamo")  # the first optimizer imports it
    gc.freeze()  # a fork that collects garbage would copy all of it


def run(block):
    """Run a block; a warning about its own code fails it."""
    code = compile("\n" * (block.line - 1) + block.code, str(block.path), "exec")
    warnings.filterwarnings("error", module=NAME)
    exec(code, {"__name__": NAME})


def failure_of(block):
    """Run a block in a fork, its current directory an empty one; the traceback, or None."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "told")
        work = Path(folder, "work")
        work.mkdir()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.chdir(work)
                run(block)
                code = 0
            except BaseException:
                told.write_text(traceback.format_exc(), encoding="utf-8")
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if ended == 0:
            return None
        return told.read_text(encoding="utf-8") if told.exists() else f"ended with exit code {ended}"


def main(results):
    """Run all blocks of all guides."""
    blocks = [block for path in sorted(GUIDES.glob("*.md")) for block in blocks_of(path)]
    import_all(blocks)
    failures = {block.place: failure_of(block) for block in blocks}
    Path(results).write_text(json.dumps(failures), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
