"""What is in a folder of data: files with rows in them, files that are an example each, and what stands beside them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from pytest_trainguard.rows import suffixes
from pytest_trainguard.rows.codec import Form, Json, PlainText, TorchFile, cutting_form, read_content

__all__ = [
    "FolderContent",
    "choose_examples",
    "find_splits",
    "is_media",
    "is_saved_dataset",
    "look_into",
    "named_examples",
]

# What many programs keep beside their data and read whole, although it has the form of rows.
BESIDE = re.compile(
    r"(tokenizer\w*|special_tokens_map|added_tokens|\w*config|dataset_infos?|state|dataset_dict)\.json"
    r"|(vocab\w*|merges|class(es|_names)|label_names|categories)\.(json|txt)|(labels|requirements|readme|license)\.txt",
    re.I,
)
TRAINED = re.compile(r"(?<![a-z])train(ing)?(?![a-z])", re.I)
VALIDATED = re.compile(r"(?<![a-z])(val|valid|validation|dev|eval)(?![a-z])", re.I)
DESCRIBES = (suffixes.JSON, suffixes.PLAIN_TEXT)  # a file so called like a picture is what is said of that one
PAIRED = 3  # folders at most that hold parts of one example each: pictures, masks, depths


class FolderContent(NamedTuple):
    """The files of a folder, those of its folders included, in the order of their paths.

    Attributes:
        files: files with rows in them.
        examples: files that are an example each.
        beside: all others: captions of one picture each, vocabularies, settings.
    """

    files: list[Path]
    examples: list[Path]
    beside: list[Path]


def look_into(folder: Path) -> FolderContent:
    """Tell the files of a folder apart. Hidden ones are left out.

    Text is data where nothing else is.

    Raises:
        OSError: a file cannot be read.
    """
    files: list[tuple[Path, Form]] = []
    examples, beside = [], []
    found = sorted(_visible_files(folder))
    described = {path.stem for path in found if is_media(path)}
    for path in found:
        of_one = path.suffix.lower() in DESCRIBES and path.stem in described
        form = None if of_one or BESIDE.fullmatch(path.name) else cutting_form(path)
        if isinstance(form, TorchFile) or is_media(path):
            examples.append(path)
        elif form is None or not _has_rows(path, form):
            beside.append(path)
        else:
            files.append((path, form))
    is_text_data = not examples and all(isinstance(form, PlainText) for _, form in files)
    rows = [path for path, form in files if is_text_data or not isinstance(form, PlainText)]
    return FolderContent(rows, examples, sorted([*beside, *({path for path, _ in files} - set(rows))]))


def find_splits(folder: Path) -> tuple[Path, Path] | None:
    """The one file that is trained on and the one that is validated on, by their names; None where that is not told.

    Raises:
        OSError: a file cannot be read.
    """
    files = look_into(folder).files
    trained = [path for path in files if TRAINED.search(path.stem)]
    validated = [path for path in files if VALIDATED.search(path.stem)]
    return (trained[0], validated[0]) if len(trained) == 1 and len(validated) == 1 else None


def is_media(path: Path) -> bool:
    """Whether a file is a picture or a sound."""
    return path.suffix.lower() in suffixes.MEDIA


def _visible_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts) and path.is_file():
            yield path


def _has_rows(path: Path, form: Form) -> bool:
    """Whether a file of JSON holds rows, and not settings or the like; others do by their form."""
    if not isinstance(form, Json):
        return True
    try:
        return bool(form.split(read_content(path)).places)
    except ValueError:
        return False


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk` of the `datasets` library."""
    names = {path.name for path in folder.iterdir()}
    return "dataset_dict.json" in names or {"dataset_info.json", "state.json"} <= names


def choose_examples(examples: Collection[Path], rows: int) -> list[Path]:
    """So many examples: of each class as many, where its folder is the class; classes without any are left out.

    Folders with files of the same names hold parts of the same examples (pictures and their masks), and are cut alike.
    """
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in examples:
        folders[path.parent].append(path)
    outer: dict[Path, list[list[Path]]] = defaultdict(list)  # folders side by side: the classes of one part
    for folder, files in folders.items():
        outer[folder.parent].append(files)
    chosen: list[Path] = []
    for classes in outer.values():
        share, rest = divmod(rows, len(classes))
        for number, files in enumerate(classes):
            chosen += files[: rows if _are_paired(classes) else share + (number < rest)]
    return chosen


def _are_paired(folders: list[list[Path]]) -> bool:
    stems = [{path.stem for path in files} for files in folders]
    return 1 < len(folders) <= PAIRED and all(one == stems[0] for one in stems)


def named_examples(folder: Path, examples: Collection[Path], values: object) -> list[Path]:
    """The examples that rows name: by path, by name, or by name without its suffix, unless that is a bare number."""
    names = set(_texts(values)) | {text.rpartition("/")[2] for text in _texts(values)}
    return [
        path
        for path in examples
        if {path.relative_to(folder).as_posix(), path.name} & names
        or (path.stem in names and not path.stem.isdecimal())
    ]


def _texts(value: object) -> Iterator[str]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict | list):
            waiting += one.values() if isinstance(one, dict) else one
