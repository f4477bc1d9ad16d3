"""The documents as programs: the blocks of a page are written and run, in order, in a project of its own."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```(?P<language>[\w-]*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<body>.*?)^```$", re.M | re.S)
PROMPT = "$ "
EXIT_CODE = "echo $?"
LIMIT = 300  # seconds for one command, on a machine that does other things too

# What cannot run here: how such a command begins, and why.
NOT_RUN = {
    "python -m venv": "the tests' own environment stands for it",
    "pip install": "needs a package index",
    "pre-commit": "fetches the hooks from the repository's address, which is a placeholder",
    "sbatch": "needs SLURM; the scripts that it is given are checked",
    "make": "of the repository, not of the page's project",
    "python -m benchmarks": "of the repository, and needs a GPU",
}


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    title: str | None
    body: str


def read_blocks(page):
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    blocks = [Block(found["language"], found["title"], found["body"]) for found in FENCE.finditer(text)]
    assert len(blocks) == len(re.findall(r"^ *```", text, re.M)) / 2, f"{page}: a block of another form"
    return blocks


def read_commands(block):
    """Each command of a console block, with the lines of output that are shown below it."""
    commands = []
    for line in block.body.splitlines():
        if line.startswith(PROMPT):
            commands.append((line.removeprefix(PROMPT), []))
        else:
            commands[-1][1].append(line)
    return commands


def list_extras():
    """The extras that the package can be installed with."""
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"])


class PageProject:
    """The project that a page builds in a folder: its files are written, its changes made, its commands run.

    Attributes:
        not_run: the commands that were left out.
        outputs: what the others printed, in order.
    """

    def __init__(self, folder):
        self.folder, self.not_run, self.outputs = folder, [], []

    def follow(self, blocks):
        """Do what the blocks say, in order."""
        for block in blocks:
            getattr(self, f"_{block.language}")(block)

    def _write(self, block):
        path = self.folder / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.body, encoding="utf-8")

    def _python(self, block):
        self._write(block)
        compile(block.body, block.title, "exec")

    def _toml(self, block):
        self._write(block)
        tomllib.loads(block.body)

    def _yaml(self, block):
        self._write(block)
        yaml.safe_load(block.body)

    def _jsonl(self, block):
        self._write(block)
        [json.loads(line) for line in block.body.splitlines()]

    def _bash(self, block):
        self._write(block)
        subprocess.run(["bash", "-n", self.folder / block.title], check=True)

    def _diff(self, block):
        lines = block.body.splitlines()
        old = "".join(line[1:] + "\n" for line in lines if not line.startswith("+"))
        new = "".join(line[1:] + "\n" for line in lines if not line.startswith("-"))
        path = self.folder / block.title
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{block.title} does not have this just once:\n{old}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def _console(self, block):
        commands = read_commands(block)
        for (command, shown), (following, code) in zip(commands, [*commands[1:], ("", [])], strict=True):
            if any(command.startswith(start) for start in NOT_RUN):
                self.not_run.append(command)
            elif command != EXIT_CODE:
                self._run(command, shown, code if following == EXIT_CODE else [str(expect_code(shown))])

    def _run(self, command, shown, code):
        found, output = run(command, self.folder)
        self.outputs.append(output)
        told = f"$ {command}\nexit {found}\n{output}"
        assert [str(found)] == code, told
        missing = find_missing(shown, output)
        assert missing is None, f"the page shows {missing!r}, but:\n{told}"


def expect_code(shown):
    """The exit code that a command with this output ends with, where the page does not tell it."""
    return int(any(line.startswith("NO-GO") for line in shown))


def run(command, folder):
    """Run a command as a shell does; its exit code and what it printed."""
    own = ("PYTEST_", "COV_CORE")
    env = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    env["PYTEST_ADDOPTS"] = "-p no:cacheprovider"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def find_missing(shown, output):
    """The first line that a page shows and a command did not print there; None where all are right.

    `...` stands for any text in a line, and alone for any number of lines. What is shown may begin and end anywhere.
    """
    lines = iter([line.rstrip() for line in output.splitlines()])
    anywhere = True
    for wanted in shown:
        if wanted.strip() == "...":
            anywhere = True
            continue
        pattern = re.compile(re.escape(wanted.rstrip()).replace(r"\.\.\.", ".*"))
        passed = lines if anywhere else [next(lines, "")]
        if not any(pattern.fullmatch(line) for line in passed):
            return wanted
        anywhere = False
    return None
