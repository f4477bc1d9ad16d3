"""The memory prediction on other versions of torch: `make torch-versions`, or `python -m tests.torch_versions 2.6.0`.

Each version gets a virtual environment of its own, with the other packages as pinned, and is removed afterwards. Its
build with CUDA is gigabytes; it needs no GPU. Prints a table in Markdown; exit 1 where something failed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERSIONS = ("2.6.0", "2.15.0")  # the oldest that is supported and the newest: `OLDEST` and `NEWEST` of fakecuda.py
JOB = ("trainers.preflight:Transformer", "--gpu-budget", "40GiB", "--quick", "--json")  # RoBERTa-base 64 x 512 bf16


def main() -> int:
    """Try each version that is named, or the oldest and the newest."""
    rows = []
    for version in sys.argv[1:] or VERSIONS:
        folder = Path(tempfile.mkdtemp(prefix=f"torch-{version}-"))
        try:
            rows.append(_tried(version, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print("\n| torch | self-test | tests/memory | RoBERTa-base, 64 × 512, bf16: allocated | reserved | needs |")
    print("|---|---|---|---|---|---|")
    for _, row in rows:
        print("| " + " | ".join(row) + " |")
    return 0 if all(good for good, _ in rows) else 1


def _tried(version: str, folder: Path) -> tuple[bool, list[str]]:
    _say(f"installing torch {version} in {folder}")
    python = _installed(version, folder)
    if python is None:
        return False, [version, "cannot be installed", "", "", "", ""]
    _say(f"torch {version}: self-test")
    held = _run(python, "-m", "pytest_trainguard.memory.traced.selftest")
    _say(f"torch {version}: tests/memory")
    tests = _run(python, "-m", "pytest", "tests/memory", "-n", "2", "-q", "--tb=short")
    print(tests.stdout[-6000:] if tests.returncode else "", flush=True)
    _say(f"torch {version}: prediction")
    predicted = _run(python, "-m", "pytest_trainguard.memory", *JOB)
    sizes = json.loads(predicted.stdout) if predicted.stdout.startswith("{") else {}
    row = [
        version,
        _last(held.stdout) if held.returncode == 0 else f"fails: {_last(held.stderr)} (exit {held.returncode})",
        _last(tests.stdout),
        *(f"{sizes[name]:,}" if name in sizes else f"exit {predicted.returncode}"
          for name in ("allocated", "reserved", "needs")),
    ]  # fmt: skip
    return held.returncode == 0 and tests.returncode == 0 and bool(sizes), row


def _installed(version: str, folder: Path) -> Path | None:
    """A Python with this version of torch; None where pip refuses."""
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("torch==")]
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join([*pins, f"torch=={version}", ""]))
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check")
    alone = {**os.environ, "PIP_CONSTRAINT": os.devnull}  # one that pins another torch would rule here too
    for wanted in (("--upgrade", "pip>=25.1"), ("--constraint", constraints, "--editable", ".", "--group", "dev")):
        if subprocess.run([*pip, *wanted], cwd=ROOT, env=alone, check=False).returncode:
            return None
    return python


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False)


def _last(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1].strip("= ") if lines else "nothing said"


def _say(words: str) -> None:
    print(f"{words} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
