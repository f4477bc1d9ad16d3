"""A tokenizer that has outgrown its model: words of the data become tokens that the embedding has no row for.

Knows `tokenizer.json`, the form of Hugging Face's tokenizers.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pytest_trainguard.rows import suffixes
from pytest_trainguard.rows.codec import form_of
from pytest_trainguard.verdicts.errors import NotApplicable

__all__ = ["OutgrownModel", "outgrow_embedding"]

FILE = "tokenizer.json"
WORDS = 16  # of the data's most frequent words, so many become tokens at most
ROWS = 4096  # of each file of the data, so many are looked at
READ = 1 << 20  # bytes of a file that has no rows


class OutgrownModel(NamedTuple):
    """A base model whose tokenizer has more tokens than its embedding has rows.

    Attributes:
        path: its folder.
        tokens: how many tokens there are now.
        rows: of the embedding.
        words: of the data, which are tokens without a row.
    """

    path: Path
    tokens: int
    rows: int
    words: tuple[str, ...]


def outgrow_embedding(model: Path, data: Path, folder: Path) -> OutgrownModel:
    """A copy of a base model under `folder`, its tokenizer grown by words that stand in the data.

    Raises:
        NotApplicable: the model has no such tokenizer, or the data no word that is not a token yet.
    """
    if not (model / FILE).is_file():
        raise NotApplicable(f"no {FILE} in {model.name}: the base model that make_model() makes needs its tokenizer")
    told = json.loads((model / FILE).read_text(encoding="utf-8"))
    known = _tokens(told)
    rows = max(_embedded(model), max(known.values()) + 1)
    words = _words(data, known)
    if not words:
        raise NotApplicable("its data holds no word that is not a token already")
    fill = [f"<unused_{nth}>" for nth in range(rows - max(known.values()) - 1)]
    for number, word in enumerate([*fill, *words], max(known.values()) + 1):
        told.setdefault("added_tokens", []).append(
            {"id": number, "content": word, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": False}
        )  # fmt: skip
    path = Path(shutil.copytree(model, folder / "outgrown" / model.name))
    (path / FILE).write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
    return OutgrownModel(path, rows + len(words), rows, tuple(words))


def _tokens(told: Mapping[str, object]) -> dict[str, int]:
    """Every token and its number."""
    model, added = told.get("model"), told.get("added_tokens")
    stated = model.get("vocab") if isinstance(model, dict) else None
    known: dict[str, int] = dict(stated) if isinstance(stated, dict) else {}
    for number, entry in enumerate(stated if isinstance(stated, list) else []):
        known[entry[0]] = number
    for entry in added if isinstance(added, list) else []:
        known[entry["content"]] = entry["id"]
    return known


def _embedded(model: Path) -> int:
    """The embedding's rows, as the model's configuration states them; 0 where it states none."""
    path = model / "config.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return int(told.get("vocab_size") or told.get("text_config", {}).get("vocab_size") or 0)


def _words(data: Path, known: Mapping[str, int]) -> list[str]:
    """The most frequent words in the data that are no tokens yet, with a space before them or without."""
    files = sorted(path for path in data.rglob("*") if path.is_file()) if data.is_dir() else [data]
    counted: Counter[str] = Counter()
    for file in files[:WORDS]:
        for text in _texts(file):
            counted.update(re.findall(r"[^\W\d_]{3,}", text))
    new = (word for word, _ in counted.most_common() if not {word, f"Ġ{word}", f"▁{word}"} & known.keys())
    return [word for word, _ in zip(new, range(WORDS), strict=False)]


def _texts(file: Path) -> Iterator[str]:
    """The texts in a file's rows, without the names of their fields; where it has no rows all that there is."""
    try:
        yield from _strings(_first_rows(file))
    except (ValueError, ImportError):
        with file.open("rb") as content:
            if suffixes.inside(file) in (suffixes.CSV, suffixes.TSV):
                content.readline()  # the names of its columns
            yield content.read(READ).decode(errors="replace")


def _first_rows(file: Path) -> list[object]:
    form = form_of(file)
    if form is None:
        raise ValueError(f"{file.name}: no form of rows")
    return form.read(form.cut(file, ROWS)[0])


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
