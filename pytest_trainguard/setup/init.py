"""`pytest --trainguard-init [PROGRAM]`: a program's table is written; nothing is asked, nothing overwritten.

Its source is read, and it is asked for its `--help`, held as runs are; nothing is trained.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_trainguard.adapters.help_text import read_help
from pytest_trainguard.adapters.known import HELP, faults_in_known, read_known
from pytest_trainguard.adapters.tables import faults_in
from pytest_trainguard.contract.nearest import did_you_mean
from pytest_trainguard.contract.settings import Field
from pytest_trainguard.setup import arguments, classes, scan
from pytest_trainguard.setup.sources import Source, read_source
from pytest_trainguard.setup.table import FILE, Line, append, format_table, read_names

MOST_OTHERS = 5  # programs that are named beside the one that is taken
Ask = Callable[[str], tuple[int, str]]  # asks a command for its `--help`: exit code, and what it printed


class SetUpError(Exception):
    """Nothing can be written; the message says why, in one line or one block."""


@dataclass(frozen=True)
class Program:
    """What is to be adopted.

    Attributes:
        command: the words that start it, without arguments.
        source: what its file says; None where that is not known.
        others: further programs that train, from the root.
    """

    command: str
    source: Source | None
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """What is to be put down.

    Attributes:
        name: of the trainer.
        lines: of its table.
        notes: at the table's head.
        by_hand: what is still to be done by hand, a line each.
        new_file: a file to be made beside it, with its text; None where the table says it all.
    """

    name: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    by_hand: tuple[str, ...] = ()
    new_file: tuple[Path, str] | None = None


def initialize(root: Path, given: str, ask: Ask, taken: Sequence[str] = ()) -> list[str]:
    """Write the table of a program; what is to be printed of it.

    Args:
        root: the project's.
        given: the program: a path, a module, or a whole command; empty for the likely one.
        ask: asks a command for its help.
        taken: names of trainers that there are, beside those that have a table.

    Raises:
        SetUpError: nothing was written.
    """
    files = scan.list_files(root)
    program = choose_program(root, given, files)
    name = _name_of(program)
    try:
        there = [*read_names(root / FILE), *taken]
    except (OSError, ValueError) as error:
        raise SetUpError(f"{FILE}: {error}") from None
    if name in there:
        raise SetUpError(
            f"{FILE}: a trainer {name!r} is there already, and nothing is overwritten: see it with "
            f"pytest --trainguard-doctor --trainer {name}"
        )
    made = describe(root, program, name, files, ask)
    if made.new_file is not None and made.new_file[0].exists():
        raise SetUpError(f"{made.new_file[0].name} is there already, and nothing is overwritten: remove or rename it")
    try:
        append(root / FILE, format_table(made.name, made.lines, made.notes))
    except (OSError, ValueError) as error:
        raise SetUpError(str(error)) from None
    if made.new_file is not None:
        made.new_file[0].write_text(made.new_file[1], encoding="utf-8")
    return _tell(root, made, program)


def choose_program(root: Path, given: str, files: Sequence[Path]) -> Program:
    """The program that was named, or the one that most looks like a training.

    Raises:
        SetUpError: there is none.
    """
    programs = scan.find_programs(files)
    shown = [source.path.relative_to(root).as_posix() for source in programs]
    if not given:
        if not programs:
            raise SetUpError("no program that trains was found: name it, pytest --trainguard-init train.py")
        return Program(f"python {shlex.quote(shown[0])}", programs[0], tuple(shown[1:]))
    path = root / given
    if given.endswith(".py") or path.is_file():
        if not path.is_file():
            raise SetUpError(f"{given}: no such program{did_you_mean(given, shown)}")
        source = read_source(path)
        if source is None and given.endswith(".py"):
            raise SetUpError(f"{given}: cannot be read as Python")
        starts = f"python {shlex.quote(given)}" if given.endswith(".py") else shlex.quote(f"./{given}")
        return Program(starts, source)
    module = root / Path(*given.split("."))
    for file in (module.with_suffix(".py"), module / "__main__.py"):
        if re.fullmatch(r"[\w.]+", given) and file.is_file():
            return Program(f"python -m {given}", read_source(file))
    try:
        words = shlex.split(given)
    except ValueError as error:
        raise SetUpError(f"{given}: cannot be split into words: {error}") from None
    if not words or (len(words) == 1 and shutil.which(words[0]) is None):
        raise SetUpError(f"{given}: no such program{did_you_mean(given, shown)}")
    named = next((root / word for word in words if word.endswith(".py") and (root / word).is_file()), None)
    return Program(given, read_source(named) if named else None)


def _name_of(program: Program) -> str:
    """The name of a trainer: that of its file, else of its program."""
    stem = program.source.path.stem if program.source is not None else Path(shlex.split(program.command)[0]).stem
    if stem == "__main__" and program.source is not None:
        stem = program.source.path.parent.name
    return re.sub(r"[^A-Za-z0-9_-]", "_", stem) or "trainer"


def describe(root: Path, program: Program, name: str, files: Sequence[Path], ask: Ask) -> Written:
    """What a program's table says.

    Raises:
        SetUpError: it can be started neither by a command nor from Python, or its `--help` fails.
    """
    source = program.source
    if source is not None and source.parser == "sys.argv":
        return _by_words(root, program, name, files)
    if source is not None and not source.parser:
        return _by_class(root, source, name, files)
    command = f"{program.command} fit" if source is not None and source.parser == "LightningCLI" else program.command
    code, text = ask(command)
    told = read_help(text)
    positional = arguments.read_positional(text)
    if not (told.options or told.fields or positional):
        ended = "" if code == 0 else f" (exit {code})"
        last = "\n".join(f"    {line.rstrip()}" for line in text.strip().splitlines()[-3:])
        raise SetUpError(f"{command} --help{ended} tells of no option:\n{last or '    it printed nothing'}")
    default = next((one.default for one in source.declared if one.name == "config"), None) if source else None
    config = scan.find_settings_file(root, files, default)
    found = arguments.find_arguments(told, positional, source, config is not None)
    fields = arguments.with_declared(found.spare, source)
    sample = _find_sample(root, files, source, fields, told.fields)
    lines = list(_lines_of(root, command, found, fields, config, sample, hydra=bool(told.fields)))
    table = {line.key: line.value for line in lines}
    by_hand = _by_hand(found, table)
    wrong = faults_in(table, root) if not by_hand else None
    if not wrong and not by_hand and "{settings}" in str(table["command"]):
        wrong = faults_in_known({**table, HELP: text}, read_known({**table, HELP: text}, root))
    if wrong:
        by_hand = (*by_hand, wrong)
    return Written(name, tuple(lines), _notes(source), by_hand)


def _notes(source: Source | None) -> tuple[str, ...]:
    if source is None:
        return ()
    trains = f", trains with {source.trains}" if source.trains else ""
    imports = f", imports {', '.join(source.frameworks)}" if source.frameworks else ""
    reads = f"reads its arguments with {source.parser}" if source.parser else "takes no arguments"
    return (f"{source.path.name}: {reads}{trains}{imports}",)


def _lines_of(
    root: Path, command: str, found: arguments.Found, fields: Sequence[Field], config: Path | None,
    sample: Path | None, *, hydra: bool,
) -> list[Line]:  # fmt: skip
    words = list(found.words)
    if hydra and "output_dir" not in found.places:
        words.append("hydra.run.dir={output_dir}")
    if fields:
        words.append("{settings}")
    line = " ".join([command, *words])
    why = "how many steps an epoch has is counted in a run of one" if "epochs" in found.places else ""
    lines = [Line("command", line, "; ".join([why, *_without(words)] if why else _without(words)))]
    if "config" in found.places and config is not None:
        lines.append(Line("settings", config.as_posix(), "the settings file that it is started with"))
    if sample is not None and "data" in found.places:
        lines.append(Line("sample", sample.as_posix(), "real data, of which runs get a small piece"))
        label = scan.find_labels(root / sample)
        if label:
            lines.append(Line("labels", label, "the field of a row that is to be learnt"))
    if found.resume:
        lines.append(Line("resume", found.resume, "added on a resume alone"))
    known = {field.path: field.default for field in fields if _counts(field.default)}
    unsaid = {field.path for field in found.spare if field.kind == "other" and field.default is None}
    stated = {path: value for path, value in known.items() if path in unsaid}
    if stated:
        lines.append(Line("production", stated, "defaults of its source, which its --help does not tell"))
    small = arguments.small_values(fields)
    if small:
        lines.append(Line("tiny", small, "small enough for a CPU: the smaller, the faster"))
    return lines


def _without(words: Sequence[str]) -> list[str]:
    """What it means that a command has no place for its output folder, or for its number of steps; a sentence each."""
    told, line = [], " ".join(words)
    if "{output_dir}" not in line:
        told.append(
            "no option for its output folder: runs are started in folders of their own, the project linked there"
        )
    if "{max_steps}" not in line and "{epochs}" not in line:
        told.append("no option for its optimizer steps: only silent errors can be judged, until there is a {max_steps}")
    return told


def _counts(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _find_sample(
    root: Path, files: Sequence[Path], source: Source | None, fields: Sequence[Field], hydra: Sequence[Field]
) -> Path | None:
    """The data: what the program's own defaults name, then what its source names, then what lies in the project."""
    named = [one.default for one in source.declared] if source is not None else []
    named += [field.default for field in (*fields, *hydra)]
    texts = source.texts if source is not None else ()
    return scan.find_sample(root, files, [text for text in (*named, *texts) if isinstance(text, str)])


def _by_hand(found: arguments.Found, table: dict[str, object]) -> tuple[str, ...]:
    """What the table still lacks, and only the team can say."""
    lines = []
    lines += [f"command: it does not start without {name}: write what that is to be" for name in found.missing]
    if "data" in found.places and "sample" not in table:
        lines.append('sample: no data was found: name some, sample = "path/of/the/data"')
    return tuple(lines)


def _by_words(root: Path, program: Program, name: str, files: Sequence[Path]) -> Written:
    """The table of a program that reads `sys.argv` by itself."""
    assert program.source is not None
    found = arguments.find_arguments(read_help(""), program.source.words, program.source, has_settings_file=False)
    sample = _find_sample(root, files, program.source, (), ())
    lines = _lines_of(root, program.command, found, (), None, sample, hydra=False)
    by_hand = _by_hand(found, {line.key: line.value for line in lines})
    return Written(name, tuple(lines), _notes(program.source), by_hand)


def _by_class(root: Path, source: Source, name: str, files: Sequence[Path]) -> Written:
    """The class of a program without arguments, and the table that names it."""
    shown = source.path.relative_to(root).as_posix()
    adopted = classes.find_call(source)
    module = shown.removesuffix(".py").replace("/", ".")
    if adopted is None or not all(part.isidentifier() for part in module.split(".")):
        return _as_it_is(root, source, name, files)
    file = root / "preflight.py"
    if file.exists():
        file = root / f"preflight_{name}.py"
    class_name = "".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", name)) or "Program"
    sample = _find_sample(root, files, source, (), ())
    text = classes.format_class(adopted, class_name, module, sample, scan.find_labels(root / sample) if sample else "")
    line = Line("class", f"{file.stem}:{class_name}", f"{shown} takes no arguments: a class starts it")
    return Written(name, (line,), _notes(source), (), (file, text))


def _as_it_is(root: Path, source: Source, name: str, files: Sequence[Path]) -> Written:
    """The table of a program that can be told neither its output folder nor its number of steps."""
    words = ["python", shlex.quote(source.path.relative_to(root).as_posix())]
    lines = [Line("command", " ".join(words), "; ".join(_without(words)))]
    sample = _find_sample(root, files, source, (), ())
    if sample is not None:
        lines.append(Line("sample", sample.as_posix(), "runs find a small piece of it in its place"))
        label = scan.find_labels(root / sample)
        lines += [Line("labels", label, "the field of a row that is to be learnt")] if label else []
    return Written(name, tuple(lines), _notes(source))


def _tell(root: Path, made: Written, program: Program) -> list[str]:
    """What is printed: what was written, what is left to do, and the next command."""
    what = [f"[tool.trainguard.trainers.{made.name}] in {FILE}"]
    if made.new_file is not None:
        what.append(made.new_file[0].relative_to(root).as_posix())
    told = [f"wrote {' and '.join(what)}:", ""]
    told += [f"    {line}" for line in format_table(made.name, made.lines, made.notes).splitlines()]
    if made.new_file is not None:
        told += ["", *(f"    {line}" for line in made.new_file[1].splitlines())]
    told.append("")
    if program.others:
        more = f" and {len(program.others) - MOST_OTHERS} more" if len(program.others) > MOST_OTHERS else ""
        told += [f"other programs here that train: {', '.join(program.others[:MOST_OTHERS])}{more}"]
    if made.by_hand:
        told += ["by hand, before it can be run:", *(f"  - {line}" for line in made.by_hand)]
    told.append("next: pytest --trainguard-doctor    (what the harness makes of it), or pytest -m preflight")
    return told
