"""The plugin on the oldest pytest and the newest, beside common plugins: `make pytest-versions`, or `python -m
tests.pytest_versions 8.4.*`.

Each version gets a virtual environment of its own with those plugins; everything else, torch above all, it finds in the
environment that runs this. Prints a table in Markdown; exit 1 where something failed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERSIONS = ("8.2.*", "9.*")  # the oldest that is supported, and the newest
NEIGHBOURS = tuple(
    f"pytest-{name}"
    for name in ("randomly", "rerunfailures", "timeout", "cov", "sugar", "html", "asyncio", "forked", "socket", "xdist")
)
# All that concerns neighbours, and a preflight with all that pytest makes of it: verdicts, JUnit, workers, --lf.
TESTS = ("tests/test_neighbours.py", "tests/test_printing.py", "tests/test_plugin.py")
LEFT_OUT = (
    # pytest-randomly gives every session an order of its own, and imports numpy.
    "tests/test_plugin.py::test_plain_pytest_never_runs_it",
    "tests/test_plugin.py::test_preflight_is_every_trainer_with_every_case",
    "tests/test_plugin.py::test_a_printed_id_selects_its_case",
    "tests/test_plugin.py::test_catalogue_imports_no_torch",
)


def main() -> int:
    """Try each version that is named, or the oldest and the newest."""
    rows = []
    for version in sys.argv[1:] or VERSIONS:
        with tempfile.TemporaryDirectory(prefix="pytest-versions-") as folder:
            rows.append(_tried(version, Path(folder)))
    print("\n| pytest | outcome |\n|---|---|")
    for _, row in rows:
        print("| " + " | ".join(row) + " |")
    return 0 if all(good for good, _ in rows) else 1


def _tried(version: str, folder: Path) -> tuple[bool, list[str]]:
    print(f"installing pytest {version} ...", file=sys.stderr, flush=True)
    python = _installed(version, folder / "venv")
    if python is None:
        return False, [version, "cannot be installed with these plugins"]
    found = _run(python, "-c", "import pytest; print(pytest.__version__)").stdout.strip()
    print(f"pytest {found}: {' '.join(TESTS)} ...", file=sys.stderr, flush=True)
    options = ["-q", "--tb=short", "-p", "no:cacheprovider", *(f"--deselect={name}" for name in LEFT_OUT)]
    # A neighbour's own warnings, which are errors in this project, are not what is tried here; other sessions of pytest
    # on this machine clear up the usual folder for temporary files.
    options += ["-o", "filterwarnings=", f"--basetemp={folder / 'tmp'}"]
    done = _run(python, "-m", "pytest", *TESTS, *options)
    print(done.stdout[-6000:] if done.returncode else "", flush=True)
    told = re.findall(r"\d+ (?:passed|failed|skipped|errors?|xfailed)", done.stdout)
    outcome = f"exit {done.returncode}: {', '.join(told[-4:]) or 'nothing said'}"
    return done.returncode == 0, [found or version, outcome]


def _installed(version: str, folder: Path) -> Path | None:
    """A Python with this version of pytest and the plugins; None where pip refuses."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    alone = {**os.environ, "PIP_CONSTRAINT": os.devnull}  # one that pins another pytest would rule here too
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    if subprocess.run([*pip, f"pytest=={version}", *NEIGHBOURS], env=alone, check=False).returncode:
        return None
    # Its own packages stand before those of the environment that runs this.
    own = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    (own / "others.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return python


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    told = [str(part) for part in command]
    return subprocess.run(told, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
