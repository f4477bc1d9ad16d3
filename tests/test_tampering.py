"""Broken data, in every form that data comes in: what is said to be broken is, and nothing else."""

import csv
import json

import pyarrow
import pyarrow.parquet as parquet
import pytest

from pytest_trainguard import NotApplicable
from pytest_trainguard.faults import data as tamper

ROWS = [{"text": f"row {n}", "label": n % 2} for n in range(6)]


def write(folder, kind):
    """ROWS in one of the forms."""
    path = folder / f"train.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "json":
        path.write_text(json.dumps({"version": 1, "rows": ROWS}))
    elif kind == "csv":
        with path.open("w", newline="") as out:
            writer = csv.DictWriter(out, ["text", "label"])
            writer.writeheader()
            writer.writerows(ROWS)
    elif kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


def read(path):
    """The rows of a file, read as strictly as a good program reads it."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    if path.suffix == ".json":
        return json.loads(path.read_text())["rows"]
    if path.suffix == ".csv":
        with path.open(newline="") as lines:
            return list(csv.DictReader(lines))
    return parquet.read_table(path).to_pylist()


KINDS = ["jsonl", "json", "csv", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_data_itself_is_left_alone(tmp_path, kind):
    path = write(tmp_path, kind)
    before = path.read_bytes()
    tamper.empty(path, tmp_path / "a")
    tamper.malformed(path, tmp_path / "b")
    tamper.without(path, tmp_path / "c", "label")
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", KINDS)
def test_empty_has_no_rows_and_keeps_its_name(tmp_path, kind):
    for variant in tamper.empty(write(tmp_path, kind), tmp_path / "out"):
        assert variant.path.name == f"train.{kind}"
        try:
            rows = read(variant.path)
        except (ValueError, pyarrow.ArrowInvalid):
            rows = []
        assert rows == [], variant.did


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_malformed_cannot_be_read(tmp_path, kind):
    variants = tamper.malformed(write(tmp_path, kind), tmp_path / "out")
    assert len(variants) >= 2
    for variant in variants:
        with pytest.raises((ValueError, OSError)):
            read(variant.path)


def test_malformed_names_the_line_that_is_broken(tmp_path):
    for variant in tamper.malformed(write(tmp_path, "jsonl"), tmp_path / "out"):
        lines = variant.path.read_bytes().split(b"\n")
        with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
            json.loads(lines[variant.line - 1])
        others = [line for number, line in enumerate(lines, 1) if number != variant.line and line.strip()]
        assert all(json.loads(line) for line in others), variant.did


@pytest.mark.parametrize("kind", KINDS)
def test_fields_are_those_of_every_row(tmp_path, kind):
    assert tamper.fields(write(tmp_path, kind)) == ["text", "label"]


def test_a_field_that_only_some_rows_have_is_no_field_of_every_row(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1, "note": "x"}\n')
    assert tamper.fields(path) == ["text", "label"]


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_without_takes_it_out_of_the_row_that_it_names(tmp_path, kind):
    variant = tamper.without(write(tmp_path, kind), tmp_path / "out", "label")
    lacking = [row for row in read(variant.path) if "label" not in row]
    assert len(lacking) == 1
    assert lacking[0]["text"] in variant.path.read_text().splitlines()[variant.line - 1]


@pytest.mark.parametrize("kind", KINDS)
def test_without_everywhere_leaves_it_in_no_row(tmp_path, kind):
    variant = tamper.without(write(tmp_path, kind), tmp_path / "out", "label", everywhere=True)
    rows = read(variant.path)
    assert len(rows) == len(ROWS)
    assert all("label" not in row and "text" in row for row in rows)


def test_a_folder_is_copied_with_one_file_changed(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder, "jsonl")
    (folder / "notes.txt").write_text("kept")
    variant = tamper.without(folder, tmp_path / "out", "label")
    assert variant.path.is_dir()
    assert variant.file.parent == variant.path
    assert (variant.path / "notes.txt").read_text() == "kept"


def test_tensors_have_no_fields(tmp_path):
    path = tmp_path / "rows.pt"
    path.write_bytes(b"PK\x03\x04 and so on")
    assert len(tamper.malformed(path, tmp_path / "out")) == 2
    with pytest.raises(NotApplicable, match="no named fields"):
        tamper.fields(path)


def test_an_unknown_form_says_which_are_known(tmp_path):
    path = tmp_path / "rows.xyz"
    path.write_text("rows")
    with pytest.raises(NotApplicable, match="JSONL"):
        tamper.malformed(path, tmp_path / "out")
