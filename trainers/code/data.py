"""Where a program's rows come from: a JSONL file, a folder of Python source, or the standard library."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from trainers.code import misuse
from trainers.code.prepared import Prepared, is_prepared
from trainers.code.rows import RowFile, Rows, Split, split_by_content
from trainers.common.errors import InputError, reason, show
from trainers.common.process import Run
from trainers.common.settings import DataSettings


def check_path(path: str | os.PathLike[str]) -> Path:
    """A data path that is worth opening: a ``.jsonl`` file or a folder of Python source.

    Raises:
        InputError: it is missing, a circular link, something not a plain file, or has another suffix.
    """
    name = f"data {show(path)}"
    try:
        path = Path(path)
        mode = os.stat(path).st_mode
        real = path.resolve()
    except FileNotFoundError:
        raise InputError(
            f"{name}: a link to nowhere" if _is_link(path) else f"{name}: no such file or folder"
        ) from None
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # RuntimeError: Python 3.10 to 3.12 on a link to itself
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise InputError(f"{name}: {why}" + (" (a circular link)" if _is_link(path) else "")) from None
    if path.is_symlink() and (path.parent.resolve() / path.name).is_relative_to(real):
        raise InputError(f"{name}: a circular link, into the folder that it stands in")
    if stat.S_ISDIR(mode):
        if path.suffix.lower() == ".jsonl":
            raise InputError(f"{name}: a folder where a file belongs")
        return path
    if path.suffix.lower() != ".jsonl":
        suffix = f"suffix {path.suffix} is unknown" if path.suffix else "has no suffix"
        raise InputError(f"{name}: {suffix}; rows stand in a .jsonl file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{name}: not a plain file")
    return path


def _is_link(path: str | os.PathLike[str]) -> bool:
    try:
        return os.path.islink(path)
    except ValueError:  # a NUL in the name
        return False


def open_rows(run: Run, path: Path | None, chosen: DataSettings) -> tuple[Rows, Split]:
    """The rows, all of them checked, and which of them are held out.

    Args:
        run: is told how many there are, and what was left out.
        path: as `check_path` returned it, a folder may be prepared; None is the standard library.
        chosen: the share held out; where rows are made from Python source, also the seed of twins and split,
            the longest function, and how many twins it has. Prepared data has all of that decided.

    Raises:
        InputError: the rows are not as they must be, one line a fault.
    """
    run.stage = "reading the data"
    if path is not None and path.is_file():
        file = RowFile(path)
        table: Rows = file
        split = split_by_content(file, chosen.validation_fraction)
    elif path is not None and is_prepared(path):
        prepared = Prepared(path)
        table, split = prepared, prepared.split
        for fault in prepared.unparsed:
            run.say(f"not parsed: {fault}")
    else:
        corpus = open_corpus(run, path, chosen)
        table, split = corpus, corpus.split
    run.say(f"{len(split.train)} rows to train on, {len(split.validation)} to validate on")
    if not split.validation:
        run.say("validation is skipped: no row is held out")
    return table, split


def open_corpus(run: Run, root: Path | None, chosen: DataSettings) -> misuse.Corpus:
    """Rows made from Python source; ``run`` is told what was left out. See `open_rows`."""
    from tqdm import tqdm

    corpus = misuse.Corpus(
        root,
        seed=chosen.data_seed,
        validation_fraction=chosen.validation_fraction,
        longest=chosen.longest_function,
        twins_each=chosen.twins,
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
