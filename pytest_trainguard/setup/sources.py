"""What a program's source says before it is run: whether it trains, and how it takes its arguments.

Only the syntax tree is looked at: nothing is imported.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

LARGEST = 1 << 20  # bytes of a source that is read
# How a program reads its command line, by what it calls or is decorated with; the first that is found counts.
PARSERS = {
    "LightningCLI": "LightningCLI",
    "HfArgumentParser": "HfArgumentParser",
    "ArgumentParser": "argparse",
    "hydra.main": "Hydra",
    "click.command": "click",
    "Typer": "typer",
    "typer.run": "typer",
    "app.run": "absl",
    "fire.Fire": "fire",
    "tyro.cli": "tyro",
}
FRAMEWORKS = ("torch", "transformers", "accelerate", "lightning", "pytorch_lightning", "trl", "sentence_transformers")
_DECLARING = ("add_argument", "option", "Option")
_TYPES = {"int": "int", "float": "float", "str": "str", "Path": "path", "pathlib.Path": "path"}


@dataclass(frozen=True)
class Declared:
    """An option as the source declares it: `add_argument("--lr", type=float, default=0.1)`.

    Attributes:
        name: of its setting, the longest of its names.
        kind: `int`, `float`, `str`, `path`; empty where the source does not say it in these words.
        default: a number, a text or a truth value; None where there is none, or where it is no literal.
        required: the program does not start without it.
        positional: it has no hyphens.
    """

    name: str
    kind: str = ""
    default: object = None
    required: bool = False
    positional: bool = False


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function, or a constant of the module.

    Attributes:
        name: its name.
        annotation: as it is written; empty where there is none.
        default: where it is a literal.
        required: it has no default.
    """

    name: str
    annotation: str = ""
    default: object = None
    required: bool = False


@dataclass(frozen=True)
class Source:
    """What one file says.

    Attributes:
        path: the file.
        parser: what reads the command line, of `PARSERS`, or `sys.argv`; empty where nothing does.
        trains: why it looks like a program that trains, in a few words; empty where it does not.
        guarded: it does its work below `if __name__ == "__main__"` alone.
        frameworks: of `FRAMEWORKS` those that it imports.
        declared: the options of its command line.
        words: what is read from `sys.argv`, in order.
        functions: of the module, with their parameters.
        constants: of the module.
        classes: dataclasses and pydantic models of the module.
        texts: short literals, which may name files.
        names: every name and attribute that is made use of.
    """

    path: Path
    parser: str = ""
    trains: str = ""
    guarded: bool = False
    frameworks: tuple[str, ...] = ()
    declared: tuple[Declared, ...] = ()
    words: tuple[str, ...] = ()
    functions: dict[str, tuple[Parameter, ...]] = field(default_factory=dict)
    constants: tuple[Parameter, ...] = ()
    classes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    names: frozenset[str] = frozenset()

    def declaration(self, name: str) -> Declared | None:
        """How the source declares an option; None where it does not."""
        return next((one for one in self.declared if one.name == name), None)


def read_source(path: Path) -> Source | None:
    """What a file says; None where it cannot be read, or is no Python.

    Args:
        path: the file.
    """
    try:
        if path.stat().st_size > LARGEST:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {_dotted(call.func) for call in calls}
    decorated = {
        _dotted(one.func if isinstance(one, ast.Call) else one)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for one in node.decorator_list
    }
    words = _words_of_argv(tree)
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return Source(
        path=path,
        parser=_find_parser(called | decorated) or ("sys.argv" if words else ""),
        trains=_find_training(tree, calls),
        guarded=any(_is_guard(node) for node in tree.body),
        frameworks=tuple(name for name in FRAMEWORKS if name in _imported(tree)),
        declared=tuple(_declared(calls)),
        words=words,
        functions={node.name: _parameters(node) for node in tree.body if isinstance(node, ast.FunctionDef)},
        constants=tuple(_constants(tree)),
        classes=tuple(node.name for node in tree.body if isinstance(node, ast.ClassDef) and _holds_settings(node)),
        texts=tuple(_texts(tree)),
        names=frozenset(names),
    )


def _dotted(node: ast.AST) -> str:
    """A name as it is written, `torch.optim.AdamW`; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else node.attr
    return ""


def _find_parser(called: set[str]) -> str:
    for name, parser in PARSERS.items():
        if any(one == name or one.endswith(f".{name}") for one in called):
            return parser
    return ""


def _imported(tree: ast.Module) -> set[str]:
    """The first parts of all modules that are imported, anywhere in the file."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _find_training(tree: ast.Module, calls: list[ast.Call]) -> str:
    """What in the file trains; empty where nothing does."""
    methods = {node.func.attr: _dotted(node.func) for node in calls if isinstance(node.func, ast.Attribute)}
    classes = {_dotted(call.func).rpartition(".")[2] for call in calls}
    if "backward" in methods and "step" in methods:
        return "an optimizer's step"
    trainers = sorted(name for name in classes if name.endswith(("Trainer", "LightningCLI")))
    if trainers and ("fit" in methods or "train" in methods or trainers == ["LightningCLI"]):
        return f"{trainers[0]}{'.fit' if 'fit' in methods else '.train' if 'train' in methods else ''}"
    return "Accelerator" if "Accelerator" in classes and "step" in methods else ""


def _is_guard(node: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__":`."""
    return isinstance(node, ast.If) and "__name__" in {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}


def _declared(calls: list[ast.Call]) -> Iterator[Declared]:
    for call in calls:
        name = _dotted(call.func).rpartition(".")[2]
        literals = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        names = [text for text in literals if text and " " not in text]
        if name not in (*_DECLARING, "argument") or not names:
            continue
        given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
        long = max(names, key=len)
        yield Declared(
            long.lstrip("-").replace("-", "_"),
            _TYPES.get(_dotted(given["type"]), "") if "type" in given else "",
            _literal(given.get("default")),
            _literal(given.get("required")) is True,
            not long.startswith("-"),
        )


def _literal(node: ast.expr | None) -> object:
    """A number, a text or a truth value that stands in the source; None for anything else."""
    if node is None:
        return None
    if isinstance(node, ast.Call) and _dotted(node.func) in ("Path", "pathlib.Path") and len(node.args) == 1:
        node = node.args[0]
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, bool | int | float | str) else None


def _words_of_argv(tree: ast.Module) -> tuple[str, ...]:
    """The names that `sys.argv[1]`, `sys.argv[2]` … are given, in order; empty where one of them has none."""
    found: dict[int, str] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        for inner in ast.walk(node.value):
            place = inner.slice if isinstance(inner, ast.Subscript) and _dotted(inner.value) == "sys.argv" else None
            if isinstance(place, ast.Constant) and isinstance(place.value, int) and isinstance(target, ast.Name):
                found.setdefault(place.value, target.id)
            elif isinstance(place, ast.Slice) and isinstance(target, ast.Tuple):
                names = [name.id for name in target.elts if isinstance(name, ast.Name)]
                found.update(enumerate(names, start=1))
    return tuple(found[place] for place in sorted(found)) if sorted(found) == list(range(1, len(found) + 1)) else ()


def _parameters(function: ast.FunctionDef) -> tuple[Parameter, ...]:
    arguments = function.args
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(plain, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return tuple(
        Parameter(arg.arg, ast.unparse(arg.annotation) if arg.annotation else "", _literal(default), default is None)
        for arg, default in pairs
    )


def _constants(tree: ast.Module) -> Iterator[Parameter]:
    """What the module itself sets to a literal: `STEPS = 1000`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            value = _literal(node.value)
            path = isinstance(node.value, ast.Call) and value is not None
            if value is not None or (isinstance(node.value, ast.Constant) and node.value.value is None):
                yield Parameter(node.targets[0].id, "Path" if path else "", value)


def _holds_settings(node: ast.ClassDef) -> bool:
    """Whether a class is a dataclass or a pydantic model."""
    decorators = {_dotted(one.func if isinstance(one, ast.Call) else one) for one in node.decorator_list}
    bases = {_dotted(base) for base in node.bases}
    return any(name.rpartition(".")[2] == "dataclass" for name in decorators) or any(
        name.rpartition(".")[2] in ("BaseModel", "BaseSettings") for name in bases
    )


def _texts(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) < 200:
            yield node.value
