"""The forms that rows come in, read and written through here alone; which one a file has.

A form of text is taken apart into pieces, so that one row is changed and every other byte stays as it is. Content is
bytes, unpacked; where a form has no rows of named fields, it says so.
"""

from __future__ import annotations

from pathlib import Path

from pytest_trainguard.rows import suffixes
from pytest_trainguard.rows.cut_only import Array, Database, PlainText, Shard, Tokens, TorchFile
from pytest_trainguard.rows.forms import CutOnly, Document, Form, NoRows, Row, TextForm, decode_json, encode_json
from pytest_trainguard.rows.json_forms import Json, JsonColumns, JsonLines, form_of_value, holds_lines
from pytest_trainguard.rows.packing import is_packed, read_content, write_content
from pytest_trainguard.rows.tables import Csv, Parquet

__all__ = [
    "FORMS", "Csv", "CutOnly", "Document", "Form", "Json", "JsonColumns", "JsonLines", "NoRows", "Parquet",
    "PlainText", "Row", "TextForm", "TorchFile", "cutting_form", "decode_json", "encode_json", "form_of", "is_packed",
    "read_content", "write_content",
]  # fmt: skip

FORMS: dict[str, Form] = {
    **dict.fromkeys(suffixes.JSON_LINES, JsonLines()),
    suffixes.JSON: Json(),
    suffixes.CSV: Csv(),
    suffixes.TSV: Csv("\t"),
    suffixes.PARQUET: Parquet(),
    **dict.fromkeys(suffixes.TENSOR_DATA, TorchFile()),
    suffixes.PLAIN_TEXT: PlainText(),
    suffixes.ARRAY: Array(),
    suffixes.TOKENS: Tokens(),
    suffixes.SHARD: Shard(),
    **dict.fromkeys(suffixes.DATABASE, Database()),
}


def cutting_form(file: Path) -> Form | None:
    """The form that cuts a file; None for an unknown one, and for a folder.

    It is the file's own by its suffix, and in JSON by its first lines. A value of JSON is not read for it: `Json` cuts
    every one.

    Raises:
        OSError: it cannot be read from the disk.
        ImportError: what unpacks it is not installed.
    """
    form = None if file.is_dir() else FORMS.get(suffixes.inside(file))
    if form is None or (is_packed(file) and not form.streamed):
        return None
    return JsonLines() if isinstance(form, Json) and file.exists() and holds_lines(file) else form


def form_of(file: Path) -> Form | None:
    """The form of a file, in JSON by all that is in it; None for an unknown one, and for a folder.

    Raises as `cutting_form`.
    """
    form = cutting_form(file)
    return form_of_value(file) if isinstance(form, Json) and file.exists() else form
