"""The forms that rows come in, read and written through here alone; which one a file has.

A form of text is taken apart into pieces, so that one row is changed and every other byte stays as it is. Content is
bytes, unpacked; where a form has no rows of named fields, it says so.
"""

from __future__ import annotations

from pathlib import Path

from pytest_trainguard.rows import suffixes
from pytest_trainguard.rows.cut_only import Array, Database, PlainText, Shard, Tokens, TorchFile
from pytest_trainguard.rows.forms import CutOnly, Document, Form, NoRows, Row, TextForm, decode_json, encode_json
from pytest_trainguard.rows.json_forms import Json, JsonColumns, JsonLines, json_form
from pytest_trainguard.rows.packing import is_packed, read_content, write_content
from pytest_trainguard.rows.tables import Csv, Parquet

__all__ = [
    "FORMS", "Csv", "CutOnly", "Document", "Form", "Json", "JsonColumns", "JsonLines", "NoRows", "Parquet",
    "PlainText", "Row", "TextForm", "TorchFile", "decode_json", "encode_json", "form_of", "is_packed", "read_content",
    "write_content",
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


def form_of(file: Path) -> Form | None:
    """The form that a file has by its suffix, and in JSON by its content; None for an unknown one, and for a folder.

    Raises:
        OSError: it cannot be read from the disk.
        ImportError: what unpacks it is not installed.
    """
    form = None if file.is_dir() else FORMS.get(suffixes.inside(file))
    if form is None or (is_packed(file) and not form.streamed):
        return None
    return json_form(file) if isinstance(form, Json) and file.exists() else form
