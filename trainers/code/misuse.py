"""Variable misuse: real Python functions, each with a twin in which one variable use is the wrong variable.

The task is that of Allamanis et al. 2018 (https://arxiv.org/abs/1711.00740), as the whole-function
classification of Kanade et al. 2020 (https://arxiv.org/abs/2001.00059): label 0 is a function as its authors
wrote it, label 1 its twin.

A twin is made like this, and the same seed makes the same one. The *variables* of a function are its
arguments and the names that it assigns, without those it declares ``global`` or ``nonlocal``. A *use* is a
place in its body that reads a variable. One use is drawn, each with equal chance, and there another variable
of the function is written, each with equal chance. Names inside f-strings are left alone (Python before 3.12
does not tell where they stand). A function with fewer than two variables, or without a use, has no twin and
is left out.

To train on, a function has several twins, each another use or another wrong variable, and stands beside each
of them: what tells the two rows of such a pair apart is the misuse alone. To validate on, it has one.
"""

from __future__ import annotations

import ast
import hashlib
import os
import random
import sysconfig
import textwrap
import tokenize
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from trainers.code.rows import Row
from trainers.code.settings import INSTALLED, DataSettings
from trainers.common.errors import InputError, show
from trainers.common.process import Run
from trainers.common.rows import Split

NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "turtledemo"})
"""Folders of the standard library left out: other people's packages, tests, and files made to be odd."""
NEVER = frozenset({"__pycache__", "node_modules"})
SHORTEST_CODE = 40
"""Characters; a shorter function (a stub, a one-line getter) has nothing to tell right from wrong by."""


class Function(NamedTuple):
    """A function's code, dedented and without docstring; ``module`` is its file within the folder read."""

    module: str
    name: str
    code: str


class Paired(NamedTuple):
    """A function's code with its twins; ``module`` as in `Function`."""

    module: str
    code: str
    twins: list[str]


def standard_library() -> Path:
    """The folder of this Python's own library."""
    return Path(sysconfig.get_paths()["stdlib"])


def installed() -> Path:
    """The folder of the packages that are installed beside this Python."""
    return Path(sysconfig.get_paths()["purelib"])


def source_files(root: Path, without: frozenset[str] = frozenset()) -> list[Path]:
    """All Python files under ``root`` in a fixed order; no link is followed, so no walk is endless."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in without | NEVER and not name.startswith("."))
        found += [Path(folder, name) for name in sorted(names) if name.endswith(".py")]
    return found


def functions(path: Path, module: str) -> Iterator[Function]:
    """The outermost functions and methods of a file.

    Raises:
        OSError, SyntaxError, ValueError, RecursionError: the file cannot be read or is no Python of this
        version.
    """
    with tokenize.open(path) as file:  # knows coding lines; makes every line end in \n, as ast counts them
        source = file.read()
    lines = source.split("\n")
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield Function(module, node.name, _code(node, lines))
        else:
            waiting += ast.iter_child_nodes(node)


def _code(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> str:
    first, last = node.body[0], node.end_lineno or node.lineno
    kept = lines[node.lineno - 1 : last]
    if ast.get_docstring(node, clean=False) is not None and len(node.body) > 1:
        end = first.end_lineno or first.lineno
        if node.lineno < first.lineno and end < node.body[1].lineno:  # on lines of its own
            kept = lines[node.lineno - 1 : first.lineno - 1] + lines[end:last]
    code = textwrap.dedent("\n".join(kept)) + "\n"
    try:
        ast.parse(code)
    except SyntaxError:  # text in triple quotes that stands further left than the function
        code = ast.unparse(node) + "\n"
    return code


def twins(code: str, seed: int, most: int) -> list[str]:
    """``code`` with one variable use replaced by another of its variables, in up to ``most`` different ways.

    None where that cannot be. The first of many is that of ``most`` = 1.

    Raises:
        SyntaxError: ``code`` is no Python.
    """
    function = ast.parse(code).body[0]
    if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return []
    names = variables(function)
    in_text = {id(name) for node in ast.walk(function) if isinstance(node, ast.JoinedStr) for name in ast.walk(node)}
    uses = [
        node
        for statement in function.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Load)
        and node.id in names
        and id(node) not in in_text
    ]
    replaced = [(use, wrong) for use in uses for wrong in sorted(names - {use.id})]
    random.Random(f"{seed}:{code}").shuffle(replaced)
    return [_replace(code, use, wrong) for use, wrong in replaced[:most]]


def _replace(code: str, use: ast.Name, wrong: str) -> str:
    lines = code.split("\n")
    line = lines[use.lineno - 1].encode("utf-8")  # ast counts columns in UTF-8 bytes
    line = line[: use.col_offset] + wrong.encode("utf-8") + line[use.end_col_offset :]
    lines[use.lineno - 1] = line.decode("utf-8")
    return "\n".join(lines)


def variables(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """The names that a function binds as arguments or by assignment, with what is nested in it."""
    names: set[str] = set()
    elsewhere: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            elsewhere.update(node.names)
    return names - elsewhere


class Corpus:
    """Functions with their twins, in memory, split by module: no file has rows on both sides.

    A function that stands in several modules is taken once, from the first. Both rows of a pair follow each
    other: the function, then its twin.
    """

    together = 2
    """A pair stays together in an epoch's order, and so, at an even batch size, in one batch."""

    def __init__(
        self,
        root: Path | None = None,
        *,
        seed: int,
        validation_fraction: float,
        longest: int | None = None,
        twins_each: int = 1,
        more: Path | None = None,
        progress: Callable[[list[Path]], Iterable[Path]] = iter,
    ) -> None:
        """Read all of a folder.

        Args:
            root: folder of Python source; the standard library if left out.
            seed: decides the twins and the split.
            validation_fraction: share of the modules that is held out, about.
            longest: characters of a function's code; longer functions are left out. None: there is no limit.
            twins_each: pairs of a training function, at most; one that is held out has one.
            more: another folder, whose functions are trained on as well; none of them is held out, and none that
                stands in ``root`` is taken again. Its tests are left out.
            progress: wraps the list of files, to show a progress bar.

        Raises:
            InputError: no function in ``root`` is short enough and has a twin.
        """
        self.unparsed: list[str] = []
        """Files that are no Python of this version, each with the reason."""
        self.without_twin = 0
        self.too_long = 0
        self.duplicates = 0
        self._seed, self._longest, self._twins_each = seed, longest, twins_each
        self._seen: set[str] = set()
        base = root or standard_library()
        files = source_files(base) if root else source_files(base, NOT_LIBRARY)
        pairs = list(self._pairs(progress(files), base))
        if not pairs:
            limit = "" if longest is None else f" and at most {longest} characters"
            raise InputError(
                f"data {show(base)}: no Python function with two variables{limit} in {len(files)} Python files"
            )
        held_out = set(split_by_module([pair.module for pair in pairs], validation_fraction, seed).validation)
        if more is not None:
            pairs += self._pairs(progress(source_files(more, NOT_LIBRARY)), more)
        self.rows: list[Row] = []
        self.split = Split([], [])
        for index, pair in enumerate(pairs):
            begin = len(self.rows)
            for other in pair.twins[:1] if index in held_out else pair.twins:
                self.rows += [Row(pair.code, 0), Row(other, 1)]
            side = self.split.validation if index in held_out else self.split.train
            side += range(begin, len(self.rows))
        self.fingerprint = hashlib.sha256(repr(self.rows).encode("utf-8", "backslashreplace")).hexdigest()

    def _pairs(self, files: Iterable[Path], base: Path) -> Iterator[Paired]:
        """The functions in files that have twins and did not come before."""
        for path in files:
            module = path.relative_to(base).as_posix()
            try:
                found = list(functions(path, module))
            except (OSError, SyntaxError, ValueError, RecursionError) as error:
                self.unparsed.append(f"{show(module)}: {error}")
                continue
            for code in (function.code for function in found):
                if self._longest is not None and len(code) > self._longest:
                    self.too_long += 1
                    continue
                wrong = twins(code, self._seed, self._twins_each) if len(code) >= SHORTEST_CODE else []
                if not wrong:
                    self.without_twin += 1
                elif code in self._seen or not self._seen.isdisjoint(wrong):
                    self.duplicates += 1
                else:
                    self._seen.update([code, *wrong])
                    yield Paired(module, code, wrong)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        """One row."""
        return self.rows[index]

    def label(self, index: int) -> int:
        """A row's label."""
        return self.rows[index].label

    def size(self, index: int) -> int:
        """The characters of a row's code."""
        return len(self.rows[index].code)


def split_by_module(modules: list[str], fraction: float, seed: int) -> Split:
    """Hold out about ``fraction`` of the modules; of two or more, at least one each side (none for 0)."""

    def chance(module: str) -> float:
        text = f"{seed}:{module}".encode("utf-8", "surrogateescape")
        return int.from_bytes(hashlib.sha256(text).digest()[:7], "big") / 2**56

    ranked = sorted(set(modules), key=chance)
    share = sum(chance(module) < fraction for module in ranked)
    if fraction and len(ranked) > 1:
        share = min(max(share, 1), len(ranked) - 1)
    held_out = set(ranked[:share])
    return Split(
        [index for index, module in enumerate(modules) if module not in held_out],
        [index for index, module in enumerate(modules) if module in held_out],
    )


def open_corpus(run: Run, root: Path | None, chosen: DataSettings) -> Corpus:
    """Rows made from Python source; ``run`` is told what was left out. See `Corpus`."""
    from tqdm import tqdm

    more = installed() if chosen.more_code == INSTALLED else chosen.more_code and Path(chosen.more_code)
    if more and not more.is_dir():
        raise InputError(f"more_code = {chosen.more_code!r}: no such folder")
    corpus = Corpus(
        root,
        seed=chosen.data_seed,
        validation_fraction=chosen.validation_fraction,
        longest=chosen.longest_function,
        twins_each=chosen.twins,
        more=more or None,
        progress=lambda paths: tqdm(paths, desc="reading Python", unit="file", disable=None),
    )
    for fault in corpus.unparsed:
        run.say(f"not parsed: {fault}")
    run.say(
        f"{corpus.without_twin} functions have no twin, {corpus.too_long} are longer than "
        f"{chosen.longest_function} characters, {corpus.duplicates} came before; "
        f"{len(corpus.unparsed)} files were not parsed"
    )
    return corpus
