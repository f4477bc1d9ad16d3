"""Which static checker sees the post-mortem's two bugs and their relatives: the comparison behind cases 71, 72, 73, 76.

    python -m venv checkers && checkers/bin/pip install ruff ty basedpyright mypy pylint pyrefly
    python -m benchmarks.checkers checkers/bin

Each reads the examples of `tests/test_static.py` in one go, in a folder of its own, told to look for what is an error,
not for style. Counted are the files of `LEADS_TO` in which it says anything, and those of `SOUND` (false alarms).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from tests.test_static import LEADS_TO, SOUND

BUGS = {"used_before_assigned", "assigned_on_one_branch", "none_for_a_float"}  # the post-mortem's, a name and a type
UNBOUND = "possibly-used-before-assignment,used-before-assignment"
CHECKERS = {
    "ruff": ["check", "--isolated", "--no-cache", "--select", "F82,PLE", "--output-format", "concise"],
    "ty": ["check", "--output-format", "concise", "--no-progress", "--error", "possibly-unresolved-reference",
           "--error", "division-by-zero"],
    "pyrefly": ["check", "--preset", "default", "--output-format", "min-text"],
    "basedpyright": ["--level", "error"],
    "mypy": ["--no-incremental", "--check-untyped-defs", "--ignore-missing-imports", "--enable-error-code",
             "possibly-undefined"],
    "pylint": ["--disable=all", f"--enable=E,{UNBOUND}"],
}  # fmt: skip


def main() -> int:
    """Run those that are there, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkers")
    parser.add_argument("folder", type=Path, help="where their commands are")
    folder = parser.parse_args().folder.resolve()
    print(f"{'checker':<14} {'the bugs':>8} {'relatives':>9} {'alarms':>6} {'seconds':>7}  misses")
    for name, arguments in CHECKERS.items():
        if not (folder / name).exists():
            print(f"{name:<14} is not in {folder}")
            continue
        named, seconds = _named([str(folder / name), *arguments])
        missed, relatives = LEADS_TO.keys() - named, LEADS_TO.keys() - BUGS
        bugs, others = f"{len(BUGS & named)}/{len(BUGS)}", f"{len(relatives & named)}/{len(relatives)}"
        alarms = f"{len(named & SOUND.keys())}/{len(SOUND)}"
        print(f"{name:<14} {bugs:>8} {others:>9} {alarms:>6} {seconds:>7.1f}  {', '.join(sorted(missed))}", flush=True)
    return 0


def _named(command: list[str]) -> tuple[set[str], float]:
    """The examples that a checker says something of, and how long it took, cold."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = {**{example: source for example, (_, source) in LEADS_TO.items()}, **SOUND}
        for example, source in sources.items():
            (folder / f"{example}.py").write_text(textwrap.dedent(source))
        files = [f"{example}.py" for example in sources]
        began = time.perf_counter()
        done = subprocess.run([*command, *files], cwd=folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
    # That a library is not installed beside the checker says nothing of the source.
    passed_over = re.compile(r"missing-import|unresolved-import|import-not-found|MissingImports|import-error|: note:")
    said = [line for line in done.stdout.splitlines() if not passed_over.search(line)]
    return {example for example in sources if any(re.search(rf"\b{example}\.py:", line) for line in said)}, seconds


if __name__ == "__main__":
    sys.exit(main())
